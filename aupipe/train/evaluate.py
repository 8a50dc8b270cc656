"""Scores of predictions against annotations, with the share of the data that they cover."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.train import metrics
from aupipe.train.intervals import BootstrapInterval
from aupipe.train.labels import METRIC, NAMES, check_labels, check_task, official_valid
from aupipe.train.postprocess import PostProcess, apply_postprocess
from aupipe.train.predictions import Predictions, Threshold, decide
from aupipe.types import Labels, Task

log = logging.getLogger(__name__)

JSON_NAMES = {"face_found": "seen"}  # fields of `Scores` that JSON, and so every saved run, names differently


@dataclass(frozen=True)
class Scores:
    """The official score of one task over all valid frames together, each counted once.

    ``support``: positives per AU, or frames per class; names in ``absent`` have none, so that their F1 of 0 has no
    meaning. ``coverage``: share of annotated frames that were predicted. ``face_found``: share of scored frames in
    which the face was found; in JSON its name is ``seen``.
    """

    task: Task
    names: tuple[str, ...]
    values: tuple[float, ...]
    mean: float
    frames: int
    recordings: int
    coverage: float
    face_found: float
    support: tuple[int, ...]
    absent: tuple[str, ...] = ()
    tuned_on_itself: bool = False  # thresholds or smoothing were fitted on these recordings: the score is optimistic
    caveats: tuple[str, ...] = ()  # other reasons why it is optimistic
    missing: tuple[str, ...] = ()  # annotated recordings without a prediction
    threshold: Threshold = 0.5

    @property
    def metric(self) -> str:
        """``F1`` or ``CCC``."""
        return METRIC[self.task]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into equal scores."""
        return {JSON_NAMES.get(key, key): value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Scores:
        """The inverse of `to_json`."""
        names = {name: key for key, name in JSON_NAMES.items()}
        values: dict[str, Any] = {
            names.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        return cls(**values)

    def table(
        self, other: Mapping[str, Scores] | None = None, name: str = "model", interval: BootstrapInterval | None = None
    ) -> str:
        """A text table: a line per AU, class or dimension, and their mean; a column for these and the ``other`` scores.

        ``interval`` adds a column of 95% intervals. Raises UsageError for ``other`` scores of another task.
        """
        columns = {name: self, **(other or {})}
        for title, scores in columns.items():
            if scores.names != self.names:
                raise UsageError(f"{title}: scores of task {scores.task!r} next to scores of task {self.task!r}")
        titles = [self.metric, *columns, "95% by video" if interval else "", "positive" if self.task != "va" else ""]
        bounds = (*interval.each, interval.bounds) if interval else ((),) * (len(self.names) + 1)
        within = ["{:.3f} to {:.3f}".format(*bound) if bound else "" for bound in bounds]
        rows = [
            [label, *(f"{scores.values[k]:.3f}" for scores in columns.values()), within[k], self._share(k)]
            for k, label in enumerate(self.names)
        ]
        rows.append(["mean", *(f"{scores.mean:.3f}" for scores in columns.values()), within[-1], ""])
        widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
        lines = [_line(titles, widths), *(_line(row, widths) for row in rows[:-1])]
        note = f"; {interval.caveat}" if interval and interval.caveat else ""
        lines += ["-" * len(lines[0]), _line(rows[-1], widths), "", self.footnote() + note]
        return "\n".join(line.rstrip() for line in lines)

    def _share(self, k: int) -> str:
        if self.task == "va":
            return ""
        return "none" if not self.support[k] else f"{self.support[k] / max(self.frames, 1):.3f}"

    def footnote(self) -> str:
        """One line: what the numbers are, over how many frames, and what they do not cover."""
        how = {"au": f"F1 at {_threshold(self.threshold)}", "expr": "F1 of the likeliest class", "va": "CCC"}
        text = (
            f"{how[self.task]}, pooled over {self.frames} frames of {self.recordings} recordings; "
            f"{self.coverage:.1%} of annotated frames predicted, face found in {self.face_found:.1%} of them"
        )
        if self.tuned_on_itself:
            text += "; TUNED ON THESE RECORDINGS, so it is optimistic"
        for caveat in self.caveats:
            text += f"; {caveat}"
        if self.absent:
            text += f"; ABSENT from the annotations, counted as 0: {', '.join(self.absent)}"
        return text + (f"; no prediction for {len(self.missing)} recordings" if self.missing else "")


def _threshold(threshold: Threshold) -> str:
    if isinstance(threshold, tuple):
        return f"thresholds {min(threshold):.2f} to {max(threshold):.2f}, one per AU"
    return f"threshold {threshold:g}"


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])


def evaluate(
    predictions: Mapping[str, Predictions], labels: Mapping[str, Labels], task: Task, threshold: Threshold = 0.5
) -> Scores:
    """Score predictions against the annotations of every recording in ``labels``.

    Computed once over all frames, never averaged over recordings. A frame is scored if every column of its annotation
    is valid, with or without a face. Recordings without predictions lower the coverage and are listed; predictions
    without annotations are left out. Formulas: Zhang et al. 2024, section 4.1; pooling: sucv/ABAW3, base/trainer.py.

    Raises UsageError where no frame can be scored.
    """
    scores = pooled(predictions, labels, task, threshold)
    warn_absent(scores)
    return scores


