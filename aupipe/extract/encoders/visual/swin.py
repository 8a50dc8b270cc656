"""Swin-T (Liu et al., 2021), Microsoft's checkpoint, fed as the ABAW5 code of the USC team feeds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aupipe.extract.encoders import Encode
from aupipe.extract.encoders.image_base import (
    HALF,
    IMAGENET,
    Crop,
    Precision,
    filled,
    identify_weights,
    image_encoder,
    read_weights,
    seeded,
    template,
)
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.weights import RANDOM
from aupipe.types import Modality, Weights

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "swin_tiny_patch4_window7_224"
EDGE = (256 - 224) // 2  # cut from each side of the 256 px crop


@dataclass(frozen=True)
class Swin:
    """256 px crop of which the middle 224 are used; ``normal``: ``"half"`` to [-1, 1] as that team, or ``"imagenet"``.

    ``tap``: ``"pooled"`` (B, 768), the mean of the tokens after the last norm, or ``"tokens"`` (B, 49, 768) by row.
    """

    weights: str = "swin_tiny_patch4_window7_224.pth"
    tap: Literal["pooled", "tokens"] = "pooled"
    normal: Literal["half", "imagenet"] = "half"
    crop: Crop = "aligned"
    precision: Precision = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, 256)

    def identify_weights(self) -> Weights:
        return identify_weights(self.weights, MODEL, "MIT")

    def load(self, device: str) -> Encode:
        network = self._network()

        def forward(x: Tensor) -> Tensor:
            x = x[:, :, EDGE:-EDGE, EDGE:-EDGE]
            tokens = network.forward_features(x).flatten(1, 2)  # (B, 7, 7, 768) -> (B, 49, 768)
            return tokens if self.tap == "tokens" else tokens.mean(dim=1)

        return image_encoder(
            network, device, HALF if self.normal == "half" else IMAGENET, forward, self.precision, self.reads.size_px
        )

    def _network(self) -> Any:
        import timm
        from timm.models.swin_transformer import checkpoint_filter_fn

        network = seeded(lambda: timm.create_model(MODEL, num_classes=0))
        if self.weights == RANDOM:
            return network
        state, source = read_weights(self.weights)
        # timm's own map from Microsoft's names: patch merging moves to the following stage, index buffers go.
        state = checkpoint_filter_fn(state, network)
        return filled(network, {key: v for key, v in state.items() if not key.startswith("head.")}, source)
