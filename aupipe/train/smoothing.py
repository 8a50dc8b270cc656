"""Scores over time: smoothing within a shot and a stretch of seen face, and frames without a face filled. numpy
only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.train.predictions import Predictions


def segments(
    item: Predictions, shot_starts: Sequence[int] = (), max_gap: int = 0, jump: float = 1.5
) -> NDArray[np.int64]:
    """(T,) the number of the stretch each frame is in; nothing is smoothed from one stretch into another.

    A new one begins at each frame of ``shot_starts``, where the clock jumps by more than ``jump`` median frames, and
    where the face is lost or found again, unless it was away for at most ``max_gap`` frames.
    """
    begins = np.zeros(len(item), dtype=bool)
    begins[[cut for cut in shot_starts if 0 <= cut < len(item)]] = True
    seen = item.face_found.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):  # runs without a face
        if stop - start <= max_gap:
            seen[start:stop] = True
    begins[1:] |= seen[1:] != seen[:-1]
    steps = np.diff(item.pts_s)
    if len(steps) and np.isfinite(steps).all():
        begins[1:] |= steps > jump * np.median(steps)
    return np.cumsum(begins)


def gaussian(sigma: float) -> NDArray[np.float64]:
    """Taps of a Gaussian out to 4 sigma; one tap for sigma 0."""
    reach = int(np.ceil(4 * sigma))
    at = np.arange(-reach, reach + 1)
    return np.asarray(np.exp(-0.5 * (at / sigma) ** 2) if sigma > 0 else np.ones(1))


def box(width: int, side: str = "") -> NDArray[np.float64]:
    """Taps of a moving average over ``width`` frames, an odd number of taps around the frame itself.

    An even width would shift by half a frame: it must say to which ``side`` the longer arm goes, 'left' (the past) or
    'right'. Raises UsageError where it does not, and for a width below 1.
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
    """Weighted mean of ``scores`` (T, K) over neighbours of the same segment, the weights renormalised at its borders.

    f(t) = sum_k f(t+k) g(k) / sum_k g(k) over the k that stay within the segment; segment numbers must not recur.
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
    """Scores (T, K) with frames that lack a face on the line between the nearest seen frames of their shot.

    By the clock where there is one, else by frame number; before the first and behind the last seen frame, that
    frame's. The nearer neighbour weighs more (trap 11: published code had the two weights swapped). A shot without any
    face keeps what the head said.
    """
    scores = item.scores.astype(np.float32).copy()
    time = item.pts_s if np.isfinite(item.pts_s).all() else np.arange(len(item), dtype=np.float64)
    bounds = [0, *sorted({cut for cut in shot_starts if 0 < cut < len(item)}), len(item)]
    for start, stop in pairwise(bounds):
        seen = np.flatnonzero(item.face_found[start:stop]) + start
        unseen = np.flatnonzero(~item.face_found[start:stop]) + start
        if not len(seen) or not len(unseen):
            continue
        for k in range(scores.shape[1]):
            scores[unseen, k] = np.interp(time[unseen], time[seen], item.scores[seen, k])
    return scores
