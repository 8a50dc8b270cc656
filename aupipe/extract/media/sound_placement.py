"""Sound at the times of its packets: holes filled, overlaps cut, clocks that run fast or slow resampled.

The reference is what a player that synchronises to timestamps gives (FFmpeg's filter ``aresample=async=1``).

    a block begins ... of where the sound so far ends, as the next 0.2 s do too
      more than 10 ms after      silence between them
      more than 10 ms before     as much of the block is cut
      and this has come about little by little: what follows is resampled at the pace that was measured
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.limits import MAX_DRIFT, MAX_HOLE_S, MAX_OVERLAP_S, MAX_SOUND_S
from aupipe.extract.media.long_arrays import ArrayBuilder
from aupipe.types import Waveform

AHEAD_S = 0.2  # of sound must agree that a block is out of place: timestamps that jitter do not
ROUNDING_S = 0.0011  # Matroska, FLV and ASF count in milliseconds
SILENCE_BLOCK = 1 << 18  # samples of a hole made at a time


class Block(NamedTuple):
    """Mono float32 samples (n,) in a row, their rate in Hz, and the time of the first in seconds where it is known."""

    samples: NDArray[np.float32]
    rate: int
    time_s: float | None

    @property
    def length_s(self) -> float:
        return len(self.samples) / self.rate


def place_sound(
    blocks: Iterator[Block], sample_rate: int, until_s: float, path: Path, tolerance_s: float
) -> tuple[Waveform | None, dict[str, Any]]:
    """The sound of blocks up to ``until_s``, and what was done to it, as fields of `MediaReport`; None without blocks.

    Where a block's rate is another one, a new resampler begins. Samples within ``tolerance_s`` of their time are left
    alone. Raises RecordingError for a hole of more than an hour, an overlap of more than a second, and for more than
    `MAX_SOUND_S` of sound.
    """
    first = next((block for block in blocks if len(block.samples)), None)
    if first is None:
        return None, {}
    placement = _Placement(blocks, first, sample_rate, until_s, path, tolerance_s)
    placement.run()
    return placement.sound.finished(placement.start_s), placement.found


class _Sound:
    """Sound that is written from its beginning on, at any rates, and resampled by soxr HQ."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._samples = ArrayBuilder()
        self._resampler: Any = None
        self._rate = 0.0
        self._begun = 0  # samples of the result when the present rate began
        self._taken = 0  # samples since then

    @property
    def length_s(self) -> float:
        return self._begun / self._sample_rate + (self._taken / self._rate if self._taken else 0.0)

    def write(self, samples: NDArray[np.float32], rate: float, end_s: float) -> bool:
        """Append samples of a rate, none of them at ``end_s`` or later; False where that is reached."""
        if rate != self._rate:
            self._end_resampling()
            self._begun, self._taken, self._rate = len(self._samples), 0, rate
            if rate != self._sample_rate:
                self._resampler = soxr.ResampleStream(rate, self._sample_rate, 1, dtype="float32")
        wanted = max(0.0, (end_s - self._begun / self._sample_rate) * rate) - self._taken
        is_open = len(samples) < wanted
        if not is_open:
            samples = samples[: max(0, math.ceil(wanted))]
        self._taken += len(samples)
        self._samples.append(self._resampler.resample_chunk(samples) if self._resampler else samples)
        return is_open

    def _end_resampling(self) -> None:
        if self._resampler:
            self._samples.append(self._resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
            self._resampler = None

    def finished(self, start_s: float) -> Waveform:
        self._end_resampling()
        return Waveform(self._samples.array(), self._sample_rate, start_s)


class _Placement:
    """One pass over the blocks of a stream. ``found``: fields of `MediaReport`."""

    def __init__(
        self,
        blocks: Iterator[Block],
        first: Block,
        sample_rate: int,
        until_s: float,
        path: Path,
        tolerance_s: float,
    ) -> None:
        self.sound = _Sound(sample_rate)
        self.start_s = first.time_s or 0.0
        self.found: dict[str, Any] = {}
        self._blocks, self._path, self._tolerance_s = blocks, path, tolerance_s
        self._until_s = max(until_s, self.start_s)
        self._ahead = deque([first])  # read and not yet written
        self._surplus_s = 0.0  # of the coming blocks, to be cut
        self._pace = 1.0  # how much longer than its rate says sound takes; 1 where its clock is right
        self._steady_since_s: float | None = self.start_s  # since when the offset has grown little by little
        self._before = (0.0, self.start_s)  # the last offset from a timestamp, and where that was

    @property
    def _at_s(self) -> float:
        return self.start_s + self.sound.length_s

    def run(self) -> None:
        """Write what there is."""
        while self._ahead or self._read(0.0):
            block = self._without_surplus(self._ahead.popleft())
            if block.time_s is not None and len(block.samples):
                self._synchronise(block, block.time_s)
                block = self._without_surplus(block)
            if not self._write(block.samples, block.rate):
                break
            if self._pace != 1.0:
                self._count(drift_s=block.length_s * (self._pace - 1.0))
            if self.sound.length_s > MAX_SOUND_S:
                raise RecordingError(
                    f"{self._path}: more than {MAX_SOUND_S / 3600:.0f} h of sound; cut it into shorter recordings"
                )
        if "drift_s" in self.found:
            self.found["drift"] = self.found["drift_s"] / self.sound.length_s

    def _write(self, samples: NDArray[np.float32], rate: int) -> bool:
        return self.sound.write(samples, rate / self._pace, self._until_s - self.start_s)

    def _read(self, length_s: float) -> bool:
        """Have a block ahead, and so much sound, as far as there is any."""
        have_s = sum(block.length_s for block in self._ahead)
        while (not self._ahead or have_s < length_s) and (block := next(self._blocks, None)) is not None:
            self._ahead.append(block)
            have_s += block.length_s
        return bool(self._ahead)

    def _without_surplus(self, block: Block) -> Block:
        if not self._surplus_s or not (count := min(round(self._surplus_s * block.rate), len(block.samples))):
            return block
        cut_s = count / block.rate
        self._surplus_s = self._surplus_s - cut_s if count == len(block.samples) else 0.0
        return Block(block.samples[count:], block.rate, None if block.time_s is None else block.time_s + cut_s)

    def _synchronise(self, block: Block, time_s: float) -> None:
        """Make a block that is out of place begin at its time: silence before it, or less of it."""
        at_s = self._at_s
        off_s = time_s - at_s
        before_s, before_at_s = self._before
        if abs(off_s - before_s) > MAX_DRIFT * (at_s - before_at_s) + ROUNDING_S:  # no clock does that
            self._steady_since_s = None
        self._before = off_s, at_s
        if abs(off_s) <= self._tolerance_s or not self._is_confirmed(block, off_s):
            return
        off_s = min(off_s, self._until_s - at_s)
        if not -MAX_OVERLAP_S < off_s < MAX_HOLE_S:
            raise RecordingError(
                f"{self._path}: sound jumps by {off_s:.0f} s at {time_s:.2f} s; several files joined into one? Remux it"
            )
        if (pace := self._measured_pace(off_s, at_s)) is not None:
            self._pace = pace
            self._count(drift_s=off_s)
        else:
            what, size_s = ("hole", off_s) if off_s > 0 else ("trim", -off_s)
            self.found.setdefault(f"first_{what}_s", at_s)
            self._count(**{f"{what}s": 1, f"{what}_s": size_s})
        if off_s < 0:
            self._surplus_s = -off_s
        else:
            self._write_silence(off_s, block.rate)
        self._steady_since_s = self._at_s
        self._before = 0.0, self._at_s

    def _is_confirmed(self, block: Block, off_s: float) -> bool:
        """Whether the blocks after it are out of place in the same direction."""
        self._read(AHEAD_S)
        at_s = self._at_s + block.length_s
        for other in self._ahead:
            if other.time_s is not None:
                other_s = other.time_s - at_s
                if abs(other_s) <= self._tolerance_s or (other_s > 0) != (off_s > 0):
                    return False
            at_s += other.length_s
        return True

    def _measured_pace(self, off_s: float, at_s: float) -> float | None:
        """The pace by which there would have been no offset; None where it is no matter of pace."""
        if self._steady_since_s is None or at_s <= self._steady_since_s:
            return None
        pace = self._pace * (1.0 + off_s / (at_s - self._steady_since_s))
        return pace if abs(pace - 1.0) <= MAX_DRIFT else None

    def _write_silence(self, length_s: float, rate: int) -> None:
        count = round(length_s * rate / self._pace)
        for first in range(0, count, SILENCE_BLOCK):
            self._write(np.zeros(min(SILENCE_BLOCK, count - first), np.float32), rate)

    def _count(self, **sizes: float) -> None:
        for name, size in sizes.items():
            self.found[name] = self.found.get(name, 0) + size
