"""RegNetY-400MF (Radosavovic et al., 2020) of torchvision, as the ABAW3 AU baseline of Nguyen et al. feeds it."""

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
from aupipe.tables import Pixels
from aupipe.types import Modality, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RegNet:
    """``tap``: ``"pooled"`` (B, 440), or ``"map"`` (B, 440, 4, 4) at 112 px and (B, 440, 7, 7) at 224."""

    weights: str = "regnet_y_400mf-c65dace8.pth"
    tap: Literal["pooled", "map"] = "pooled"
    size_px: Pixels = 112
    crop: Crop = "aligned"
    precision: Precision = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, self.size_px)

    def identify_weights(self) -> Weights:
        return identify_weights(self.weights, "regnet_y_400mf", "BSD-3-Clause")

    def load(self, device: str) -> Encode:
        from torchvision.models import regnet_y_400mf  # type: ignore[import-untyped]

        network = seeded(lambda: regnet_y_400mf(weights=None))
        if self.weights != RANDOM:
            filled(network, *read_weights(self.weights))

        def forward(x: Tensor) -> Tensor:
            features = network.trunk_output(network.stem(x))
            return features if self.tap == "map" else features.mean(dim=(2, 3))

        return image_encoder(network, device, IMAGENET, forward, self.precision, self.reads.size_px)
