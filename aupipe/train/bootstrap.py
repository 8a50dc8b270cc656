"""How sure a score is: whole videos drawn again and again. numpy only."""

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
class Spread:
    """How far a score moves when other videos had been drawn: its standard error and 95% interval."""

    error: float
    interval: tuple[float, float]
    groups: int
    each: tuple[tuple[float, float], ...] = ()  # the interval per AU, class or dimension
    means: tuple[float, ...] = ()  # of every draw, for paired comparisons

    def to_json(self) -> dict[str, Any]:
        """Without the draws."""
        return {"error": self.error, "interval": self.interval, "each": self.each, "groups": self.groups}


def bootstrap(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task,
    threshold: Threshold = 0.5,
    groups: Mapping[str, str] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Spread:
    """Resample whole videos with replacement: frames of one video are no independent draws.

    ``groups`` names what is drawn together (siblings of one video); none: each recording by itself. The same seed and
    recordings draw the same videos, so two models' ``means`` may be subtracted.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    for name in sorted(labels):
        if name not in predictions:
            continue
        shared = min(len(labels[name]), len(predictions[name]))
        keep = official_valid(labels[name])[:shared]
        decided = decide(predictions[name].scores[:shared][keep], task, threshold)
        counted = _statistics(labels[name].targets[:shared][keep], decided, task)
        group = (groups or {}).get(name, name)
        sums[group] = sums.get(group, 0.0) + counted
    if len(sums) < 2:
        raise UsageError(f"bootstrap: {len(sums)} videos; two at least are needed to say how they differ")
    table = np.stack(list(sums.values()))  # (G, ...)
    drawn = np.random.default_rng(seed).multinomial(len(table), np.full(len(table), 1 / len(table)), size=draws)
    each = _from_statistics(np.tensordot(drawn, table, axes=1), task)  # (draws, G) x (G, ...) -> (draws, K)
    means = each.mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    bounds = tuple((float(a), float(b)) for a, b in np.quantile(each, (0.025, 0.975), axis=0).T)
    return Spread(float(means.std(ddof=1)), (float(low), float(high)), len(table), bounds, tuple(map(float, means)))


def compare(one: Spread, other: Spread) -> tuple[float, float]:
    """95% interval of ``one`` minus ``other`` over the same drawn videos; 0 outside: a difference, not chance."""
    if len(one.means) != len(other.means) or one.groups != other.groups:
        raise UsageError("scores over different videos cannot be compared draw by draw")
    low, high = np.quantile(np.subtract(one.means, other.means), (0.025, 0.975))
    return float(low), float(high)


def _statistics(targets: NDArray[Any], decided: NDArray[Any], task: Task) -> NDArray[np.float64]:
    """Sums over frames from which the score follows, and which add up over videos."""
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
    spread = (xx - x * x) + (yy - y * y) + (x - y) ** 2
    return np.asarray(2 * (xy - x * y) / np.where(spread > 0, spread, 1.0))
