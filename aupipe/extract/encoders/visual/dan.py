"""DAN (Wen et al., 2023): expression features of four attention heads over a ResNet-18."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from aupipe.extract.encoders import Encode
from aupipe.extract.encoders.image_base import (
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


@dataclass(frozen=True)
class Dan:
    """224 px face, ImageNet mean and deviation.

    ``tap``: ``"fused"`` (B, 512), what the classifier sees: never above -5.5, so standardise it; ``"gap"`` (B, 512),
    the pooled backbone map; ``"heads"`` (B, 4, 512), raw, before the softmax over heads; ``"logits"`` (B, classes).
    """

    weights: str = "affecnet8_epoch5_acc0.6209.pth"
    tap: Literal["fused", "gap", "heads", "logits"] = "fused"
    crop: Crop = "aligned"
    precision: Precision = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, 224)

    def identify_weights(self) -> Weights:
        return identify_weights(self.weights, "dan_8", "MIT")

    def load(self, device: str) -> Encode:
        from aupipe.extract.nets.dan import DAN

        if self.weights == RANDOM:
            network = seeded(lambda: DAN(num_class=8))
        else:
            state, source = read_weights(self.weights)
            classes = len(state["fc.weight"]) if "fc.weight" in state else 8
            network = filled(DAN(num_class=classes), state, source)

        def forward(x: Tensor) -> Tensor:
            if self.tap == "gap":
                return network.features(x).mean(dim=(2, 3))
            if self.tap == "heads":
                return network.heads(network.features(x))
            logits, _, heads = network(x)
            return logits if self.tap == "logits" else heads.sum(dim=1)

        return image_encoder(network, device, IMAGENET, forward, self.precision, self.reads.size_px)
