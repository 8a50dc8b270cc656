"""Mel-frequency cepstral coefficients with librosa's semantics, and their slopes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders.audio.logmel import (
    BLOCK,
    at_least,
    check_slopes,
    check_windows,
    frame_times,
    mel_power,
    with_slope_names,
    with_slopes,
)
from aupipe.extract.encoders.base import AudioInput, Encode, FrameAlignment, TimeSeries
from aupipe.extract.media.long_arrays import ArrayBuilder, cut
from aupipe.tables import Count, Hertz, Natural, Range
from aupipe.types import Modality, Waveform

TOP_DB = 80.0  # librosa's


@dataclass(frozen=True)
class Mfcc(FrameAlignment):
    """``librosa.feature.mfcc`` and its first ``deltas`` derivatives: (n, n_mfcc * (1 + deltas)), 39 by default.

    Frames are centred (librosa's default). ``top_db`` is librosa's 80: values more than that below the file's loudest
    moment are raised to it.
    """

    sample_rate: Hertz = 16000
    n_mfcc: Count = 13
    n_fft: Annotated[int, Range(2, 1_000_000)] = 512
    win_length: Count = 400
    hop_length: Count = 160
    n_mels: Annotated[int, Range(1, 4096)] = 40
    deltas: Natural = 2
    delta_width: Count = 9

    modality: ClassVar[Modality] = "audio"
    requires: ClassVar[tuple[str, ...]] = ("librosa",)
    version: ClassVar[int] = 1
    shareable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_windows(self.n_fft, self.win_length)
        check_slopes(self.deltas, self.delta_width)

    @property
    def reads(self) -> AudioInput:
        return AudioInput(self.sample_rate)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (len(self.column_names()),)

    def column_names(self) -> tuple[str, ...]:
        return with_slope_names([f"mfcc_{i}" for i in range(self.n_mfcc)], self.deltas)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> Encode:
        import librosa

        def encode(waveform: Waveform) -> TimeSeries:
            spectra = mel_power(
                at_least(waveform.samples, self.n_fft),
                sample_rate=self.sample_rate,
                n_fft=self.n_fft,
                win_length=self.win_length,
                hop_length=self.hop_length,
                n_mels=self.n_mels,
            )  # (b, n_mels) each
            built = ArrayBuilder()
            loudest = np.float32(-np.inf)
            for power in spectra:
                decibels = librosa.power_to_db(power, top_db=None)
                loudest = max(loudest, decibels.max())
                built.append(decibels)
            table = built.array()  # (n, n_mels)

            def coefficients() -> Iterator[NDArray[np.float32]]:
                """(n_mfcc, b) each: the loudest moment of all is known now."""
                for first in range(0, len(table), BLOCK):
                    block = cut(table, first, min(first + BLOCK, len(table))).T
                    yield librosa.feature.mfcc(S=np.maximum(block, loudest - TOP_DB), n_mfcc=self.n_mfcc)

            rows = ArrayBuilder()
            for sloped in with_slopes(coefficients(), self.deltas, self.delta_width):
                rows.append(sloped)
            data = rows.array()  # (n, n_mfcc * (1 + deltas))
            return TimeSeries(
                data, frame_times(waveform, len(data), self.hop_length), self.win_length / self.sample_rate
            )

        return encode
