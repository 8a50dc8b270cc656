"""Frozen encoders: what turns aligned faces, landmarks, sound or words into rows.

An encoder is a frozen dataclass of its parameters, importable without torch, so that planning is quick;
``load(device)`` gives the function that computes (`aupipe.extract.encoders.base.Encoder`). What it takes in is declared
in ``reads``:

- a `CropTemplate`: ``crops uint8 (B, S, S, 3) RGB -> (B, ...) float32``;
- ``"landmarks"``: ``landmarks float32 (B, 5, 2) px -> (B, ...) float32``;
- an `AudioInput`: ``Waveform -> TimeSeries``: rows at their own times, which
  `aupipe.extract.encoders.frame_alignment` resamples to the frames;
- a `WordsInput`: ``Transcript -> TimeSeries``, likewise.

Every function accepts an empty batch and then returns an empty array of the right row shape.

A function of crops that has a ``start`` besides is given them there: as an array, or as a tensor on the device if the
frames were decoded to it. ``start`` returns the rows as a tensor, which may not be computed yet
(`aupipe.extract.encoders.image_base.TensorEncode`).
"""

from __future__ import annotations

from aupipe.config import EncoderConfig
from aupipe.encoder_kinds import ENCODERS
from aupipe.errors import UsageError
from aupipe.extract.contract import WeightFile, check_members
from aupipe.extract.encoders.base import (
    AlignRule,
    AudioInput,
    Encode,
    Encoder,
    FrameAlignment,
    Reads,
    ShapedEncode,
    TimeSeries,
    WordsInput,
    column_names_of,
    is_shareable,
    row_shape_of,
    rows_of,
    stored_dtype_of,
)
from aupipe.tables import build

__all__ = [
    "ENCODERS",
    "AlignRule",
    "AudioInput",
    "Encode",
    "Encoder",
    "FrameAlignment",
    "Reads",
    "ShapedEncode",
    "TimeSeries",
    "WeightFile",
    "WordsInput",
    "build_encoder",
    "column_names_of",
    "is_shareable",
    "row_shape_of",
    "rows_of",
    "stored_dtype_of",
]


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder an ``[[encoder]]`` table describes.

    Raises UsageError for an unknown kind, an unknown or missing parameter (with the nearest known one), a parameter of
    the wrong type, and a modality that is not the encoder's; and, naming its package, for a plug-in that cannot be
    built.
    """
    kind = ENCODERS.get(config.kind)
    with ENCODERS.plugin_errors(config.kind):
        if kind.modality != config.modality:
            raise UsageError(
                f"encoder {config.name!r}: {config.kind} is {kind.modality}, "
                f"the file says modality = {config.modality!r}"
            )
        encoder: Encoder = build(kind, config.params, f"encoder {config.name!r} ({config.kind})")
    check_members(encoder, ENCODERS.describe(config.kind), ("version", "reads", "identify_weights", "load"))
    return encoder
