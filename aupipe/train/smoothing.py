"""Scores over time: smoothing within segments of continuous video, and interpolation of frames without a face. numpy
only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.train.predictions import Predictions

JUMP = 1.5  # times the median frame interval


def segments(item: Predictions, shot_starts: Sequence[int] = (), max_gap: int = 0) -> NDArray[np.int64]:
    """(T,) the number of the segment that each frame is in; nothing is smoothed across segments.

    A segment begins at each frame of ``shot_starts``, where the time to the next frame exceeds `JUMP` times the
    median, and where the face is lost or found again, unless it was lost for at most ``max_gap`` frames.
    """
    begins = np.zeros(len(item), dtype=bool)
    begins[[start for start in shot_starts if 0 <= start < len(item)]] = True
    found = item.face_found.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[True], found, [True]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):  # [start, stop) without a face
        if stop - start <= max_gap:
            found[start:stop] = True
    begins[1:] |= found[1:] != found[:-1]
    steps = np.diff(item.pts_s)
    if len(steps) and np.isfinite(steps).all():
        begins[1:] |= steps > JUMP * np.median(steps)
    return np.cumsum(begins)


def gaussian(sigma: float) -> NDArray[np.float64]:
    """Filter taps of a Gaussian of ``sigma`` frames, cut off at 4 sigma; one tap for sigma 0."""
    reach = int(np.ceil(4 * sigma))
    at = np.arange(-reach, reach + 1)
    return np.asarray(np.exp(-0.5 * (at / sigma) ** 2) if sigma > 0 else np.ones(1))


def box(width: int, side: str = "") -> NDArray[np.float64]:
    """Filter taps of a moving average over ``width`` frames, an odd number of taps centred on the frame.

    A window of even width is not centred: ``side`` says which side has one frame more, 'left' (the past) or 'right'.
    Raises UsageError for an even width without a side, and for a width below 1.
    """
    if width < 1 or (width % 2 == 0 and side not in ("left", "right")):
        raise UsageError(
            f"a moving average over {width} frames: give an odd width, or for an even one side = 'left' or 'right'"
        )
    half = width // 2
    taps = np.ones(2 * half + 1)
    if width % 2 == 0:
        taps[-1 if side == "left" else 0] = 0.0
    return taps


def smooth(scores: NDArray[Any], segment: NDArray[np.int64], taps: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weighted mean of ``scores`` (T, K) over neighbours of the same segment, renormalised at its borders.

    f(t) = sum_k f(t+k) g(k) / sum_k g(k) over all k within the segment. ``segment`` (T,) as `segments` returns it.
    """
    reach, size = len(taps) // 2, len(scores)
    total, weight = np.zeros(scores.shape), np.zeros((size, 1))
    for offset, tap in zip(range(-reach, reach + 1), taps, strict=True):
        if not tap or abs(offset) >= size:
            continue
        here = slice(max(0, -offset), size - max(0, offset))
        there = slice(max(0, offset), size - max(0, -offset))
        same = tap * (segment[here] == segment[there])[:, None]  # (n, 1)
        total[here] += same * scores[there]
        weight[here] += same
    return np.asarray(total / weight, dtype=np.float32)


def interpolate(item: Predictions, shot_starts: Sequence[int] = ()) -> NDArray[np.float32]:
    """Scores (T, K) in which frames without a face are interpolated linearly between the nearest frames with one.

    Over presentation times where they are known, else over frame numbers; within a shot; constant before its first and
    after its last frame with a face. The nearer neighbour has the larger weight (published code has swapped the two). A
    shot without any face keeps the scores of the head.
    """
    scores = item.scores.astype(np.float32).copy()
    time = item.pts_s if np.isfinite(item.pts_s).all() else np.arange(len(item), dtype=np.float64)
    bounds = [0, *sorted({start for start in shot_starts if 0 < start < len(item)}), len(item)]
    for start, stop in pairwise(bounds):
        found = np.flatnonzero(item.face_found[start:stop]) + start
        missing = np.flatnonzero(~item.face_found[start:stop]) + start
        if not len(found) or not len(missing):
            continue
        for k in range(scores.shape[1]):
            scores[missing, k] = np.interp(time[missing], time[found], item.scores[found, k])
    return scores
