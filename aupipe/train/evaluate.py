"""Scores of predictions against annotations, with the share of the data that they cover."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.tasks import Task, as_task, task_from_json
from aupipe.train.events import Events
from aupipe.train.intervals import BootstrapInterval
from aupipe.train.labels import check_labels, positive_rates, scored_entries, scored_rows
from aupipe.train.metrics import agreement
from aupipe.train.postprocess import PostProcess, apply_postprocess
from aupipe.train.predictions import Predictions, Threshold, decide
from aupipe.train.statistics import from_statistics, statistics
from aupipe.types import Labels

log = logging.getLogger(__name__)

HIDDEN = ("event F1 @.25", "event F1 @.75")  # not in tables, but in JSON
JSON_NAMES = {"face_found": "seen"}  # fields of `Scores` that JSON, and so every saved run, names differently


@dataclass(frozen=True)
class Scores:
    """The score of one task over all valid frames together, each counted once.

    ``support``: positives per AU, or frames per class or dimension; names in ``absent`` have none, so that their F1 of
    0 has no meaning. ``coverage``: share of annotated frames that were predicted. ``face_found``: share of scored
    frames in which the face was found; in JSON its name is ``seen``. ``others``: further scores, with a value per name.
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
    others: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """``F1``, ``CCC``, ``ICC`` or ``PCC``."""
        return self.task.metric

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into equal scores."""
        content = {JSON_NAMES.get(one.name, one.name): getattr(self, one.name) for one in fields(self)}
        return content | {"task": self.task.to_json(), "others": dict(self.others)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Scores:
        """The inverse of `to_json`."""
        names = {name: key for key, name in JSON_NAMES.items()}
        values: dict[str, Any] = {
            names.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        others = {name: tuple(value) for name, value in content.get("others", {}).items()}
        return cls(**values | {"task": task_from_json(values["task"]), "others": others})

    def table(
        self, other: Mapping[str, Scores] | None = None, name: str = "model", interval: BootstrapInterval | None = None
    ) -> str:
        """A text table: a line per AU, class or dimension, and their mean; a column for these and the ``other`` scores.

        ``interval`` adds a column of 95% intervals. Raises UsageError for ``other`` scores of another task.
        """
        columns = {name: self, **(other or {})}
        for title, scores in columns.items():
            if scores.names != self.names:
                raise UsageError(f"{title}: scores of task {scores.task.name!r} next to scores of {self.task.name!r}")
        counted = self.task.metric == "F1"
        others = {name: values for name, values in self.others.items() if name not in HIDDEN}
        titles = [
            self.metric,
            *columns,
            "95% by video" if interval else "",
            *others,
            "positive" if counted else "",
        ]
        bounds = (*interval.each, interval.bounds) if interval else ((),) * (len(self.names) + 1)
        within = ["{:.3f} to {:.3f}".format(*bound) if bound else "" for bound in bounds]
        rows = [
            [
                label,
                *(f"{scores.values[k]:.3f}" for scores in columns.values()),
                within[k],
                *(f"{values[k]:.3f}" for values in others.values()),
                self._share(k),
            ]
            for k, label in enumerate(self.names)
        ]
        means = [f"{sum(values) / len(values):.3f}" for values in others.values()]
        rows.append(["mean", *(f"{scores.mean:.3f}" for scores in columns.values()), within[-1], *means, ""])
        widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
        lines = [_line(titles, widths), *(_line(row, widths) for row in rows[:-1])]
        note = f"; {interval.caveat}" if interval and interval.caveat else ""
        lines += ["-" * len(lines[0]), _line(rows[-1], widths), "", self.footnote() + note]
        return "\n".join(line.rstrip() for line in lines)

    def _share(self, k: int) -> str:
        if self.task.metric != "F1":
            return ""
        return "none" if not self.support[k] else f"{self.support[k] / max(self.frames, 1):.3f}"

    def footnote(self) -> str:
        """One line: what the numbers are, over how many frames, and what they do not cover."""
        how = {"multi_label": f"F1 at {_threshold(self.threshold)}", "classes": "F1 of the likeliest class"}
        text = (
            f"{how.get(self.task.kind, self.metric)}, pooled over {self.frames} frames of {self.recordings} recordings"
            "; "
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
    predictions: Mapping[str, Predictions], labels: Mapping[str, Labels], task: Task | str, threshold: Threshold = 0.5
) -> Scores:
    """Score predictions against the annotations of every recording in ``labels``.

    Computed once over all frames, never averaged over recordings. A frame of an official task is scored if every column
    of its annotation is valid, with or without a face; of another task every valid entry is. Recordings without
    predictions lower the coverage and are listed; predictions without annotations are left out. Formulas: Zhang et al.
    2024, section 4.1; pooling: sucv/ABAW3, base/trainer.py.

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
    predictions: Mapping[str, Predictions], labels: Mapping[str, Labels], task: Task | str, threshold: Threshold = 0.5
) -> Scores:
    """`evaluate` without its warning."""
    task = as_task(task)
    pool = Pool(task)
    face_found: list[NDArray[np.bool_]] = []
    annotated = 0
    for name, item in labels.items():
        check_labels(item, task, name)
        annotated += int(scored_rows(item).sum())
        if name not in predictions:
            continue
        predicted = predictions[name]
        if predicted.task.name != task.name:
            raise UsageError(f"{name}: predictions for {predicted.task.name!r}, asked for {task.name!r}")
        shared = min(len(item), len(predicted))  # row k belongs to frame k; missing rows lower the coverage
        pool.add(item, decide(predicted.scores[:shared], task, threshold))
        face_found.append(predicted.face_found[:shared][scored_rows(item)[:shared]])
    if not pool.frames:
        raise UsageError(
            f"nothing to score: {annotated} annotated frames in {len(labels)} recordings, none among the "
            f"{len(predictions)} predicted recordings: check the annotation folder and the split"
        )
    return pool.scores(
        recordings=len(face_found),
        coverage=pool.frames / annotated,
        face_found=float(np.concatenate(face_found).mean()),
        missing=tuple(name for name in labels if name not in predictions),
        threshold=threshold,
    )


