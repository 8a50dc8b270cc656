"""ArcFace / CosFace identity embeddings (Deng et al., 2019): insightface's iResNet on the aligned face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aupipe.extract.encoders.image_base import HALF, CheckpointEncoder, Normal
from aupipe.extract.imaging.templates import CropTemplate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ArcFace(CheckpointEncoder):
    """112 px aligned face, RGB in [-1, 1]; ``tap``: ``"embedding"`` (B, 512) or ``"map7"`` (B, 512, 7, 7).

    ``normalise``: embeddings of unit length, as insightface's ``normed_embedding``; raw ones suit temporal models.
    """

    model: Literal["r50", "r100"] = "r100"
    weights: str = "glint360k_cosface_r100_fp16_0.1/backbone.pth"
    tap: Literal["embedding", "map7"] = "embedding"
    normalise: bool = False

    licence: ClassVar[str] = "non-commercial research (insightface)"

    @property
    def reads(self) -> CropTemplate:
        return CropTemplate(112)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (512,) if self.tap == "embedding" else (512, 7, 7)

    @property
    def network_name(self) -> str:
        return f"iresnet_{self.model}"

    @property
    def mean_std(self) -> Normal:
        return HALF

    def build(self, state: Mapping[str, Tensor]) -> Any:
        from aupipe.extract.nets.iresnet import iresnet50, iresnet100

        return iresnet50() if self.model == "r50" else iresnet100()

    def rows(self, network: Any, x: Tensor) -> Tensor:
        import torch.nn.functional as F

        if self.tap == "map7":
            return network.feature_map(x)
        return F.normalize(network(x)) if self.normalise else network(x)
