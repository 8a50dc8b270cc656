"""Scores of predictions against annotations, with the share of the data that they cover."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.tasks import Task, as_task
from aupipe.train.events import Events
from aupipe.train.labels import check_labels, positive_rates, scored_entries, scored_rows
from aupipe.train.metrics import agreement
from aupipe.train.postprocess import PostProcess, apply_postprocess
from aupipe.train.predictions import Predictions, Threshold
from aupipe.train.scores import Scores
from aupipe.train.statistics import from_statistics, statistics
from aupipe.types import Labels

log = logging.getLogger(__name__)


def evaluate(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task | str,
    threshold: Threshold | None = None,
) -> Scores:
    """Score predictions against the annotations of every recording in ``labels``.

    ``threshold``: of AUs, in place of those of the predictions.
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
    scores = evaluate(processed, labels, post.task)
    return replace(scores, tuned_on_itself=bool(set(post.tuned_on) & set(scored)))


def check_unseen(known: Collection[str], scored: Sequence[str], what: str, on_tuned: bool = False) -> None:
    """Raise UsageError where a scored recording is one of ``known``, which ``what`` describes, unless ``on_tuned``."""
    both = set(known) & set(scored)
    if both and not on_tuned:
        raise UsageError(
            f"{len(both)} of {counted(len(scored), 'recording')} (e.g. {min(both)!r}) {what}: "
            "their score would be optimistic. "
            "Score another split, or for folds what each held out (--held-out), or give --on-tuned and report it so"
        )


def warn_absent(scores: Scores) -> None:
    """Log the names that have no positive frame, so that their F1 is 0 whatever was predicted."""
    if scores.absent:
        log.warning("no positive frame of %s in the annotations: counted as F1 = 0", ", ".join(scores.absent))


def pooled(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task | str,
    threshold: Threshold | None = None,
) -> Scores:
    """`evaluate` without its warning."""
    task = as_task(task)
    pool = Pool(task)
    face_found: list[NDArray[np.bool_]] = []
    thresholds: set[Threshold] = set()
    annotated = 0
    for name, item in labels.items():
        check_labels(item, task, name)
        annotated += int(scored_rows(item).sum())
        if name not in predictions:
            continue
        predicted = predictions[name]
        if threshold is not None:
            predicted = replace(predicted, threshold=threshold)
        if predicted.task.name != task.name:
            raise UsageError(f"{name}: predictions for {predicted.task.name!r}, asked for {task.name!r}")
        shared = min(len(item), len(predicted))  # row k belongs to frame k; missing rows lower the coverage
        pool.add(item, predicted.decisions[:shared])
        thresholds.add(predicted.threshold)
        face_found.append(predicted.face_found[:shared][scored_rows(item)[:shared]])
    if not pool.frames:
        raise UsageError(
            f"nothing to score: {annotated} annotated frames in {counted(len(labels), 'recording')}, none among the "
            f"{len(predictions)} predicted recordings: check the annotation folder and the split"
        )
    return pool.scores(
        recordings=len(face_found),
        coverage=pool.frames / annotated,
        face_found=float(np.concatenate(face_found).mean()),
        missing=tuple(name for name in labels if name not in predictions),
        threshold=thresholds.pop() if len(thresholds) == 1 else None,
    )


class Pool:
    """Targets and decisions of several recordings, scored together."""

    def __init__(self, task: Task) -> None:
        self.task, self.frames = task, 0
        self.annotated: NDArray[np.int64] | int = 0  # (K,), or (1,) for classes
        self.sums: NDArray[np.float64] | float = 0.0
        self.events = Events(len(task.names)) if task.kind == "multi_label" else None

    def add(self, labels: Labels, decided: NDArray[Any]) -> None:
        """Add a recording: ``decided`` (T, K) as `decide` returns it, of as many frames as were predicted."""
        scored = scored_entries(labels)[: len(decided)]
        targets = labels.targets[: len(decided)]
        self.frames += int(scored.any(axis=1).sum())
        self.annotated = self.annotated + scored.sum(axis=0)
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
            annotated=tuple(np.broadcast_to(self.annotated, len(task.names)).tolist()),
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
        raise UsageError(f"nothing to score: no annotated frame in {counted(len(labels), 'recording')}")
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
