"""Frozen encoders: what turns aligned faces, landmarks or sound into one row per frame.

An encoder is a frozen dataclass of its parameters, importable without torch, so that planning is quick;
``load(device)`` gives the function that computes. What it reads is declared in ``reads``:

- a `CropTemplate`: ``crops uint8 (B, S, S, 3) RGB -> (B, ...) float32``;
- ``"landmarks"``: ``landmarks float32 (B, 5, 2) px -> (B, ...) float32``;
- an `AudioInput`: ``Waveform -> Track`` (rows at their own times; `aupipe.extract.clock` brings them to the frames).

Every function accepts an empty batch and then returns an empty array of the right row shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError
from aupipe.extract.faces.align import CropTemplate
from aupipe.registry import Registry
from aupipe.tables import build
from aupipe.types import Modality, Weights

ENCODERS = Registry(
    "encoder",
    {
        "hog": "aupipe.extract.encoders.visual.hog:Hog",
        "geometry": "aupipe.extract.encoders.visual.geometry:Geometry",
        "timm": "aupipe.extract.encoders.visual.timm:Timm",
        "mfcc": "aupipe.extract.encoders.audio.mfcc:Mfcc",
        "logmel": "aupipe.extract.encoders.audio.logmel:LogMel",
    },
)

AlignRule = Literal["interpolate", "nearest", "mean"]


@dataclass(frozen=True)
class AudioInput:
    """Sound an encoder wants: mono at this sample rate."""

    sample_rate: int


@dataclass(frozen=True)
class Track:
    """Rows at times of their own: ``data`` (n, ...), ``times_s`` (n,) rising, the middle of what each row hears."""

    data: NDArray[np.float32]
    times_s: NDArray[np.float64]


Reads = CropTemplate | AudioInput | Literal["landmarks"]
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
    """The parameters of an encoder or detector as JSON values, for its `FeatureSpec`."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(part).items()}