class Pool:
    """Targets and decisions of several recordings, scored together."""

    def __init__(self, task: Task) -> None:
        self.task, self.frames = task, 0
        self.sums: NDArray[np.float64] | float = 0.0
        self.events = Events(len(task.names)) if task.kind == "multi_label" else None

    def add(self, labels: Labels, decided: NDArray[Any]) -> None:
        """Add a recording: ``decided`` (T, K) as `decide` returns it, of as many frames as were predicted."""
        scored = scored_entries(labels)[: len(decided)]
        targets = labels.targets[: len(decided)]
        self.frames += int(scored.any(axis=1).sum())
        self.sums = self.sums + statistics(targets, decided, scored, self.task)
        if self.events is not None:
            self.events.add(targets > 0.5, decided > 0.5, scored)

    def scores(self, **about: Any) -> Scores:
        """The scores of all recordings together."""
        sums, task = np.asarray(self.sums), self.task
        values = from_statistics(sums, task)
        support = {"multi_label": lambda: sums[:, 1].sum(axis=-1), "classes": lambda: sums.sum(axis=-1)}
        counts = support.get(task.kind, lambda: sums[:, 0])()
        return Scores(
            task=task,
            names=task.names,
            values=tuple(float(value) for value in values),
            mean=float(values.mean()),
            frames=self.frames,
            support=tuple(int(count) for count in counts),
            absent=tuple(name for name, count in zip(task.names, counts, strict=True) if not count),
            others={name: tuple(map(float, each)) for name, each in self._others(sums).items()},
            **about,
        )

    def _others(self, sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        if self.events is not None:
            return self.events.f1()
        if self.task.kind != "intensity":
            return {}
        return {name: agreement(sums, name) for name in ("ICC", "PCC", "MAE") if name != self.task.metric}


def trivial_baseline(labels: Mapping[str, Labels], task: Task | str) -> Scores:
    """Scores of a constant prediction: every AU present, the most frequent class, the mean of each number.

    Raises UsageError where no frame is annotated.
    """
    task = as_task(task)
    for name, item in labels.items():
        check_labels(item, task, name)
    rates = positive_rates([_scored_only(item) for item in labels.values()], task)
    if not any(scored_rows(item).any() for item in labels.values()):
        raise UsageError(f"nothing to score: no annotated frame in {len(labels)} recordings")
    if task.kind == "multi_label":
        constant = np.ones(len(task.names))
    else:
        constant = np.array([rates.argmax()]) if task.kind == "classes" else rates
    pool = Pool(task)
    for item in labels.values():
        pool.add(item, np.broadcast_to(constant, item.targets.shape))
    return pool.scores(recordings=len(labels), coverage=1.0, face_found=1.0)


def _scored_only(labels: Labels) -> Labels:
    return replace(labels, valid=scored_entries(labels))
