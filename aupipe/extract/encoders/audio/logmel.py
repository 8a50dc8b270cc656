"""Log-mel spectra with librosa's semantics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aupipe.extract.encoders import AlignRule, AudioInput, Encode, Track
from aupipe.types import Modality, Waveform


@dataclass(frozen=True)
class LogMel:
    """``librosa.feature.melspectrogram`` in dB, one row per hop: (n, n_mels).

    Frames are centred (librosa's default): row i hears around ``start_s + i * hop / sample_rate``. dB are relative to
    full scale and floored at ``floor_db``, a fixed value: librosa's ``top_db`` would tie every row to the loudest
    moment of the file.
    """

    sample_rate: int = 16000
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 64
    f_min_hz: float = 0.0
    f_max_hz: float = 8000.0
    floor_db: float = -100.0
    align: AlignRule = "interpolate"

    modality: ClassVar[Modality] = "audio"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> AudioInput:
        return AudioInput(self.sample_rate)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> Encode:
        import librosa

        def encode(waveform: Waveform) -> Track:
            power = librosa.feature.melspectrogram(
                y=at_least(waveform.samples, self.n_fft),
                sr=self.sample_rate,
                n_fft=self.n_fft,
                win_length=self.win_length,
                hop_length=self.hop_length,
                n_mels=self.n_mels,
                fmin=self.f_min_hz,
                fmax=self.f_max_hz,
            )  # (n_mels, n)
            decibels = librosa.power_to_db(power, ref=1.0, amin=10 ** (self.floor_db / 10), top_db=None)
            rows = np.ascontiguousarray(decibels.T, dtype=np.float32)  # (n, n_mels)
            return Track(rows, frame_times(waveform, len(rows), self.hop_length))

        return encode


def at_least(samples: np.ndarray, n: int) -> np.ndarray:
    """Sound shorter than one analysis window, continued with silence so that it has one row."""
    return samples if len(samples) >= n else np.pad(samples, (0, n - len(samples)))


def frame_times(waveform: Waveform, rows: int, hop_length: int) -> np.ndarray:
    """(rows,) float64 seconds on the video's clock of librosa's centred frames."""
    return waveform.start_s + np.arange(rows) * (hop_length / waveform.sample_rate)
