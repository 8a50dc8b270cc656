"""Bringing rows of one clock to another: sound and words to the frames of the video, by a declared rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders import AlignRule, Track


def align(track: Track, pts_s: NDArray[np.float64], rule: AlignRule) -> NDArray[np.float32]:
    """(T, ...) rows for frames at ``pts_s``; NaN for frames the track does not cover.

    - ``interpolate``: linear between the two rows around the frame;
    - ``nearest``: the row nearest in time, the earlier one on a tie;
    - ``mean``: the mean of the rows heard while the frame is on screen, from half-way to the frame before to half-way
      to the frame after; the nearest row where none falls in there.

    The track covers a frame within half a step (of the track) before its first and after its last row: nothing is
    extended over a sound that begins late or ends early.
    """
    data = track.data.reshape(len(track.data), -1).astype(np.float64)  # (n, D)
    times = track.times_s
    out = np.full((len(pts_s), data.shape[1]), np.nan)
    if len(times):
        slack_s = (np.median(np.diff(times)) if len(times) > 1 else 0.02) / 2 + 1e-9
        covered = (pts_s >= times[0] - slack_s) & (pts_s <= times[-1] + slack_s)
        wanted = pts_s[covered]
        if rule == "interpolate":
            out[covered] = _interpolate(data, times, wanted)
        elif rule == "nearest":
            out[covered] = data[_nearest(times, wanted)]
        else:
            out[covered] = _mean(data, times, pts_s)[covered]
    return out.reshape(len(pts_s), *track.data.shape[1:]).astype(np.float32)


def _interpolate(data: NDArray, times: NDArray, wanted: NDArray) -> NDArray:
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)  # a track of one row
    gap = np.maximum(times[right] - times[left], 1e-12)
    share = np.clip((wanted - times[left]) / gap, 0, 1)[:, None]  # of the right row
    return data[left] * (1 - share) + data[right] * share


def _nearest(times: NDArray, wanted: NDArray) -> NDArray:
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    return np.where(times[right] - wanted < wanted - times[left], right, left)


def _mean(data: NDArray, times: NDArray, pts_s: NDArray) -> NDArray:
    if len(pts_s) == 1:
        half = np.array([0.02])
        edges = np.concatenate([pts_s - half, pts_s + half])
    else:
        middle = (pts_s[1:] + pts_s[:-1]) / 2
        edges = np.concatenate([[2 * pts_s[0] - middle[0]], middle, [2 * pts_s[-1] - middle[-1]]])
    bounds = np.searchsorted(times, edges)
    totals = np.concatenate([np.zeros((1, data.shape[1])), np.cumsum(data, axis=0)])
    count = bounds[1:] - bounds[:-1]
    mean = (totals[bounds[1:]] - totals[bounds[:-1]]) / np.maximum(count, 1)[:, None]
    return np.where((count > 0)[:, None], mean, data[_nearest(times, pts_s)])
