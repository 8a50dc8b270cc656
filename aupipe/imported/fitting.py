"""Rows of another program at the decoded frames: by their count, by its frame numbers, or by its times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.imported.files import ForeignRows


def fit_rows(found: ForeignRows, times_s: NDArray[np.float64]) -> tuple[NDArray[np.float32], str]:
    """Rows (T, D) for the frames at ``times_s`` (T,), NaN where there is none; and what was done, '' for nothing.

    A row per frame is taken as it is. Otherwise the file's own frame numbers place its rows, where all are frames of
    this video; else its own times do, where every frame has a row within half a step. Raises RecordingError where
    neither explains another number of rows.
    """
    total, count = len(times_s), len(found.rows)
    offsets = _offsets(found, total)
    if count == total and (offsets is None or (offsets == np.arange(total)).all()):
        return found.rows, ""
    if offsets is not None:
        rows = np.full((total, found.rows.shape[1]), np.nan, np.float32)
        rows[offsets] = found.rows
        return rows, f"placed by frame numbers: {total - count} of {total} frames have no row"
    if (nearest := _by_time(found, times_s)) is not None:
        return found.rows[nearest], f"placed by times: {count} rows for {total} frames"
    clock = "its frame numbers and times do not fit" if found.times_s is not None else "it has no clock that fits"
    raise RecordingError(
        f"{count} rows, the video has {total} decoded frames, and {clock}: it was made from another file, or frames "
        "were dropped or doubled before"
    )


def _offsets(found: ForeignRows, total: int) -> NDArray[np.int64] | None:
    """(n,) the frame, from 0, of each row, by the file's own numbers; None where these are not all of this video."""
    if found.frames is None or not len(found.frames):
        return None
    first = found.first_frame
    if first is None:  # of a table of unknown origin: only what is sure
        low, high = int(found.frames.min()), int(found.frames.max())
        first = 0 if low == 0 else 1 if high == total else None
    if first is None:
        return None
    offsets = found.frames - first
    fits = offsets.min() >= 0 and offsets.max() < total and len(np.unique(offsets)) == len(offsets)
    return offsets if fits else None


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
    right = np.clip(np.searchsorted(own, wanted), 1, len(own) - 1)
    nearest = np.where(wanted - own[right - 1] <= own[right] - wanted, right - 1, right)
    near = np.abs(own[nearest] - wanted) <= step / 2 + 1e-3
    ends_together = abs(own[-1] - wanted[-1]) <= step + 1e-3
    return nearest.astype(np.int64) if near.all() and ends_together else None