def evaluate_post(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    post: PostProcess,
    shot_starts: Mapping[str, Sequence[int]] | None = None,
    on_tuned: bool = False,
) -> Scores:
    """`evaluate` after a fitted post-processing; ``shot_starts``: recording id -> first frames of shots.

    Raises UsageError where the post-processing was fitted on a scored recording, unless ``on_tuned``; the scores then
    say so.
    """
    scored = [name for name in labels if name in predictions]
    check_unseen(post.tuned_on, scored, "chose these thresholds or this smoothing", on_tuned)
    processed = apply_postprocess(post, predictions, shot_starts)
    scores = evaluate(processed, labels, post.task, post.threshold or 0.5)
    return replace(scores, tuned_on_itself=bool(set(post.tuned_on) & set(scored)))


def check_unseen(known: Collection[str], scored: Sequence[str], what: str, on_tuned: bool = False) -> None:
    """Raise UsageError where a scored recording is one of ``known``, which ``what`` describes, unless ``on_tuned``."""
    both = set(known) & set(scored)
    if both and not on_tuned:
        raise UsageError(
            f"{len(both)} of {len(scored)} recordings (e.g. {min(both)!r}) {what}: their score would be optimistic. "
            "Score another split, or for folds what each held out (--held-out), or give --on-tuned and report it so"
        )


def warn_absent(scores: Scores) -> None:
    """Log the names that have no positive frame, so that their F1 is 0 whatever was predicted."""
    if scores.absent:
        log.warning("no positive frame of %s in the annotations: counted as F1 = 0", ", ".join(scores.absent))


def pooled(
    predictions: Mapping[str, Predictions], labels: Mapping[str, Labels], task: Task, threshold: Threshold = 0.5
) -> Scores:
    """`evaluate` without its warning."""
    check_task(task)
    targets: list[NDArray[np.float32]] = []
    scores: list[NDArray[np.float32]] = []
    face_found: list[NDArray[np.bool_]] = []
    annotated = 0
    for name, item in labels.items():
        check_labels(item, task, name)
        counted = official_valid(item)
        annotated += int(counted.sum())
        if name not in predictions:
            continue
        predicted = predictions[name]
        if predicted.task != task:
            raise UsageError(f"{name}: predictions for {predicted.task!r}, asked for {task!r}")
        shared = min(len(item), len(predicted))  # row k belongs to frame k; missing rows lower the coverage
        keep = counted[:shared]
        targets.append(item.targets[:shared][keep])
        scores.append(predicted.scores[:shared][keep])
        face_found.append(predicted.face_found[:shared][keep])
    frames = sum(map(len, targets))
    if not frames:
        raise UsageError(
            f"nothing to score: {annotated} annotated frames in {len(labels)} recordings, none among the "
            f"{len(predictions)} predicted recordings: check the annotation folder and the split"
        )
    return _score(
        np.concatenate(targets),
        decide(np.concatenate(scores), task, threshold),
        task,
        recordings=len(targets),
        coverage=frames / annotated,
        face_found=float(np.concatenate(face_found).mean()),
        missing=tuple(name for name in labels if name not in predictions),
        threshold=threshold,
    )


def _score(targets: NDArray[Any], decided: NDArray[Any], task: Task, **about: Any) -> Scores:
    """Scores of pooled frames: ``targets`` and ``decided`` (N, K), for EXPR (N, 1)."""
    names = NAMES[task]
    if task == "au":
        values, support = metrics.binary_f1(targets > 0.5, decided > 0.5), (targets > 0.5).sum(axis=0)
    elif task == "expr":
        values = metrics.class_f1(targets[:, 0], decided[:, 0], classes=len(names))
        support = np.bincount(targets[:, 0].astype(np.int64), minlength=len(names))
    else:
        values, support = metrics.ccc(targets, decided), np.full(len(names), len(targets))
    absent = tuple(name for name, count in zip(names, support, strict=True) if not count)
    return Scores(
        task=task,
        names=names,
        values=tuple(float(value) for value in values),
        mean=float(values.mean()),
        frames=len(targets),
        support=tuple(int(count) for count in support),
        absent=absent,
        **about,
    )


def trivial_baseline(labels: Mapping[str, Labels], task: Task) -> Scores:
    """Scores of a constant prediction: every AU present, the most frequent class, the mean of valence and arousal.

    Raises UsageError where no frame is annotated.
    """
    check_task(task)
    for name, item in labels.items():
        check_labels(item, task, name)
    if not any(official_valid(item).any() for item in labels.values()):
        raise UsageError(f"nothing to score: no annotated frame in {len(labels)} recordings")
    targets = np.concatenate([item.targets[official_valid(item)] for item in labels.values()])
    if task == "au":
        decided = np.ones_like(targets)
    elif task == "expr":
        decided = np.full_like(targets, np.bincount(targets[:, 0].astype(np.int64)).argmax())
    else:
        decided = np.broadcast_to(targets.mean(axis=0), targets.shape)
    return _score(targets, decided, task, recordings=len(labels), coverage=1.0, face_found=1.0)
