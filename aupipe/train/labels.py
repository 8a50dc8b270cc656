"""How annotations are checked and matched to the rows of features: never shifted, never padded silently."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.tasks import OFFICIAL, Task, as_task
from aupipe.types import Labels

log = logging.getLogger(__name__)

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType({name: task.names for name, task in OFFICIAL.items()})


def check_labels(labels: Labels, task: Task | str, recording: str) -> None:
    """Raise UsageError unless these are labels of ``task`` with exactly its columns, and valid ones within its range.

    The marks of what is not annotated, such as -1, are values like any other here: such entries have ``valid=False``.
    """
    task = as_task(task)
    if labels.task.name != task.name:
        raise UsageError(f"{recording}: labels for {labels.task.name!r}, asked for {task.name!r}")
    if tuple(labels.names) != task.names or labels.targets.shape[1] != task.columns:
        raise UsageError(f"{recording}: columns {', '.join(labels.names)}: expected {', '.join(task.names)}")
    legal = (labels.targets >= task.low) & (labels.targets <= task.high)  # False for NaN
    if task.kind == "classes":
        legal &= labels.targets == np.floor(labels.targets)
    if wrong := np.argwhere(labels.valid & ~legal).tolist():
        row, column = wrong[0]
        what = "class" if task.kind == "classes" else labels.names[column]
        raise UsageError(
            f"{recording}, frame {row + 1}: {what} is {labels.targets[row, column]:g}, not within {task.low:g} to "
            f"{task.high:g} ({len(wrong)} such values): mark frames without an annotation by valid=False"
        )


def blank_labels(task: Task, frames: int) -> Labels:
    """Labels (frames, K) that are all invalid."""
    shape = (frames, task.columns)
    return Labels(task, task.names, np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool))


def match(labels: Labels, frames: int, recording: str) -> tuple[Labels, int]:
    """``labels`` with exactly ``frames`` rows, and by how many rows they were longer than the features.

    Row k belongs to frame k. Frames after the last label are invalid; labels after the last frame are cut off (they
    still count in the coverage that `evaluate` reports). Frame counts of containers are often off by one; a larger
    difference is logged as a warning.
    """
    difference = len(labels) - frames
    if abs(difference) > 1:
        log.warning(
            "%s: %d label rows for %d frames; rows without a partner count as invalid", recording, len(labels), frames
        )
    if difference == 0:
        return labels, 0
    keep = min(len(labels), frames)
    targets = np.zeros((frames, labels.targets.shape[1]), dtype=np.float32)
    valid = np.zeros((frames, labels.valid.shape[1]), dtype=bool)
    targets[:keep], valid[:keep] = labels.targets[:keep], labels.valid[:keep]
    return Labels(task=labels.task, names=labels.names, targets=targets, valid=valid), difference


def scored_entries(labels: Labels) -> NDArray[np.bool_]:
    """(T, K) True where the score counts an entry.

    Of an official task: all entries of the rows in which every column is annotated, as in
    th2l/Affwild2-ABAW3-ActionUnit, tools/data_preparation.py (a loss uses the others too). Else every annotated entry.
    """
    if not labels.task.official:
        return labels.valid
    return np.broadcast_to(labels.valid.all(axis=1, keepdims=True), labels.valid.shape)


def scored_rows(labels: Labels) -> NDArray[np.bool_]:
    """(T,) True for rows of which the score counts at least one entry."""
    return np.asarray(scored_entries(labels).any(axis=1))


def positive_rates(labels: Iterable[Labels], task: Task | str) -> NDArray[np.float64]:
    """(K,) over valid entries: shares of positives, shares of classes, or for numbers their means."""
    task = as_task(task)
    size = len(task.names)
    total, counted = np.zeros(size), np.zeros(size)
    for item in labels:
        if task.kind == "classes":
            classes = item.targets[item.valid].astype(np.int64)  # (T, 1) -> (N,)
            total += np.bincount(classes, minlength=size)
            counted += len(classes)
        else:
            total += item.targets.sum(axis=0, where=item.valid, dtype=np.float64)
            counted += item.valid.sum(axis=0)
    return np.asarray(total / np.maximum(counted, 1))
