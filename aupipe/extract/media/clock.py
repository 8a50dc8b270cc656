"""The clock of a video: when its frames are shown, in seconds on the container's clock, rising."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError

REORDER_FRAMES = 16  # of H.264 and HEVC, at most: a time may stand this many frames from its place
REORDER_S = 1.0  # parts that overlap by more are no recording of one moment after another
JUMPS_SHARE = 0.1  # of the frames of joined parts jump back, at most; where frames are out of order, many do


@dataclass(frozen=True)
class Clock:
    """``times_s`` (T,): of the frames in the order in which they were decoded, rising.

    ``jumps_back``, ``overlap_s`` and ``first_overlap_s`` are 0 unless parts of the file overlap in time: how often a
    frame comes before its predecessor, how many seconds are covered twice at most, and where that begins.
    """

    times_s: NDArray[np.float64]
    jumps_back: int = 0
    overlap_s: float = 0.0
    first_overlap_s: float = 0.0
    repeats: int = 0  # frames with the time of the one before


def clock_of(times_s: NDArray[np.float64], by_decoding_time: bool = False) -> Clock:
    """The clock of frames whose stated times are ``times_s`` (T,), in the order in which they are shown.

    ``by_decoding_time``: the times are when each frame was decoded, all that the file states. Frame k is shown at the
    k-th smallest. Stated times are put in order too where frames are out of order among their neighbours: every time
    is there once, at most `REORDER_FRAMES` from its place. Where parts of a file overlap, frames keep their own times;
    those that come before a frame in front of them are put between their neighbours, evenly.
    """
    ordered = np.sort(times_s)
    back = np.flatnonzero(np.diff(times_s) < 0) + 1
    if by_decoding_time or not len(back):
        return Clock(ordered, repeats=int(np.count_nonzero(np.diff(ordered) == 0)))
    steps = np.diff(times_s if len(back) <= JUMPS_SHARE * len(times_s) else ordered)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    close = np.flatnonzero(np.diff(ordered) < 0.75 * usual)
    moved = np.abs(np.argsort(times_s, kind="stable") - np.arange(len(times_s))).max()
    if (steps > 0).any() and not len(close) and moved <= REORDER_FRAMES:
        return Clock(ordered)
    worst_s = float((np.maximum.accumulate(times_s) - times_s).max())
    first_s = float(ordered[close[0]] if len(close) else times_s[back[0]])
    return Clock(_between(times_s, usual), len(back), worst_s + usual, first_s)


def _between(times_s: NDArray[np.float64], usual_s: float) -> NDArray[np.float64]:
    """Times (T,) that rise: a frame that is not later than all before it goes between its neighbours that are."""
    own = np.concatenate([[True], times_s[1:] > np.maximum.accumulate(times_s)[:-1]])
    rows = np.arange(len(times_s))
    placed = np.interp(rows, rows[own], times_s[own])
    last = rows[own][-1]
    placed[last:] += usual_s * (rows[last:] - last)  # beyond the last one, where interp repeats it
    return placed


def in_order(times_s: NDArray[np.float64], path: Path, by_decoding_time: bool = False) -> NDArray[np.float64]:
    """The ``times_s`` of `clock_of`. Raises RecordingError where parts overlap by more than `REORDER_S`."""
    clock = clock_of(times_s, by_decoding_time)
    latest = np.maximum.accumulate(times_s)
    back = np.flatnonzero(times_s < latest - REORDER_S) if clock.overlap_s else np.zeros(0, np.int64)
    if len(back):
        raise RecordingError(
            f"{path}: times jump back from {latest[back[0]]:.2f} to {times_s[back[0]]:.2f} s at frame {back[0]}; "
            "several files joined into one? Remux or re-encode it"
        )
    return clock.times_s


def length_of(clock: NDArray[np.float64]) -> float:
    """Seconds from the first to the last of the times (T,) of a video; 0 for none."""
    return float(clock[-1] - clock[0]) if len(clock) else 0.0
