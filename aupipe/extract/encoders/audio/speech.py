"""Any wav2vec2-like speech model of `transformers` (HuBERT, wav2vec2, WavLM, audeering's), and Whisper's encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from aupipe.errors import UsageError
from aupipe.extract.contract import WeightFile
from aupipe.extract.encoders.base import AudioInput, Encode, FrameAlignment
from aupipe.extract.encoders.pretrained import find_model, identify_model, load_model, settings
from aupipe.tables import NotNegative, Positive, Range
from aupipe.types import Modality, Weights

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Speech(FrameAlignment):
    """Hidden states of a speech model: (n, D), a row every 20 ms.

    ``model``: a name in the hub's local cache, or a folder (absolute, or in AUPIPE_WEIGHTS). Nothing is fetched.
    ``weights``: ``"pretrained"``, or ``"random"``, seeded numbers for the folder's config.json, for tests; without the
    folder a model that a recipe names has a stand-in (`aupipe.extract.encoders.stand_ins`).
    ``tap``: ``last_hidden``, the model's output; ``extract_features``, the 512 convolutional features after the layer
    norm that follows them, before any attention; ``layer``, the output of block number ``layer`` before any final norm
    (0: what goes into the first block); ``mean``, the mean over all blocks.
    ``normalize``: whether sound is brought to mean 0 and variance 1 over the whole clip first. ``"checkpoint"`` obeys
    preprocessor_config.json, and does so where the file is missing.
    ``chunk_s``, ``context_s``: sound longer than a chunk is computed in overlapping chunks, of which the middles are
    kept. Clip-wide statistics are those of the whole clip, so ``extract_features`` does not depend on chunks at all;
    attention sees a chunk and no more. Whisper's chunks are always what the model was built for, 30 s.

    Row i of the convolutional models covers samples 320 i to 320 i + 400: its time is 0.0125 + 0.02 i s. Row i of
    Whisper is centred on 0.02 i s.
    """

    model: WeightFile
    weights: Literal["pretrained", "random"] = "pretrained"
    tap: Literal["last_hidden", "extract_features", "layer", "mean"] = "last_hidden"
    layer: Annotated[int, Range(-1, 1000)] = -1
    normalize: Literal["checkpoint", "yes", "no"] = "checkpoint"
    chunk_s: Positive = 30.0
    context_s: NotNegative = 3.0
    precision: Literal["float32", "float16", "bfloat16"] = "float32"

    modality: ClassVar[Modality] = "audio"
    requires: ClassVar[tuple[str, ...]] = ("transformers",)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tap == "layer") != (self.layer >= 0):
            raise ValueError(f"layer = {self.layer}: tap = 'layer' needs one from 0, other taps none")
        if self.context_s < 0 or self.chunk_s <= 2 * self.context_s:
            raise ValueError(f"chunk_s = {self.chunk_s} must be longer than two context_s = {self.context_s}")

    @property
    def reads(self) -> AudioInput:
        return AudioInput(SAMPLE_RATE)

    @property
    def reach_s(self) -> float:
        return super().reach_s + self.chunk_s

    def identify_weights(self) -> Weights:
        return identify_model(self.model, self.weights)

    def load(self, device: str) -> Encode:
        import torch
        from transformers import AutoModel

        folder = find_model(self.model, self.weights)
        rate = settings(folder, "preprocessor_config.json").get("sampling_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise UsageError(f"{self.model}: wants sound at {rate} Hz; only {SAMPLE_RATE} Hz models are supported")
        network = load_model(AutoModel, self.model, self.weights)
        dtype = getattr(torch, self.precision)
        if network.config.model_type == "whisper":
            from aupipe.extract.encoders.audio.speech_whisper import whisper_encoder

            return whisper_encoder(self, network, device, dtype)
        if not hasattr(network, "feature_extractor") or not hasattr(network, "feature_projection"):
            raise UsageError(
                f"{self.model} is {network.config.model_type}: not a wav2vec2-like speech model, not Whisper"
            )
        from aupipe.extract.encoders.audio.speech_conv import conv_encoder

        return conv_encoder(self, network, device, dtype)

    def normalizes(self) -> bool:
        """Whether sound is standardised over the clip."""
        if self.normalize != "checkpoint":
            return self.normalize == "yes"
        return bool(
            settings(find_model(self.model, self.weights), "preprocessor_config.json").get("do_normalize", True)
        )
