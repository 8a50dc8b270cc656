"""Whether the frames of a video follow each other evenly, and where some are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REGULAR_SHARE = 0.9  # of the steps between frames are alike where a frame rate is constant
ROUNDING_S = 0.0011  # Matroska and FLV count in milliseconds


def gaps_in(times_s: NDArray[np.float64]) -> dict[str, Any]:
    """Jumps ahead in rising times (T,) that are otherwise evenly spaced, as fields of `MediaReport`.

    Where the frame rate varies, a long step says nothing: none is reported.
    """
    steps = np.diff(times_s)
    if not is_even(steps):
        return {}
    usual = float(np.median(steps))
    long = np.flatnonzero(steps > 1.5 * usual + ROUNDING_S)
    if not len(long):
        return {}
    first_s = float(times_s[long[0]]) + usual
    return {"gaps": len(long), "gap_s": float((steps[long] - usual).sum()), "first_gap_s": first_s}


def is_even(steps: NDArray[np.float64]) -> bool:
    """Whether nearly all steps between frames are alike, so that a missing frame shows."""
    if len(steps) < 4:
        return False
    usual = float(np.median(steps))
    regular = np.abs(steps - usual) <= max(0.1 * usual, ROUNDING_S)
    return bool(regular.mean() >= REGULAR_SHARE or np.count_nonzero(~regular) == 1)  # one of a few is a gap too
