"""Rows of one clock at the times of another: sound and words resampled to the frames, by a declared rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders.base import AlignRule, Encode, FrameAlignment, TimeSeries, WordsInput, row_shape_of
from aupipe.extract.media.long_arrays import release_pages
from aupipe.extract.media.transcript import Transcript, Word
from aupipe.types import Waveform

BLOCK = 2048  # frames resampled at a time: a two-hour series is never copied whole
BLOCK_BYTES = 16 << 20  # of windows, or of running sums, held at a time


def resample_to_frames(
    series: TimeSeries, pts_s: NDArray[np.float64], alignment: FrameAlignment
) -> NDArray[np.float32]:
    """(T, ...) rows for frames at ``pts_s``; NaN for frames the series does not cover.

    The rules (``alignment.align``):

    - ``interpolate``: linear between the two rows around the frame;
    - ``nearest``: the row nearest in time, the earlier one on a tie;
    - ``mean``: the mean of the rows while the frame is on screen, from half-way to the frame before to half-way to the
      frame after; the nearest row where none falls in there. With ``align_s`` the mean of the rows whose times lie
      within so many seconds of the frame, and NaN where none does;
    - ``window``: (T, N, ...), the N = ``align_rows`` consecutive rows around the frame: row j of a window is the one
      nearest to ``(j - (N - 1) / 2)`` steps of the series from the frame. A window that reaches beyond the series is
      NaN whole, because a stored row is either valid or not; `window_blocks` keeps the part there is.

    The series covers a frame within half a ``span_s`` (at least half a step) before its first and after its last row.
    Nothing is extended over sound that begins late or ends early.
    """
    return np.concatenate(list(resampled_blocks(series, pts_s, alignment)))


def resampled_blocks(
    series: TimeSeries, pts_s: NDArray[np.float64], alignment: FrameAlignment
) -> Iterator[NDArray[np.float32]]:
    """The rows of `resample_to_frames` in blocks (b, ...) of successive frames, at least one: those of hours are never
    held at once."""
    if alignment.align == "window":
        for rows in window_blocks(series, pts_s, alignment.align_rows):  # (b, N, ...)
            rows[np.isnan(rows).any(axis=tuple(range(1, rows.ndim)))] = np.nan
            yield rows
        return
    data = series.data.reshape(len(series.data), math.prod(series.data.shape[1:]))  # (n, D)
    times = series.times_s
    if len(times):
        covered, first, last = _wanted(series, pts_s, alignment.align, alignment.align_s)
    for start in range(0, max(1, len(pts_s)), BLOCK):
        out = np.full((len(pts_s[start : start + BLOCK]), data.shape[1]), np.nan, dtype=np.float32)
        if len(times):
            block = np.flatnonzero(covered[start : start + BLOCK]) + start
            wanted = pts_s[block]
            if alignment.align == "interpolate":
                found = _interpolate(data, times, wanted)
            elif alignment.align == "nearest":
                found = data[nearest_row(times, wanted)]
            else:
                found = _means(data, first[block], last[block], nearest_row(times, wanted))
            out[block - start] = found
            release_pages(data)
        yield out.reshape(len(out), *series.data.shape[1:])


def masked_blocks(encoder: Any, encode: Encode, pts_s: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
    """Blocks of NaN rows of the shape an audio or text encoder gives: a video's that has not what it reads."""
    shape = row_shape_of(encoder, encode)
    if shape is None and isinstance(encoder.reads, WordsInput):
        shape = encode(Transcript((Word("a", 0.0, 0.5),))).data.shape[1:]
    elif shape is None:
        rate = encoder.reads.sample_rate
        shape = encode(Waveform(np.zeros(rate, np.float32), rate)).data.shape[1:]
    return resampled_blocks(TimeSeries(np.zeros((0, *shape), np.float32), np.zeros(0)), pts_s, encoder)


