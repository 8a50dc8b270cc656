"""Predictions as intervals of time in which a label is shown, by the model's own decisions. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.train.events import runs
from aupipe.train.predictions import Predictions

ONLY_ROW_S = 0.04  # how long the picture of a recording of one row is shown


@dataclass(frozen=True)
class Occurrence:
    """Rows [first, stop) of a recording show a label, from ``start_s`` until ``end_s``, when the next row begins.

    ``probability``: the mean score of the label over these rows, of those that have one (a closed gap may have none).
    ``face_found``: the share of them with a face.
    """

    label: str
    first: int
    stop: int
    start_s: float
    end_s: float
    probability: float
    face_found: float


@dataclass(frozen=True)
class Occurrences:
    """``found`` in a recording, by their start. ``joined`` and ``left_out``: how many gaps were closed, and how many
    occurrences were too short. ``end_s``: of the recording."""

    names: tuple[str, ...]
    exclusive: bool  # are the labels classes, of which each row shows one?
    found: tuple[Occurrence, ...]
    joined: int
    left_out: int
    end_s: float


def find_occurrences(item: Predictions, min_duration_s: float = 0.0, max_gap_s: float = 0.0) -> Occurrences:
    """The intervals in which each label is shown, at the times of the rows.

    First intervals of one label with a gap of at most ``max_gap_s`` are joined, then those shorter than
    ``min_duration_s`` are left out. Raises UsageError for numbers, which have no intervals, for gaps between classes,
    which exclude each other, and where the store has no clock of the recording.
    """
    task = item.task
    if not task.whole:
        raise UsageError(f"{', '.join(task.names)} are numbers, which have no intervals: use --format csv")
    if task.kind == "classes" and max_gap_s:
        raise UsageError(f"classes of {task.name} exclude each other, so a gap is another class: leave out --max-gap")
    if not np.isfinite(item.pts_s).all():
        raise UsageError(f"{item.recording}: the store has no clock of it: aupipe extract")
    decided = item.decisions
    shown = decided == np.arange(len(task.names)) if task.kind == "classes" else decided > 0.5  # (T, K)
    return occurrences_of(
        shown, item.scores, task.names, item.pts_s, item.face_found, task.kind == "classes", min_duration_s, max_gap_s
    )


def occurrences_of(
    shown: NDArray[np.bool_],
    scores: NDArray[np.floating],
    names: Sequence[str],
    times_s: NDArray[np.float64],
    face_found: NDArray[np.bool_],
    exclusive: bool = False,
    min_duration_s: float = 0.0,
    max_gap_s: float = 0.0,
) -> Occurrences:
    """The intervals of rows (T, K) that are ``shown``, at ``times_s`` (T,); see `find_occurrences`.

    ``scores`` (T, K): of which the mean is taken. ``exclusive``: the names are classes, of which a row shows one.
    """
    edges = _edges(times_s)
    found: list[Occurrence] = []
    joined = left_out = 0
    for k, name in enumerate(names):
        ranges = runs(shown[:, k], np.zeros(len(shown), np.int64))
        whole = _join(ranges, edges, max_gap_s)
        joined += len(ranges) - len(whole)
        for first, stop in whole:
            if edges[stop] - edges[first] < min_duration_s:
                left_out += 1
                continue
            rows = slice(first, stop)
            share, face = float(np.nanmean(scores[rows, k])), float(face_found[rows].mean())
            found.append(Occurrence(name, first, stop, float(edges[first]), float(edges[stop]), share, face))
    order = {name: k for k, name in enumerate(names)}
    found.sort(key=lambda one: (one.first, order[one.label]))
    return Occurrences(tuple(names), exclusive, tuple(found), joined, left_out, float(edges[-1]))


def _edges(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T + 1,) when each row begins, and the last one ends: after the usual step."""
    if not len(times):
        return np.zeros(1)
    step = float(np.median(np.diff(times))) if len(times) > 1 else ONLY_ROW_S
    return np.append(times, times[-1] + step)


def _join(ranges: NDArray[np.int64], edges: NDArray[np.float64], max_gap_s: float) -> Sequence[tuple[int, int]]:
    """Half-open ranges of rows; those with a gap of at most ``max_gap_s`` are one."""
    joined: list[tuple[int, int]] = []
    for first, stop in ranges.tolist():
        if joined and max_gap_s and edges[first] - edges[joined[-1][1]] <= max_gap_s + 1e-9:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((first, stop))
    return joined
