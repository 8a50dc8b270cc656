"""DAN (Wen et al., 2023): expression features of four attention heads over a ResNet-18."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aupipe.extract.encoders.image_base import CheckpointEncoder, Crop, template
from aupipe.extract.imaging.templates import CropTemplate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Dan(CheckpointEncoder):
    """224 px face, ImageNet mean and deviation.

    ``tap``: ``"fused"`` (B, 512), what the classifier sees: never above -5.5, so standardise it; ``"gap"`` (B, 512),
    the pooled backbone map; ``"heads"`` (B, 4, 512), raw, before the softmax over heads; ``"logits"`` (B, classes).
    """

    weights: str = "affecnet8_epoch5_acc0.6209.pth"
    tap: Literal["fused", "gap", "heads", "logits"] = "fused"
    crop: Crop = "aligned"

    licence: ClassVar[str] = "MIT"

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, 224)

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        return {"fused": (512,), "gap": (512,), "heads": (4, 512)}.get(self.tap)

    @property
    def network_name(self) -> str:
        return "dan_8"

    def build(self, state: Mapping[str, Tensor]) -> Any:
        from aupipe.extract.nets.dan import DAN

        return DAN(num_class=len(state["fc.weight"]) if "fc.weight" in state else 8)

    def rows(self, network: Any, x: Tensor) -> Tensor:
        if self.tap == "gap":
            return network.features(x).mean(dim=(2, 3))
        if self.tap == "heads":
            return network.heads(network.features(x))
        logits, _, heads = network(x)
        return logits if self.tap == "logits" else heads.sum(dim=1)
