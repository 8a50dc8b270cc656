"""Swin-T (Liu et al., 2021), Microsoft's checkpoint, fed as the ABAW5 code of the USC team feeds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aupipe.extract.encoders.image_base import HALF, IMAGENET, CheckpointEncoder, Crop, Normal, template
from aupipe.extract.imaging.templates import CropTemplate

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "swin_tiny_patch4_window7_224"
EDGE = (256 - 224) // 2  # cut from each side of the 256 px crop


@dataclass(frozen=True, kw_only=True)
class Swin(CheckpointEncoder):
    """256 px crop of which the middle 224 are used; ``normal``: ``"half"`` to [-1, 1] as that team, or ``"imagenet"``.

    ``tap``: ``"pooled"`` (B, 768), the mean of the tokens after the last norm, or ``"tokens"`` (B, 49, 768) by row.
    """

    weights: str = "swin_tiny_patch4_window7_224.pth"
    tap: Literal["pooled", "tokens"] = "pooled"
    normal: Literal["half", "imagenet"] = "half"
    crop: Crop = "aligned"

    licence: ClassVar[str] = "MIT"
    requires: ClassVar[tuple[str, ...]] = ("timm", *CheckpointEncoder.requires)

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, 256)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (768,) if self.tap == "pooled" else (49, 768)

    @property
    def network_name(self) -> str:
        return MODEL

    @property
    def mean_std(self) -> Normal:
        return HALF if self.normal == "half" else IMAGENET

    def build(self, state: Mapping[str, Tensor]) -> Any:
        import timm

        return timm.create_model(MODEL, num_classes=0)

    def adapt(self, network: Any, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        from timm.models.swin_transformer import checkpoint_filter_fn

        # timm's own map from Microsoft's names: patch merging moves to the following stage, index buffers go.
        state = checkpoint_filter_fn(dict(state), network)
        return {key: value for key, value in state.items() if not key.startswith("head.")}

    def rows(self, network: Any, x: Tensor) -> Tensor:
        x = x[:, :, EDGE:-EDGE, EDGE:-EDGE]
        tokens = network.forward_features(x).flatten(1, 2)  # (B, 7, 7, 768) -> (B, 49, 768)
        return tokens if self.tap == "tokens" else tokens.mean(dim=1)
