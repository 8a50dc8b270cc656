"""Rows of another program at the decoded frames: by their count, by its frame numbers, or by its times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.encoders.frame_alignment import nearest_row
from aupipe.imported.files import ForeignRows


def fit_rows(found: ForeignRows, times_s: NDArray[np.float64]) -> tuple[NDArray[np.float32], str]:
    """Rows (T, D) for the frames at ``times_s`` (T,), NaN where there is none; and what was done, '' for nothing.

    The file's own frame numbers place its rows, where all are frames of this video; else its own times do, where every
    frame has a row within half a step, or every row the time of a frame. A file without either has a row per frame.
    Raises RecordingError where the numbers or times contradict the video, and for another number of rows that neither
    explains.
    """
    total, count = len(times_s), len(found.rows)
    numbered = found.frames is not None and count > 0
    timed = found.times_s is not None and count > 1 and bool(np.isfinite(found.times_s).any())
    if count == total and not numbered and not timed:
        return found.rows, ""
    offsets = _offsets(found, total)
    if offsets is not None:
        if count == total and (offsets == np.arange(total)).all():
            return found.rows, ""
        return _placed(found, offsets, total), f"placed by frame numbers: {total - count} of {total} frames have no row"
    if timed and count == total and not numbered and _agree(found, times_s):
        return found.rows, _start(found, times_s)
    # Where the numbers begin later, so do the times. As many rows as frames, at other times, are no rows of the frames.
    begins = not numbered or (found.frames is not None and found.frames[0] == _first_frame(found, total))
    if count != total and begins and (nearest := _by_time(found, times_s)) is not None:
        notes = f"placed by times: {count} rows for {total} frames", _start(found, times_s)
        return found.rows[nearest], "; ".join(filter(None, notes))
    if timed and count <= total and not numbered and (offsets := _frames_at(found, times_s)) is not None:
        return _placed(found, offsets, total), f"placed by times: {total - count} of {total} frames have no row"
    raise RecordingError(_why_not(found, total, numbered, timed))


def _placed(found: ForeignRows, offsets: NDArray[np.int64], total: int) -> NDArray[np.float32]:
    rows = np.full((total, found.rows.shape[1]), np.nan, np.float32)
    rows[offsets] = found.rows
    return rows


def _why_not(found: ForeignRows, total: int, numbered: bool, timed: bool) -> str:
    counts = f"{len(found.rows)} rows, the video has {total} decoded frames"
    own = []
    if numbered and found.frames is not None:
        own.append(f"frame numbers ({found.frames.min()} to {found.frames.max()})")
    if timed and found.times_s is not None:
        own.append(f"times ({np.nanmin(found.times_s):.3f} to {np.nanmax(found.times_s):.3f}, expected in seconds)")
    clock = f"its {' and '.join(own)} do not fit" if own else "it has no clock that fits"
    why = "it was made from another file, or frames were dropped or doubled before"
    if len(found.rows) == total:
        why += "; if its rows are these frames in their order, remove the column"
    return f"{counts}, and {clock}: {why}"


def _agree(found: ForeignRows, times_s: NDArray[np.float64]) -> bool:
    """Is each row within half a step of its frame? Both clocks begin at their first frame, as in `_by_time`."""
    assert found.times_s is not None
    own, wanted = found.times_s - found.times_s[0], times_s - times_s[0]
    return bool((np.abs(own - wanted) <= np.median(np.diff(wanted)) / 2 + 1e-3).all())


def _start(found: ForeignRows, times_s: NDArray[np.float64]) -> str:
    """A note where the file's times begin neither at 0 nor when the video does: its first row is taken as frame 1."""
    assert found.times_s is not None
    first, step = float(found.times_s[0]), float(np.median(np.diff(found.times_s)))
    if min(abs(first), abs(first - times_s[0])) <= step / 2 + 1e-3:
        return ""
    return f"its times begin at {first:.3f} s: its first row was taken as the first frame"


def _offsets(found: ForeignRows, total: int) -> NDArray[np.int64] | None:
    """(n,) the frame, from 0, of each row, by the file's own numbers; None where these are not all of this video."""
    first = _first_frame(found, total)
    if found.frames is None or first is None:
        return None
    offsets = found.frames - first
    fits = offsets.min() >= 0 and offsets.max() < total and len(np.unique(offsets)) == len(offsets)
    return offsets if fits else None


def _first_frame(found: ForeignRows, total: int) -> int | None:
    """The number of the first frame of the video; None where the file does not tell."""
    if found.first_frame is not None or found.frames is None or not len(found.frames):
        return found.first_frame
    low, high = int(found.frames.min()), int(found.frames.max())  # of a table of unknown origin: only what is sure
    return 0 if low == 0 else 1 if high == total else None


def _by_time(found: ForeignRows, times_s: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """(T,) the row nearest in time to each frame; None where one has none within half a step of the rows.

    Both clocks begin at their first frame: programs that count frames know of no later start.
    """
    if found.times_s is None or len(found.times_s) < 2 or not np.isfinite(found.times_s).all():
        return None
    own = found.times_s - found.times_s[0]
    step = float(np.median(np.diff(own)))
    if (np.diff(own) <= 0).any() or step <= 0:
        return None
    wanted = times_s - times_s[0]
    nearest = nearest_row(own, wanted)
    near = np.abs(own[nearest] - wanted) <= step / 2 + 1e-3
    ends_together = abs(own[-1] - wanted[-1]) <= max(step, float(np.median(np.diff(wanted)))) + 1e-3
    return nearest if near.all() and ends_together else None


def _frames_at(found: ForeignRows, times_s: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """(n,) the frame at the time of each row; None where a row is at no frame's time, or it is not sure which.

    The times are those of the video's clock, or begin at 0 with its first frame.
    """
    assert found.times_s is not None
    near = float(np.median(np.diff(times_s))) / 4
    fitting = []
    for start in {0.0, float(times_s[0])}:
        wanted = found.times_s + start
        offsets = nearest_row(times_s, wanted)
        if (np.abs(times_s[offsets] - wanted) <= near).all() and len(np.unique(offsets)) == len(offsets):
            fitting.append(offsets)
    return fitting[0] if len(fitting) == 1 else None
