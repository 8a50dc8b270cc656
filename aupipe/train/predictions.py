"""Predictions of one recording, and the decisions that follow from its scores. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.tasks import Task, as_task
from aupipe.train.labels import scored_entries
from aupipe.types import Labels

Threshold = float | tuple[float, ...]  # one for all AUs, or one per AU


@dataclass(frozen=True)
class Predictions:
    """Scores of one recording; row k belongs to decoded frame k.

    ``scores`` float32 (T, K), a column for each of the ``names``: probabilities, of classes adding up to 1, or numbers
    within the range of the task. ``face_found`` bool (T,): other frames were predicted from their neighbours. ``pts_s``
    float64 (T,): presentation times, NaN where the store holds no clock. ``threshold``: of AUs, what a score must reach
    to be positive; a post-processing sets it.
    """

    recording: str
    task: Task
    names: tuple[str, ...]
    scores: NDArray[np.float32]
    face_found: NDArray[np.bool_]
    pts_s: NDArray[np.float64]
    threshold: Threshold = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", as_task(self.task))

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def decisions(self) -> NDArray[np.float32]:
        """What is submitted (`decide`), at the threshold of these predictions."""
        return decide(self.scores, self.task, self.threshold)


def aligned(labels: Labels, item: Predictions) -> tuple[NDArray[np.floating], NDArray[np.float32], NDArray[np.bool_]]:
    """Targets, decisions and what is scored of one recording, of the rows that both have."""
    shared = min(len(labels), len(item))
    return labels.targets[:shared], item.decisions[:shared], scored_entries(labels)[:shared]


def decide(scores: NDArray[np.float32], task: Task | str, threshold: Threshold = 0.5) -> NDArray[np.float32]:
    """What is submitted: (T, K) 1 where score >= threshold, else 0; the number of a class (T, 1); numbers within the
    range of the task (T, K).

    Of equal class probabilities the lower class number is taken.
    """
    task = as_task(task)
    if task.kind == "multi_label":
        return (scores >= np.asarray(threshold, dtype=np.float64)).astype(np.float32)
    if task.kind == "classes":
        return scores.argmax(axis=1).astype(np.float32)[:, None]  # (T, K) -> (T, 1)
    return np.clip(scores, task.low, task.high)
