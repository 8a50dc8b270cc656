"""Sums over frames that add up over recordings, and the score that is computed from them. numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.tasks import Task
from aupipe.train.metrics import agreement, class_confusion, class_f1_from_counts, confusion, f1_from_counts, moments


def statistics(
    targets: NDArray[Any], decided: NDArray[Any], scored: NDArray[np.bool_], task: Task
) -> NDArray[np.float64]:
    """The sums of targets and decisions (T, K) where ``scored`` (T, K) is set.

    Of a multi-label task (K, 2, 2) counts ``[k, target, decision]``, of classes (C, C) counts ``[target, decision]``,
    of numbers (K, 7) `moments`.
    """
    if task.kind == "classes":  # (T, 1) -> (N,)
        return class_confusion(targets[scored], decided[scored], len(task.names)).astype(np.float64)
    if task.kind == "multi_label":
        return confusion(targets > 0.5, decided > 0.5, scored).astype(np.float64)
    if scored.all():
        return moments(targets, decided)
    return np.stack([moments(targets[m, k, None], decided[m, k, None])[0] for k, m in enumerate(scored.T)])


def from_statistics(sums: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """(..., sums of one recording or more) -> (..., K) scores."""
    if task.kind == "multi_label":
        return f1_from_counts(sums[..., 1, 1], sums[..., 0, 1], sums[..., 1, 0])
    if task.kind == "classes":
        return class_f1_from_counts(sums)
    return agreement(sums, task.metric)