def _wanted(
    series: TimeSeries, pts_s: NDArray[np.float64], rule: AlignRule, half_width_s: float
) -> tuple[NDArray[np.bool_], NDArray, NDArray]:
    """(T,) each: whether the series covers a frame, and the rows [first, last) a mean is taken over."""
    if rule == "mean" and half_width_s > 0:
        first = np.searchsorted(series.times_s, pts_s - half_width_s, "left")
        last = np.searchsorted(series.times_s, pts_s + half_width_s, "right")
        return last > first, first, last
    return covers(series, pts_s), *_on_screen(series.times_s, pts_s)


def window_blocks(series: TimeSeries, pts_s: NDArray[np.float64], count: int) -> Iterator[NDArray[np.float32]]:
    """Blocks (b, count, ...) of the rows around each frame, NaN in every slot beyond the series."""
    if count < 1:
        raise ValueError(f"{count = }: a window has at least one row")
    shape = (count, *series.data.shape[1:])
    slots_s = (np.arange(count) - (count - 1) / 2) * (step_s(series) if len(series.times_s) else 0.0)  # (count,)
    step = max(1, min(BLOCK, BLOCK_BYTES // (4 * max(1, math.prod(shape)))))
    for start in range(0, max(1, len(pts_s)), step):
        out = np.full((len(pts_s[start : start + step]), *shape), np.nan, dtype=np.float32)
        if len(series.times_s):
            wanted = pts_s[start : start + step, None] + slots_s  # (b, count)
            found = covers(series, wanted)
            out[found] = series.data[nearest_row(series.times_s, wanted[found])]
            release_pages(series.data)
        yield out


def step_s(series: TimeSeries) -> float:
    """The usual distance between rows; what a single row covers where there is only one."""
    return float(np.median(np.diff(series.times_s))) if len(series.times_s) > 1 else series.span_s or 0.02


def covers(series: TimeSeries, pts_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True for the times that lie within what the rows of the series cover."""
    slack_s = max(step_s(series), series.span_s) / 2 + 1e-9
    return (pts_s >= series.times_s[0] - slack_s) & (pts_s <= series.times_s[-1] + slack_s)


def nearest_row(times: NDArray, wanted: NDArray) -> NDArray[np.int64]:
    """The row nearest in time to each wanted time, the earlier one on a tie."""
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)  # a series of one row
    return np.where(times[right] - wanted < wanted - times[left], right, left)


def _interpolate(data: NDArray, times: NDArray, wanted: NDArray) -> NDArray:
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)  # a series of one row
    gap = np.maximum(times[right] - times[left], 1e-12)
    share = np.clip((wanted - times[left]) / gap, 0, 1)[:, None]  # of the right row
    return data[left] * (1 - share) + data[right] * share


def _on_screen(times: NDArray, pts_s: NDArray) -> tuple[NDArray, NDArray]:
    """The rows [first, last) at times while each frame is on screen."""
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
    count = last - first
    edges, index = np.unique(np.concatenate([first, np.maximum(last, first)]), return_inverse=True)
    sums = _sums_before(data, edges)[index.reshape(2, -1)]  # (2, b, D)
    mean = (sums[1] - sums[0]) / np.maximum(count, 1)[:, None]
    return np.where((count > 0)[:, None], mean, data[otherwise])


def _sums_before(data: NDArray, edges: NDArray) -> NDArray[np.float64]:
    """(k, D): for every edge, rising, the sum of the rows from the first edge up to it; some rows held at a time."""
    out = np.zeros((len(edges), data.shape[1]))
    total = np.full((1, data.shape[1]), -0.0)  # -0.0 + x is x, for x = -0.0 too
    step = max(1, BLOCK_BYTES // (8 * max(1, data.shape[1])))
    for start in range(int(edges[0]), int(edges[-1]), step):
        stop = min(start + step, int(edges[-1]))
        # One chain of additions from the first edge on, wherever the pieces begin.
        sums = np.cumsum(np.concatenate([total, data[start:stop]]), axis=0)  # (stop - start + 1, D)
        here = slice(*np.searchsorted(edges, [start, stop + 1]))
        out[here] = sums[edges[here] - start]
        total = sums[-1:]
        release_pages(data)
    out[0] = 0.0
    return out
