"""How loud sound is, and what mixing its channels leaves of it: is it silent, out of phase, clipped?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SILENT_PEAK = 1e-4  # -80 dB of full scale: three steps of 16 bits, as dither makes them
# The mean of C channels that have nothing in common, or of one voice and silence, keeps 1 / C of their energy. What
# keeps less than half of that is out of phase, in part or all of it.
KEPT_SHARE = 0.5
FULL_SCALE = 0.9999
CLIPPED_SHARE = 0.001  # of all samples: music mastered loud touches full scale now and then
EVERY = 8  # blocks of which one is measured


class Levels:
    """Adds up what there is to say of sound before and after it is mixed."""

    def __init__(self) -> None:
        self._channels = 1
        self._blocks = self._mixed_samples = self._samples = self._clipped = 0
        self._all_mixed_energy = self._mixed_energy = self._energy = self._peak = 0.0

    def add(self, channels: NDArray[np.float32], mixed: NDArray[np.float32]) -> bool:
        """Take in a block of channels (C, N), N > 0, and their mix (N,); False where that holds what is no number."""
        mixed_energy = float(np.dot(mixed, mixed))
        if not math.isfinite(mixed_energy):
            return bool(np.isfinite(mixed).all())
        self._all_mixed_energy += mixed_energy
        self._channels = max(self._channels, len(channels))
        self._mixed_samples += len(mixed)
        if self._blocks % EVERY == 0:
            flat = channels.ravel("K")
            self._samples += len(flat)
            self._mixed_energy += mixed_energy
            self._energy += float(np.dot(flat, flat)) / len(channels)
            size = np.abs(flat)
            self._peak = max(self._peak, float(size.max()))
            self._clipped += int(np.count_nonzero(size >= FULL_SCALE))
        self._blocks += 1
        return True

    def found(self) -> dict[str, Any]:
        """What is odd, as fields of `MediaReport`."""
        if not self._samples:
            return {}
        if max(self._peak, math.sqrt(self._all_mixed_energy / self._mixed_samples)) < SILENT_PEAK:
            return {"silent": True}
        cancelled = 1.0 - self._mixed_energy / self._energy if self._energy else 0.0
        most = 1.0 - KEPT_SHARE / self._channels
        clipped = self._clipped / self._samples
        return {
            "cancelled": cancelled if cancelled > most else 0.0,
            "clipped": clipped if clipped > CLIPPED_SHARE else 0.0,
        }
