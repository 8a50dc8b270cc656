"""ArcFace / CosFace identity embeddings (Deng et al., 2019): insightface's iResNet on the aligned face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from aupipe.extract.encoders import Encode
from aupipe.extract.encoders.image_base import (
    HALF,
    Precision,
    filled,
    identify_weights,
    image_encoder,
    read_weights,
    seeded,
)
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.weights import RANDOM
from aupipe.types import Modality, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ArcFace:
    """112 px aligned face, RGB in [-1, 1]; ``tap``: ``"embedding"`` (B, 512) or ``"map7"`` (B, 512, 7, 7).

    ``normalise``: embeddings of unit length, as insightface's ``normed_embedding``; raw ones suit temporal models.
    """

    model: Literal["r50", "r100"] = "r100"
    weights: str = "glint360k_cosface_r100_fp16_0.1/backbone.pth"
    tap: Literal["embedding", "map7"] = "embedding"
    normalise: bool = False
    precision: Precision = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return CropTemplate(112)

    def identify_weights(self) -> Weights:
        return identify_weights(self.weights, f"iresnet_{self.model}", "non-commercial research (insightface)")

    def load(self, device: str) -> Encode:
        import torch.nn.functional as F

        from aupipe.extract.nets.iresnet import iresnet50, iresnet100

        network = seeded(iresnet50 if self.model == "r50" else iresnet100)
        if self.weights != RANDOM:
            filled(network, *read_weights(self.weights))

        def forward(x: Tensor) -> Tensor:
            if self.tap == "map7":
                return network.feature_map(x)
            rows = network(x)
            return F.normalize(rows) if self.normalise else rows

        return image_encoder(network, device, HALF, forward, self.precision, self.reads.size_px)
