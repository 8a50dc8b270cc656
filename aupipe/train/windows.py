"""Windows over a recording: half-open ranges of frames. No frame is dropped, and none is scored twice.

::

    frames   0         1         2     T = 26
             0123456789012345678901234567890
    window   [--------)                          start 0
    = 10,         [--------)                     start 5
    hop 5              [--------)                start 10
                            [--------)           start 15
                                 [----)          start 20: the tail, shorter; another window would add no frame
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.train.context import CLOCK_ERROR_S, Context
from aupipe.types import Window


def tile(recording: str, frames: int, window: int, hop: int, phase: int = 0) -> list[Window]:
    """Windows that together cover [0, frames): each frame once where ``hop == window``, at least once where smaller.

    The last window may be shorter. ``phase`` in [0, hop) shifts all windows: the first one then ends at
    ``window - phase``. Training draws a phase per recording and epoch.

    Raises ValueError unless 0 < hop <= window and 0 <= phase < hop.
    """
    if not 0 < hop <= window or not 0 <= phase < hop:
        raise ValueError(f"{window = }, {hop = }, {phase = }: expected 0 < hop <= window and 0 <= phase < hop")
    windows: list[Window] = []
    for start in range(-phase, frames, hop):
        windows.append(Window(recording, max(start, 0), min(start + window, frames)))
        if windows[-1].stop == frames:
            break
    return windows


class Timed(Protocol):
    """A recording of so many frames, and their times, which are read only for a context in seconds."""

    @property
    def times(self) -> NDArray[np.float64]: ...

    def __len__(self) -> int: ...


def with_context(windows: Sequence[Window], context: Context, recording: Timed) -> list[Window]:
    """Windows of a recording that are read with the context of their first and last frame, within the recording."""
    if context == Context():
        return list(windows)
    reach, found = context.seconds + CLOCK_ERROR_S, []
    for window in windows:
        first, last = window.start - context.before, window.stop + context.after
        if context.seconds:
            clock = recording.times
            first = min(first, int(np.searchsorted(clock, clock[window.start] - reach)))
            last = max(last, int(np.searchsorted(clock, clock[window.stop - 1] + reach)))
        before, after = window.start - max(first, 0), min(last, len(recording)) - window.stop
        found.append(replace(window, before=before, after=after))
    return found


def chunks(windows: Sequence[Window], size: int) -> list[Sequence[Window]]:
    """The windows in groups of ``size``, the last one perhaps smaller: the windows of each batch."""
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def overlap_mean(frames: int, windows: Sequence[Window], values: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """(T, K) mean over the windows that contain a frame; ``values[i]`` is (len(windows[i]), K).

    Each frame then has one value, so a score cannot count it twice. Raises ValueError for a frame in no window.
    """
    columns = values[0].shape[1] if values else 0
    total = np.zeros((frames, columns), dtype=np.float64)
    count = np.zeros((frames, 1), dtype=np.int64)
    for window, value in zip(windows, values, strict=True):
        total[window.start : window.stop] += value
        count[window.start : window.stop] += 1
    if not count.all():
        raise ValueError(f"frame {int(np.argmin(count))} of {frames} is in no window")
    return (total / count).astype(np.float32)
