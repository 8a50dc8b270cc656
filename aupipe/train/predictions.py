"""Predictions of one recording, and the decisions that follow from its scores. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.types import Task

Threshold = float | tuple[float, ...]  # one for all AUs, or one per AU


@dataclass(frozen=True)
class Predictions:
    """Scores of one recording; row k belongs to decoded frame k.

    ``scores`` float32 (T, K): AU probabilities (K = 12), expression class probabilities (K = 8), or valence and arousal
    in [-1, 1] (K = 2). ``face_found`` bool (T,): other frames were predicted from their neighbours. ``pts_s`` float64
    (T,): presentation times, NaN where the store holds no clock.
    """

    recording: str
    task: Task
    names: tuple[str, ...]
    scores: NDArray[np.float32]
    face_found: NDArray[np.bool_]
    pts_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


def decide(scores: NDArray[np.float32], task: Task, threshold: Threshold = 0.5) -> NDArray[np.float32]:
    """What is submitted: AU (T, 12), 1 where score >= threshold, else 0; EXPR the class number (T, 1); VA (T, 2) within
    [-1, 1].

    Of equal class probabilities the lower class number is taken.
    """
    if task == "au":
        return (scores >= np.asarray(threshold, dtype=np.float64)).astype(np.float32)
    if task == "expr":
        return scores.argmax(axis=1).astype(np.float32)[:, None]  # (T, 8) -> (T, 1)
    return np.clip(scores, -1.0, 1.0)
