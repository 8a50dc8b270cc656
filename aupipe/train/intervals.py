"""Bootstrap intervals of a score, resampling whole videos.

The 95% intervals are bias-corrected and accelerated (BCa): Efron, "Better bootstrap confidence intervals", JASA 1987.
With few groups they are still too narrow (docs/training.md, "Intervals").
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.tasks import Task, as_task
from aupipe.train.labels import check_labels
from aupipe.train.predictions import Predictions, aligned
from aupipe.train.statistics import from_statistics, statistics
from aupipe.types import Labels

BATCH = 1000  # draws that are made at once
FEW_GROUPS = 20  # with fewer the interval covers clearly less than it says


@dataclass(frozen=True)
class GroupSums:
    """``table`` (G, ...): for each group of videos, the sums over its frames that a score can be computed from."""

    task: Task
    groups: tuple[str, ...]
    table: NDArray[np.float64]

    def scores(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """(..., N) numbers of groups -> (..., K + 1) the scores over these groups together, and last their mean."""
        groups, rows = len(self.groups), index.reshape(-1, index.shape[-1])
        cell = rows + groups * np.arange(len(rows))[:, None]
        counts = np.bincount(cell.ravel(), minlength=groups * len(rows)).reshape(len(rows), groups)
        sums = (counts @ self.table.reshape(groups, -1)).reshape(*index.shape[:-1], *self.table.shape[1:])
        each = from_statistics(sums, self.task)
        return np.concatenate([each, each.mean(axis=-1, keepdims=True)], axis=-1)


@dataclass(frozen=True)
class BootstrapInterval:
    """Standard error and 95% interval of a score over resampled videos; ``groups``: how many were drawn from."""

    standard_error: float
    bounds: tuple[float, float]
    groups: int
    each: tuple[tuple[float, float], ...]  # the bounds per AU, class or dimension
    sums: GroupSums  # for paired comparisons
    draws: int
    seed: int

    @property
    def caveat(self) -> str:
        """Why the interval is too narrow; empty for enough groups."""
        if self.groups >= FEW_GROUPS:
            return ""
        return f"the 95% interval is from {self.groups} groups only, so it is too narrow"

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the draws."""
        plain = {"error": self.standard_error, "interval": self.bounds, "each": self.each, "groups": self.groups}
        return {**plain, "caveat": self.caveat}


def bootstrap(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task | str,
    groups: Mapping[str, str] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> BootstrapInterval:
    """Resample whole videos with replacement, because frames of one video are not independent.

    ``groups``: recording id -> group; recordings of one group are drawn together. None: each recording is a group.
    Raises UsageError for fewer than two groups.
    """
    sums = group_sums(predictions, labels, task, groups)
    if len(sums.groups) < 2:
        raise UsageError(f"bootstrap: {counted(len(sums.groups), 'video')}; an interval needs at least two")
    low, high, error = _resample(sums.scores, len(sums.groups), draws, seed)
    bounds = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return BootstrapInterval(float(error[-1]), bounds[-1], len(sums.groups), tuple(bounds[:-1]), sums, draws, seed)


def compare(one: BootstrapInterval, other: BootstrapInterval) -> tuple[float, float]:
    """95% interval of ``one`` minus ``other`` on the same drawn videos; where it excludes 0 the scores differ.

    Raises UsageError where the two were not computed over the same videos.
    """
    if one.sums.groups != other.sums.groups:
        shared = len(set(one.sums.groups) & set(other.sums.groups))
        raise UsageError(
            f"the two scores were not computed over the same videos ({one.groups} and {other.groups}, {shared} of them "
            "in both), so they cannot be compared"
        )

    def difference(index: NDArray[np.intp]) -> NDArray[np.float64]:
        return one.sums.scores(index)[..., -1:] - other.sums.scores(index)[..., -1:]

    low, high, _ = _resample(difference, one.groups, one.draws, one.seed)
    return float(low[0]), float(high[0])


def _resample(
    score: Callable[[NDArray[np.intp]], NDArray[np.float64]], groups: int, draws: int, seed: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Lower bounds, upper bounds and standard errors (S,) of ``score``: (..., N) numbers of groups -> (..., S)."""
    from scipy import stats

    width = score(np.arange(groups)).shape[-1]

    def statistic(index: NDArray[Any], axis: int) -> NDArray[np.float64]:
        return np.moveaxis(score(index[0]), -1, 0)  # all S scores of one draw: the rows of index are the same

    index = np.broadcast_to(np.arange(groups), (width, groups))
    options: dict[str, Any] = {"vectorized": True, "axis": -1, "n_resamples": draws, "batch": BATCH}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that no draw changes, which get the percentile interval
        found = stats.bootstrap((index,), statistic, method="BCa", rng=np.random.default_rng(seed), **options)
        low, high = found.confidence_interval
    plain = np.quantile(found.bootstrap_distribution, (0.025, 0.975), axis=-1)
    undefined = ~(np.isfinite(low) & np.isfinite(high))
    return np.where(undefined, plain[0], low), np.where(undefined, plain[1], high), found.standard_error


def group_sums(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task | str,
    groups: Mapping[str, str] | None = None,
) -> GroupSums:
    """What `bootstrap` resamples. Raises UsageError for labels out of range."""
    task = as_task(task)
    sums: dict[str, NDArray[np.float64]] = {}
    for name in sorted(labels):
        if name not in predictions:
            continue
        check_labels(labels[name], task, name)
        targets, decided, scored = aligned(labels[name], predictions[name])
        group = (groups or {}).get(name, name)
        sums[group] = sums.get(group, 0.0) + statistics(targets, decided, scored, task)
    return GroupSums(task, tuple(sums), np.stack(list(sums.values())) if sums else np.zeros((0, 0)))
