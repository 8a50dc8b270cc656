"""Log-mel spectra with librosa's semantics, and their slopes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders.base import AudioInput, Encode, FrameAlignment, TimeSeries
from aupipe.extract.media.long_arrays import ArrayBuilder, cut
from aupipe.tables import Count, Hertz, Natural, NotNegative, Positive, Range
from aupipe.types import Modality, Waveform

BLOCK = 1 << 14  # frames whose spectra are held at a time; another number moves rows by a rounding


@dataclass(frozen=True)
class LogMel(FrameAlignment):
    """``librosa.feature.melspectrogram`` in dB and its first ``deltas`` derivatives, one row per hop.

    Gives (n, n_mels * (1 + deltas)), 64 by default.

    Frames are centred (librosa's default): row i is centred on ``start_s + i * hop / sample_rate``. dB are relative to
    full scale and floored at ``floor_db``, a fixed value: librosa's ``top_db`` would tie every row to the loudest
    moment of the file.
    """

    sample_rate: Hertz = 16000
    n_fft: Annotated[int, Range(2, 1_000_000)] = 512
    win_length: Count = 400
    hop_length: Count = 160
    n_mels: Annotated[int, Range(1, 4096)] = 64
    f_min_hz: NotNegative = 0.0
    f_max_hz: Positive = 8000.0
    floor_db: Annotated[float, Range(-300, 100)] = -100.0
    deltas: Natural = 0
    delta_width: Count = 9

    modality: ClassVar[Modality] = "audio"
    requires: ClassVar[tuple[str, ...]] = ("librosa",)
    version: ClassVar[int] = 1
    shareable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_windows(self.n_fft, self.win_length)
        if self.f_min_hz >= self.f_max_hz:
            raise ValueError(f"f_min_hz = {self.f_min_hz} must be below f_max_hz = {self.f_max_hz}")
        check_slopes(self.deltas, self.delta_width)

    @property
    def reads(self) -> AudioInput:
        return AudioInput(self.sample_rate)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (len(self.column_names()),)

    def column_names(self) -> tuple[str, ...]:
        return with_slope_names([f"mel_{i}" for i in range(self.n_mels)], self.deltas)

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
                fmin=self.f_min_hz,
                fmax=self.f_max_hz,
            )  # (b, n_mels) each
            amin = 10 ** (self.floor_db / 10)
            base = (librosa.power_to_db(power.T, ref=1.0, amin=amin, top_db=None) for power in spectra)
            rows = ArrayBuilder()
            for block in with_slopes(base, self.deltas, self.delta_width):
                rows.append(block)
            data = rows.array()
            return TimeSeries(
                data, frame_times(waveform, len(data), self.hop_length), self.win_length / self.sample_rate
            )

        return encode


def mel_power(
    samples: NDArray[np.float32], *, sample_rate: int, n_fft: int, win_length: int, hop_length: int, **mel: Any
) -> Iterator[NDArray[np.float32]]:
    """The (n, n_mels) rows of ``librosa.feature.melspectrogram`` in blocks of `BLOCK`: a long one is never held."""
    import librosa

    half = n_fft // 2  # of silence before and after the sound: what librosa's center=True does
    rows = 1 + (len(samples) + 2 * half - n_fft) // hop_length
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        power = librosa.feature.melspectrogram(
            y=cut(samples, first * hop_length - half, (last - 1) * hop_length + n_fft - half),
            sr=sample_rate,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            center=False,
            **mel,
        )  # (n_mels, last - first)
        yield power.T.astype(np.float32)


def check_windows(n_fft: int, win_length: int) -> None:
    """Raises ValueError for a window that the transform cannot hold."""
    if win_length > n_fft:
        raise ValueError(f"win_length = {win_length} must be n_fft = {n_fft} or less")


def check_slopes(deltas: int, width: int) -> None:
    """Raises ValueError for slopes `with_slopes` cannot give."""
    if deltas < 0 or width < 3 or width % 2 == 0 or deltas >= width:
        raise ValueError(f"deltas = {deltas}, delta_width = {width}: an odd width from 3, and fewer deltas than that")


def with_slope_names(names: list[str], deltas: int) -> tuple[str, ...]:
    """Names of the columns that `with_slopes` makes of those called ``names``."""
    return (*names, *(f"{name}_delta{order}" for order in range(1, deltas + 1) for name in names))


def with_slopes(blocks: Iterable[NDArray[np.float32]], deltas: int, width: int) -> Iterator[NDArray[np.float32]]:
    """Blocks of rows (b, D * (1 + deltas)) from blocks (D, b) of successive rows.

    A row holds the values, then their derivatives over ``width`` rows, librosa's way, whatever the blocks.
    """
    context = width // 2 if deltas else 0
    held: NDArray[np.float32] | None = None  # columns: some already given, which the next ones need, and new ones
    given = 0
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], axis=1)
        ready = held.shape[1] - context
        if ready > given:
            yield _sloped(held, deltas, width)[given:ready]
            start = max(0, ready - context)
            held, given = held[:, start:], ready - start
    if held is not None and given < held.shape[1]:
        yield _sloped(held, deltas, width)[given:]


def _sloped(base: NDArray[np.float32], deltas: int, width: int) -> NDArray[np.float32]:
    """(n, D * (1 + deltas)) rows of (D, n)."""
    import librosa

    # "nearest" also works on files shorter than the width of the derivative.
    slopes = [librosa.feature.delta(base, order=i, width=width, mode="nearest") for i in range(1, deltas + 1)]
    return np.ascontiguousarray(np.concatenate([base, *slopes]).T, dtype=np.float32)


def at_least(samples: np.ndarray, n: int) -> np.ndarray:
    """Sound shorter than one analysis window, continued with silence so that it has one row."""
    return samples if len(samples) >= n else np.pad(samples, (0, n - len(samples)))


def frame_times(waveform: Waveform, rows: int, hop_length: int) -> np.ndarray:
    """(rows,) float64 seconds on the video's clock of librosa's centred frames."""
    return waveform.start_s + np.arange(rows) * (hop_length / waveform.sample_rate)
