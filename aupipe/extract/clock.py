"""Bringing rows of one clock to another: sound and words to the frames of the video, by a declared rule."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders import AlignRule, AudioInput, Encode, OnFrames, Track
from aupipe.types import Waveform

BLOCK = 2048  # frames brought over at a time: a two-hour track is never copied whole


def to_frames(track: Track, pts_s: NDArray[np.float64], encoder: OnFrames) -> NDArray[np.float32]:
    """(T, ...) rows for frames at ``pts_s``, by the rule the encoder declares; NaN for frames it says nothing of."""
    return align(track, pts_s, encoder.align, half_width_s=encoder.align_s, count=encoder.align_rows)


def masked_frames(
    encode: Encode, reads: AudioInput, pts_s: NDArray[np.float64], encoder: OnFrames
) -> NDArray[np.float32]:
    """(T, ...) NaN rows of the shape an audio encoder gives: what a video without sound has, where that is allowed."""
    heard = encode(Waveform(np.zeros(reads.sample_rate, np.float32), reads.sample_rate))
    return to_frames(Track(heard.data[:0], heard.times_s[:0]), pts_s, encoder)


def align(
    track: Track,
    pts_s: NDArray[np.float64],
    rule: AlignRule,
    *,
    half_width_s: float = 0.0,
    count: int = 0,
) -> NDArray[np.float32]:
    """(T, ...) rows for frames at ``pts_s``; NaN for frames the track does not cover.

    - ``interpolate``: linear between the two rows around the frame;
    - ``nearest``: the row nearest in time, the earlier one on a tie;
    - ``mean``: the mean of the rows heard while the frame is on screen, from half-way to the frame before to half-way
      to the frame after; the nearest row where none falls in there. With ``half_width_s`` the mean of the rows whose
      times lie within so many seconds of the frame, and NaN where none does;
    - ``window``: (T, count, ...), the ``count`` consecutive rows around the frame: row j of a window is the one nearest
      to ``(j - (count - 1) / 2)`` steps of the track from the frame. A window that reaches beyond the track is NaN
      whole, because a stored row is either valid or not; `windows` keeps the part there is.

    The track covers a frame that one of its rows hears: within half a ``span_s`` (at least half a step) before its
    first and after its last row. Nothing is extended over a sound that begins late or ends early.
    """
    if rule == "window":
        rows = windows(track, pts_s, count)  # (T, count, ...)
        rows[np.isnan(rows).any(axis=tuple(range(1, rows.ndim)))] = np.nan
        return rows
    data = track.data.reshape(len(track.data), math.prod(track.data.shape[1:]))  # (n, D)
    times = track.times_s
    out = np.full((len(pts_s), data.shape[1]), np.nan, dtype=np.float32)
    if not len(times):
        return out.reshape(len(pts_s), *track.data.shape[1:])
    if rule == "mean" and half_width_s > 0:
        bounds = np.stack([pts_s - half_width_s, pts_s + half_width_s])  # (2, T)
        first, last = np.searchsorted(times, bounds[0], "left"), np.searchsorted(times, bounds[1], "right")
        covered = last > first
    else:
        covered = covers(track, pts_s)
        first, last = _on_screen(times, pts_s)
    for start in range(0, len(pts_s), BLOCK):
        block = np.flatnonzero(covered[start : start + BLOCK]) + start
        wanted = pts_s[block]
        if rule == "interpolate":
            out[block] = _interpolate(data, times, wanted)
        elif rule == "nearest":
            out[block] = data[nearest_row(times, wanted)]
        else:
            out[block] = _means(data, first[block], last[block], nearest_row(times, wanted))
    return out.reshape(len(pts_s), *track.data.shape[1:])


def windows(track: Track, pts_s: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """(T, count, ...) rows around each frame, as `align` describes, NaN in every slot beyond the track."""
    if count < 1:
        raise ValueError(f"{count = }: a window has at least one row")
    out = np.full((len(pts_s), count, *track.data.shape[1:]), np.nan, dtype=np.float32)
    if len(track.times_s):
        slots_s = (np.arange(count) - (count - 1) / 2) * step_s(track)  # (count,)
        for start in range(0, len(pts_s), BLOCK):
            wanted = pts_s[start : start + BLOCK, None] + slots_s  # (b, count)
            found = covers(track, wanted)
            out[start : start + BLOCK][found] = track.data[nearest_row(track.times_s, wanted[found])]
    return out


def step_s(track: Track) -> float:
    """The usual distance between rows; what a single row hears where there is only one."""
    return float(np.median(np.diff(track.times_s))) if len(track.times_s) > 1 else track.span_s or 0.02


def covers(track: Track, pts_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True for the times that lie within what the track's rows heard."""
    slack_s = max(step_s(track), track.span_s) / 2 + 1e-9
    return (pts_s >= track.times_s[0] - slack_s) & (pts_s <= track.times_s[-1] + slack_s)


def nearest_row(times: NDArray, wanted: NDArray) -> NDArray[np.int64]:
    """The row nearest in time to each wanted time, the earlier one on a tie."""
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)  # a track of one row
    return np.where(times[right] - wanted < wanted - times[left], right, left)


def _interpolate(data: NDArray, times: NDArray, wanted: NDArray) -> NDArray:
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)  # a track of one row
    gap = np.maximum(times[right] - times[left], 1e-12)
    share = np.clip((wanted - times[left]) / gap, 0, 1)[:, None]  # of the right row
    return data[left] * (1 - share) + data[right] * share


def _on_screen(times: NDArray, pts_s: NDArray) -> tuple[NDArray, NDArray]:
    """The rows [first, last) heard while each frame is on screen."""
    if len(pts_s) == 1:
        edges = pts_s + np.array([-0.02, 0.02])
    else:
        middle = (pts_s[1:] + pts_s[:-1]) / 2
        edges = np.concatenate([[2 * pts_s[0] - middle[0]], middle, [2 * pts_s[-1] - middle[-1]]])
    bounds = np.searchsorted(times, edges)
    return bounds[:-1], bounds[1:]


def _means(data: NDArray, first: NDArray, last: NDArray, otherwise: NDArray) -> NDArray:
    """(b, D) means of rows [first, last); the row ``otherwise`` where that is empty."""
    if not len(first):
        return np.empty((0, data.shape[1]))
    low, high = int(first.min()), int(max(last.max(), first.min()))
    sums = np.zeros((high - low + 1, data.shape[1]))
    np.cumsum(data[low:high], axis=0, dtype=np.float64, out=sums[1:])
    heard = last - first
    mean = (sums[np.maximum(last, first) - low] - sums[first - low]) / np.maximum(heard, 1)[:, None]
    return np.where((heard > 0)[:, None], mean, data[otherwise])
