"""Frozen encoders: what turns aligned faces, landmarks or sound into one row per frame.

An encoder is a frozen dataclass of its parameters, importable without torch, so that planning is quick;
``load(device)`` gives the function that computes. What it reads is declared in ``reads``:

- a `CropTemplate`: ``crops uint8 (B, S, S, 3) RGB -> (B, ...) float32``;
- ``"landmarks"``: ``landmarks float32 (B, 5, 2) px -> (B, ...) float32``;
- an `AudioInput`: ``Waveform -> TimeSeries``: rows at their own times, which
  `aupipe.extract.encoders.frame_alignment` resamples to the frames;
- a `WordsInput`: ``Transcript -> TimeSeries``, likewise.

Every function accepts an empty batch and then returns an empty array of the right row shape.

A function of crops that has a ``start`` besides is given them there: as an array, or as a tensor on the device if the
frames were decoded to it. ``start`` returns the rows as a tensor, for which nobody has waited yet
(`aupipe.extract.encoders.image_base.TensorEncode`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.limits import SOUND_REACH_S
from aupipe.registry import Registry
from aupipe.tables import Natural, NotNegative, build
from aupipe.types import Modality, Weights

ENCODERS = Registry(
    "encoder",
    {
        "hog": "aupipe.extract.encoders.visual.hog:Hog",
        "geometry": "aupipe.extract.encoders.visual.geometry:Geometry",
        "timm": "aupipe.extract.encoders.visual.timm:Timm",
        "arcface": "aupipe.extract.encoders.visual.arcface:ArcFace",
        "blendshapes": "aupipe.extract.encoders.visual.blendshapes:Blendshapes",
        "dan": "aupipe.extract.encoders.visual.dan:Dan",
        "ghfeat": "aupipe.extract.encoders.visual.ghfeat:GhFeat",
        "hsemotion": "aupipe.extract.encoders.visual.hsemotion:HsEmotion",
        "mae": "aupipe.extract.encoders.visual.mae:Mae",
        "onnx": "aupipe.extract.encoders.visual.onnx:Onnx",
        "regnet": "aupipe.extract.encoders.visual.regnet:RegNet",
        "swin": "aupipe.extract.encoders.visual.swin:Swin",
        "transformers": "aupipe.extract.encoders.visual.transformers:Transformers",
        "mfcc": "aupipe.extract.encoders.audio.mfcc:Mfcc",
        "logmel": "aupipe.extract.encoders.audio.logmel:LogMel",
        "vggish": "aupipe.extract.encoders.audio.vggish:Vggish",
        "speech": "aupipe.extract.encoders.audio.speech:Speech",
        "egemaps": "aupipe.extract.encoders.audio.egemaps:Egemaps",
        "vad": "aupipe.extract.encoders.audio.vad:Vad",
        "text": "aupipe.extract.encoders.text.text:Text",
    },
)

AlignRule = Literal["interpolate", "nearest", "mean", "window"]


@dataclass(frozen=True)
class AudioInput:
    """Sound an encoder wants: mono at this sample rate."""

    sample_rate: int


@dataclass(frozen=True)
class WordsInput:
    """The words of a video with their times: an `aupipe.extract.media.transcript.Transcript`."""


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
    """Rows at times of their own: ``data`` (n, ...), ``times_s`` (n,) not falling, the middle of what each row hears.

    ``data`` of long sound may be a read-only memory map (`aupipe.extract.media.long_arrays`).

    ``span_s`` is how long one row hears; where it is longer than a step, the track begins and ends half of it further
    out than its first and last times say.
    """

    data: NDArray[np.float32]
    times_s: NDArray[np.float64]
    span_s: float = 0.0


Reads = CropTemplate | AudioInput | WordsInput | Literal["landmarks"]
Encode = Callable[[Any], Any]


class Encoder(Protocol):
    """What every registered encoder offers."""

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
        """The encoder, ready on a torch device (``cpu``, ``cuda:0``)."""
        ...


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


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder an ``[[encoder]]`` table describes.

    Raises UsageError for an unknown kind, an unknown or missing parameter (with the nearest known one), a parameter of
    the wrong type, and a modality that is not the encoder's.
    """
    kind = ENCODERS.get(config.kind)
    if kind.modality != config.modality:
        raise UsageError(
            f"encoder {config.name!r}: {config.kind} is {kind.modality}, the file says modality = {config.modality!r}"
        )
    encoder: Encoder = build(kind, config.params, f"encoder {config.name!r} ({config.kind})")
    return encoder


def params_of(part: Any) -> dict[str, Any]:
    """The parameters of an encoder or detector as JSON values, for its `FeatureSpec`.

    Those it names in ``places`` are left out: they say where weights lie, and what is in those is in the spec anyway.
    """
    places = getattr(part, "places", ())
    values = {key: value for key, value in asdict(part).items() if key not in places}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
