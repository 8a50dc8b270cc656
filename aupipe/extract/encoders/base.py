"""The contract of an encoder: what it declares, what its function takes in and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.limits import SOUND_REACH_S
from aupipe.tables import Natural, NotNegative
from aupipe.types import Modality, Weights

AlignRule = Literal["interpolate", "nearest", "mean", "window"]


@dataclass(frozen=True)
class AudioInput:
    """Sound an encoder wants: mono at this sample rate."""

    sample_rate: int


@dataclass(frozen=True)
class WordsInput:
    """The words of a video with their times: an `aupipe.extract.media.transcript.Transcript`."""


Reads = CropTemplate | AudioInput | WordsInput | Literal["landmarks"]
Encode = Callable[[Any], Any]


class Encoder(Protocol):
    """What every registered encoder offers: a frozen dataclass of its parameters, importable without torch.

    Parameters that say where weights lie are called ``weights`` or have the type `aupipe.extract.contract.WeightFile`.
    An encoder may declare more; where it does not, the value in brackets stands:

    - ``requires: ClassVar[tuple[str, ...]]`` (none): distributions whose versions belong into the records of its items;
    - ``row_shape: tuple[int, ...] | None`` (None): the shape of one row, where it is known before anything is loaded
      (`row_shape_of`);
    - ``column_names() -> tuple[str, ...]`` (none): names for the columns of rows (D,) (`column_names_of`);
    - ``dtype: ClassVar[str]`` (``float16``): what its rows are stored as; ``uint8`` for whole numbers up to 255;
    - ``shareable: ClassVar[bool]`` (False): several threads may call its function at once (`is_shareable`);
    - ``reach_s: float`` (60): seconds of sound after the last frame that it needs; see `FrameAlignment`.
    """

    modality: ClassVar[Modality]
    version: ClassVar[int]  # raised when the numbers change

    @property
    def reads(self) -> Reads:
        """What it takes in."""
        ...

    def identify_weights(self) -> Weights | None:
        """Which weights it will use; None when it has none. Raises WeightsMissingError."""
        ...

    def load(self, device: str) -> Encode:
        """The function, on a torch device (``cpu``, ``cuda:0``).

        One function serves all recordings of a process. It keeps nothing from one call to the next: a batch of crops or
        landmarks holds frames of several recordings, in any order. Sound and words come whole, one recording per call.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FrameAlignment:
    """How an encoder's rows come to the frames (`aupipe.extract.encoders.frame_alignment`).

    Part of every audio and text encoder.

    ``align_s``: half the width of ``mean`` in seconds, 0 for the time the frame is on screen. ``align_rows``: rows of a
    ``window``.
    """

    align: AlignRule = "interpolate"
    align_s: NotNegative = 0.0
    align_rows: Natural = 0

    def __post_init__(self) -> None:
        if self.align_s < 0 or (self.align_s and self.align != "mean"):
            raise ValueError(f"align_s = {self.align_s}: seconds above 0, and only for align = 'mean'")
        if (self.align == "window") != (self.align_rows > 0):
            raise ValueError(f"align_rows = {self.align_rows}: align = 'window' needs 1 or more, other rules none")

    @property
    def reach_s(self) -> float:
        """Seconds of sound after a frame that its row may depend on; sound later than that after the last is left out.

        Rows of a ``window`` are taken to be a second apart at most.
        """
        return SOUND_REACH_S + self.align_s + self.align_rows


@dataclass(frozen=True)
class TimeSeries:
    """Rows at times of their own: ``data`` (n, ...), ``times_s`` (n,) not falling, the middle of what each row covers.

    ``data`` of long sound may be a read-only memory map (`aupipe.extract.media.long_arrays`).

    ``span_s`` is how much sound one row covers; where it is longer than a step, the series begins and ends half of it
    further out than its first and last times say.
    """

    data: NDArray[np.float32]
    times_s: NDArray[np.float64]
    span_s: float = 0.0


@dataclass(frozen=True)
class ShapedEncode:
    """A function that states the shape of its rows, which its encoder could not know before it was loaded."""

    encode: Encode
    row_shape: tuple[int, ...]

    def __call__(self, inputs: Any) -> Any:
        return self.encode(inputs)


def row_shape_of(encoder: Any, encode: Encode | None = None) -> tuple[int, ...] | None:
    """The shape of one row: what the encoder declares, else what its loaded function states, else None.

    It is the shape of what ``encode`` gives; a ``window`` over the frames adds one axis before it (`FrameAlignment`).
    """
    shape = getattr(encoder, "row_shape", None)
    shape = shape if shape is not None else getattr(encode, "row_shape", None)
    return None if shape is None else tuple(shape)


def stored_dtype_of(encoder: Any) -> str:
    """What the rows of an encoder are stored as."""
    return str(getattr(encoder, "dtype", "float16"))


def column_names_of(encoder: Any) -> tuple[str, ...]:
    """Names for the columns of the rows (D,); none for an embedding, whose columns mean nothing on their own."""
    return tuple(encoder.column_names()) if hasattr(encoder, "column_names") else ()


def is_shareable(encoder: Any, encode: Encode) -> bool:
    """May several threads call ``encode`` at once? What gives tensors by ``start`` may always be."""
    return hasattr(encode, "start") or bool(getattr(encoder, "shareable", False))


def rows_of(encode: Encode, inputs: Any) -> Callable[[], NDArray[Any]]:
    """Begin to encode a batch, an array or a tensor; calling what is returned waits for its rows."""
    start = getattr(encode, "start", None)
    if start is None and isinstance(inputs, np.ndarray):
        rows = encode(inputs)
        return lambda: rows
    from aupipe.extract.gpu.transfer import fetch, on_host

    if start is None:
        return rows_of(encode, on_host(inputs))
    wait = fetch([start(inputs)])
    return lambda: wait()[0]
