"""RegNetY-400MF (Radosavovic et al., 2020) of torchvision, as the ABAW3 AU baseline of Nguyen et al. feeds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aupipe.extract.encoders.image_base import CheckpointEncoder, Crop, template
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.tables import Pixels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RegNet(CheckpointEncoder):
    """``tap``: ``"pooled"`` (B, 440), or ``"map"`` (B, 440, 4, 4) at 112 px and (B, 440, 7, 7) at 224.

    ``"block1"`` (B, 48, 28, 28) at 112 px is what a head reads that trains the blocks after it (docs/training.md).
    """

    weights: str = "regnet_y_400mf-c65dace8.pth"
    tap: Literal["pooled", "map", "block1"] = "pooled"
    size_px: Pixels = 112
    crop: Crop = "aligned"

    licence: ClassVar[str] = "BSD-3-Clause"
    requires: ClassVar[tuple[str, ...]] = ("torchvision", *CheckpointEncoder.requires)

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, self.size_px)

    @property
    def row_shape(self) -> tuple[int, ...]:
        side, early = -(-self.size_px // 32), -(-self.size_px // 4)  # five strides of two; two
        return {"pooled": (440,), "map": (440, side, side), "block1": (48, early, early)}[self.tap]

    @property
    def network_name(self) -> str:
        return "regnet_y_400mf"

    def build(self, state: Mapping[str, Tensor]) -> Any:
        from torchvision.models import regnet_y_400mf  # type: ignore[import-untyped]

        return regnet_y_400mf(weights=None)

    def rows(self, network: Any, x: Tensor) -> Tensor:
        if self.tap == "block1":
            return network.trunk_output.block1(network.stem(x))
        features = network.trunk_output(network.stem(x))
        return features if self.tap == "map" else features.mean(dim=(2, 3))
