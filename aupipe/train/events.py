"""Scores of events: a run of frames that show an AU is found where a predicted run overlaps it enough. numpy only.

Frame F1 rewards long events; papers on AU events score each run once, as a function of the overlap that is asked for:
Ding et al., "Facial action unit event detection by cascade of tasks", ICCV 2013, section 4. The overlap of two runs is
their intersection over their union. Frames that are not scored end a run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.train.metrics import f1_from_counts

OVERLAPS = (0.25, 0.5, 0.75)


def runs(shown: NDArray[Any], segment: NDArray[Any]) -> NDArray[np.int64]:
    """(N, 2) half-open ranges of frames that show an AU (T,) and belong to the same ``segment`` (T,)."""
    number = np.where(shown, segment + 1, 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], number, [0]])))
    ranges = np.stack([edges[:-1], edges[1:]], axis=1) if len(edges) else np.zeros((0, 2), np.int64)
    return ranges[number[ranges[:, 0]] > 0]


def matched(true: NDArray[np.int64], found: NDArray[np.int64]) -> dict[float, int]:
    """Overlap -> how many true runs (N, 2) a run of ``found`` (M, 2) overlaps so much; the best pairs first."""
    # Both are sorted and disjoint, so the runs that overlap a true one follow each other: N + M pairs at most.
    first = np.searchsorted(found[:, 1], true[:, 0], side="right")
    count = np.searchsorted(found[:, 0], true[:, 1], side="left") - first
    i = np.repeat(np.arange(len(true)), count)
    j = np.arange(len(i)) + np.repeat(first - np.cumsum(count) + count, count)
    shared = np.minimum(true[i, 1], found[j, 1]) - np.maximum(true[i, 0], found[j, 0])
    ratio = shared / (np.ptp(true[i], axis=1) + np.ptp(found[j], axis=1) - shared)
    taken: list[float] = []  # overlaps of the pairs
    used: set[tuple[int, int]] = set()  # (0, true run) and (1, found run)
    for pair in np.argsort(-ratio, kind="stable").tolist():
        ends = {(0, int(i[pair])), (1, int(j[pair]))}
        if ratio[pair] >= min(OVERLAPS) and not used & ends:
            used |= ends
            taken.append(float(ratio[pair]))
    return {overlap: sum(one >= overlap for one in taken) for overlap in OVERLAPS}


class Events:
    """Counts of events per AU, added up over recordings."""

    def __init__(self, aus: int) -> None:
        self.true, self.found = np.zeros(aus), np.zeros(aus)
        self.hits = {overlap: np.zeros(aus) for overlap in OVERLAPS}

    def add(self, targets: NDArray[np.bool_], decided: NDArray[np.bool_], scored: NDArray[np.bool_]) -> None:
        """Add a recording: all (T, K)."""
        for k in range(targets.shape[1]):
            segment = np.cumsum(~scored[:, k])
            true, found = (runs(shown[:, k] & scored[:, k], segment) for shown in (targets, decided))
            self.true[k] += len(true)
            self.found[k] += len(found)
            for overlap, hits in matched(true, found).items():
                self.hits[overlap][k] += hits

    def f1(self) -> dict[str, NDArray[np.float64]]:
        """``event F1 @.50`` and so on: (K,) F1 over events."""
        return {
            f"event F1 @{overlap:.2f}".replace("@0.", "@."): f1_from_counts(hits, self.found - hits, self.true - hits)
            for overlap, hits in self.hits.items()
        }
