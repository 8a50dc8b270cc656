"""The three tasks, and how annotations are matched to the rows of features: never shifted, never padded silently."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.types import Labels, Task

log = logging.getLogger(__name__)

# Column headers of the organisers' annotation and submission files, third ABAW edition onwards.
AU_NAMES = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
EXPR_NAMES = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
VA_NAMES = ("valence", "arousal")

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType({"au": AU_NAMES, "expr": EXPR_NAMES, "va": VA_NAMES})
METRIC: Mapping[str, str] = MappingProxyType({"au": "F1", "expr": "F1", "va": "CCC"})


def check_task(task: str) -> None:
    """Raise UsageError unless ``task`` is one of au, expr, va."""
    if task not in NAMES:
        raise UsageError(f"unknown task {task!r}.{nearest(task, NAMES)} Available: {', '.join(NAMES)}")


def target_columns(task: str) -> int:
    """K of the targets of a task; for EXPR 1, the number of the class."""
    return 1 if task == "expr" else len(NAMES[task])


def check_labels(labels: Labels, task: str, recording: str) -> None:
    """Raise UsageError unless these are labels of ``task`` with exactly its columns, and valid ones within its range.

    AU: 0 to 1. EXPR: whole numbers of classes. VA: -1 to 1. The marks of unannotated frames, -1 and -5, are values like
    any other here: such frames have ``valid=False``.
    """
    if labels.task != task:
        raise UsageError(f"{recording}: labels for {labels.task!r}, asked for {task!r}")
    columns = target_columns(task)
    if tuple(labels.names) != NAMES[task] or labels.targets.shape[1] != columns:
        raise UsageError(f"{recording}: columns {', '.join(labels.names)}: expected {', '.join(NAMES[task])}")
    low, high = (-1, 1) if task == "va" else (0, 1 if task == "au" else len(EXPR_NAMES) - 1)
    legal = (labels.targets >= low) & (labels.targets <= high)  # False for NaN
    if task == "expr":
        legal &= labels.targets == np.floor(labels.targets)
    if wrong := np.argwhere(labels.valid & ~legal).tolist():
        row, column = wrong[0]
        what = "class" if task == "expr" else labels.names[column]
        raise UsageError(
            f"{recording}, frame {row + 1}: {what} is {labels.targets[row, column]:g}, not within {low} to {high} "
            f"({len(wrong)} such values): mark frames without an annotation by valid=False"
        )


def blank_labels(task: Task, frames: int) -> Labels:
    """Labels (frames, K) that are all invalid."""
    shape = (frames, target_columns(task))
    return Labels(task, NAMES[task], np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool))


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


def official_valid(labels: Labels) -> NDArray[np.bool_]:
    """(T,) True for rows that the official score counts: rows in which every column is annotated.

    A loss uses single columns of a partly annotated row (``labels.valid``); the score does not, as in
    th2l/Affwild2-ABAW3-ActionUnit, tools/data_preparation.py.
    """
    return np.asarray(labels.valid.all(axis=1))


def positive_rates(labels: Iterable[Labels], task: Task) -> NDArray[np.float64]:
    """Share of positives per AU (12,), or of frames per EXPR class (8,), over valid entries; for VA zeros (2,)."""
    size = len(NAMES[task])
    positive, counted = np.zeros(size), np.zeros(size)
    for item in labels:
        if task == "au":
            positive += item.targets.sum(axis=0, where=item.valid, dtype=np.float64)
            counted += item.valid.sum(axis=0)
        elif task == "expr":
            classes = item.targets[item.valid].astype(np.int64)  # (T, 1) -> (N,)
            positive += np.bincount(classes, minlength=size)
            counted += len(classes)
    return np.asarray(positive / np.maximum(counted, 1))
