"""Bootstrap intervals of a score, resampling whole videos. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.train import metrics
from aupipe.train.labels import NAMES, official_valid
from aupipe.train.predictions import Predictions, Threshold, decide
from aupipe.types import Labels, Task


@dataclass(frozen=True)
class BootstrapInterval:
    """Standard error and 95% interval of a score over resampled videos; ``groups``: how many were drawn from."""

    standard_error: float
    bounds: tuple[float, float]
    groups: int
    each: tuple[tuple[float, float], ...] = ()  # the bounds per AU, class or dimension
    means: tuple[float, ...] = ()  # the score of each draw, for paired comparisons

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the draws."""
        return {"error": self.standard_error, "interval": self.bounds, "each": self.each, "groups": self.groups}


def bootstrap(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task,
    threshold: Threshold = 0.5,
    groups: Mapping[str, str] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> BootstrapInterval:
    """Resample whole videos with replacement, because frames of one video are not independent.

    ``groups``: recording id -> group; recordings of one group are drawn together. None: each recording is a group. The
    same seed and recordings give the same draws, so the ``means`` of two models may be subtracted. Raises UsageError
    for fewer than two groups.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    for name in sorted(labels):
        if name not in predictions:
            continue
        shared = min(len(labels[name]), len(predictions[name]))
        keep = official_valid(labels[name])[:shared]
        decided = decide(predictions[name].scores[:shared][keep], task, threshold)
        statistics = _statistics(labels[name].targets[:shared][keep], decided, task)
        group = (groups or {}).get(name, name)
        sums[group] = sums.get(group, 0.0) + statistics
    if len(sums) < 2:
        raise UsageError(f"bootstrap: {len(sums)} videos; an interval needs at least two")
    table = np.stack(list(sums.values()))  # (G, ...)
    drawn = np.random.default_rng(seed).multinomial(len(table), np.full(len(table), 1 / len(table)), size=draws)
    each = _from_statistics(np.tensordot(drawn, table, axes=1), task)  # (draws, G) x (G, ...) -> (draws, K)
    means = each.mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    bounds = tuple((float(a), float(b)) for a, b in np.quantile(each, (0.025, 0.975), axis=0).T)
    return BootstrapInterval(
        float(means.std(ddof=1)), (float(low), float(high)), len(table), bounds, tuple(map(float, means))
    )


def compare(one: BootstrapInterval, other: BootstrapInterval) -> tuple[float, float]:
    """95% interval of ``one`` minus ``other`` over the same draws; where it excludes 0 the scores differ.

    Raises UsageError where the two were not computed over the same draws.
    """
    if len(one.means) != len(other.means) or one.groups != other.groups:
        raise UsageError("the two scores were not computed over the same videos and draws, so they cannot be compared")
    low, high = np.quantile(np.subtract(one.means, other.means), (0.025, 0.975))
    return float(low), float(high)


def _statistics(targets: NDArray[Any], decided: NDArray[Any], task: Task) -> NDArray[np.float64]:
    """Sums over frames (..., K) that add up over videos, and that the score can be computed from."""
    if task == "au":
        return metrics.confusion(targets > 0.5, decided > 0.5).astype(np.float64)  # (K, 2, 2)
    if task == "expr":
        classes = len(NAMES[task])
        cell = targets[:, 0].astype(np.int64) * classes + decided[:, 0].astype(np.int64)
        return np.bincount(cell, minlength=classes**2).reshape(classes, classes).astype(np.float64)
    x, y = targets.astype(np.float64), decided.astype(np.float64)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y]).sum(axis=1)  # (6, K)


def _from_statistics(sums: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """(draws, ...) sums -> (draws, K) scores."""
    if task == "au":
        return np.asarray(metrics.f1_from_counts(sums[..., 1, 1], sums[..., 0, 1], sums[..., 1, 0]))
    if task == "expr":
        hit = np.diagonal(sums, axis1=-2, axis2=-1)
        return np.asarray(metrics.f1_from_counts(hit, sums.sum(-2) - hit, sums.sum(-1) - hit))
    _n, x, y, xx, yy, xy = np.moveaxis(sums / np.maximum(sums[:, :1], 1), 1, 0)
    denominator = (xx - x * x) + (yy - y * y) + (x - y) ** 2
    return np.asarray(2 * (xy - x * y) / np.where(denominator > 0, denominator, 1.0))
