"""The level of the sound: its root mean square in decibels of full scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from aupipe.extract.encoders.audio.logmel import BLOCK, at_least
from aupipe.extract.encoders.base import AudioInput, Encode, FrameAlignment, TimeSeries
from aupipe.extract.media.long_arrays import ArrayBuilder, cut
from aupipe.tables import Hertz, Range
from aupipe.types import Modality, Waveform


@dataclass(frozen=True)
class Level(FrameAlignment):
    """10 log10 of the mean square of ``window_s`` seconds, (n, 1), a row per ``hop_s``.

    0 dB is a constant sample of 1, so a sine of full scale has -3 dB. Lower levels than ``floor_db`` are raised to it.
    Frequencies are not weighted as an ear does (ITU-R BS.1770).
    """

    sample_rate: Hertz = 16000
    window_s: Annotated[float, Range(0.001, 10)] = 0.04
    hop_s: Annotated[float, Range(0.001, 10)] = 0.01
    floor_db: Annotated[float, Range(-300, 0)] = -100.0

    modality: ClassVar[Modality] = "audio"
    version: ClassVar[int] = 1
    dtype: ClassVar[str] = "float32"
    shareable: ClassVar[bool] = True

    @property
    def reads(self) -> AudioInput:
        return AudioInput(self.sample_rate)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (1,)

    def column_names(self) -> tuple[str, ...]:
        return ("level_dbfs",)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> Encode:
        window, hop = (max(1, round(seconds * self.sample_rate)) for seconds in (self.window_s, self.hop_s))
        least = 10 ** (self.floor_db / 10)

        def encode(waveform: Waveform) -> TimeSeries:
            samples = at_least(waveform.samples, window)
            count = 1 + (len(samples) - window) // hop
            built = ArrayBuilder()
            for first in range(0, count, BLOCK):
                last = min(first + BLOCK, count)
                energy = cut(samples, first * hop, (last - 1) * hop + window).astype(np.float64) ** 2
                sums = np.concatenate([[0.0], np.cumsum(energy)])
                starts = np.arange(last - first) * hop
                mean = (sums[starts + window] - sums[starts]) / window
                built.append((10 * np.log10(np.maximum(mean, least))).astype(np.float32)[:, None])
            times = waveform.start_s + (np.arange(count) * hop + window / 2) / self.sample_rate
            return TimeSeries(built.array(), times, window / self.sample_rate)

        return encode
