"""MAE (He et al., 2022): a ViT trained to fill in masked patches, on the face; no patch is masked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aupipe.extract.encoders.image_base import CheckpointEncoder, Crop, template
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.weights import RefusedWeightsError

if TYPE_CHECKING:
    from torch import Tensor

MODELS = {"base": "vit_base_patch16_224", "large": "vit_large_patch16_224", "huge": "vit_huge_patch14_224"}
PATCHES = {"base": 196, "large": 196, "huge": 256}
WIDTH = {"base": 768, "large": 1024, "huge": 1280}
DECODER = ("decoder", "mask_token")  # what pretraining alone needs


@dataclass(frozen=True, kw_only=True)
class Mae(CheckpointEncoder):
    """(B, 768) for base, 1024 for large, 1280 for huge; 224 px, ImageNet mean and deviation.

    ``tap``: ``"cls"``, the class token after the last norm; ``"mean"``, the mean of the patch tokens after it;
    ``"fc_norm"``, the fine-tuning code's pooling: mean of the patch tokens before any norm, then a norm that only
    fine-tuned checkpoints have. ``"tokens"``: every patch token after the norm, (B, 196, 768) for base.
    """

    model: Literal["base", "large", "huge"] = "base"
    weights: str = "mae_pretrain_vit_base.pth"
    tap: Literal["cls", "mean", "fc_norm", "tokens"] = "cls"
    crop: Crop = "box"

    licence: ClassVar[str] = "CC BY-NC 4.0"
    requires: ClassVar[tuple[str, ...]] = ("timm", *CheckpointEncoder.requires)

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, 224)

    @property
    def row_shape(self) -> tuple[int, ...]:
        width = WIDTH[self.model]
        return (PATCHES[self.model], width) if self.tap == "tokens" else (width,)

    @property
    def network_name(self) -> str:
        return f"mae_{self.model}"

    def build(self, state: Mapping[str, Tensor]) -> Any:
        import timm

        # With average pooling timm moves the last norm behind the pooling, as fine-tuned checkpoints have it.
        pool = "avg" if self.tap == "fc_norm" else "token"
        # timm's own initialisation takes seconds, and a file overwrites every number.
        start = "skip" if state else ""
        return timm.create_model(MODELS[self.model], num_classes=0, global_pool=pool, weight_init=start)

    def adapt(self, network: Any, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Raises RefusedWeightsError where the tap is not one of this checkpoint, with those that are."""
        fine_tuned = "fc_norm.weight" in state
        if fine_tuned != (self.tap == "fc_norm"):
            what, taps = (
                ("was fine-tuned", "'fc_norm'") if fine_tuned else ("has no fc_norm", "'cls', 'mean' or 'tokens'")
            )
            raise RefusedWeightsError(f"{self.weights} {what}, and tap is {self.tap!r}: set tap = {taps}")
        return {key: value for key, value in state.items() if not key.startswith((*DECODER, "head."))}

    def rows(self, network: Any, x: Tensor) -> Tensor:
        tokens = network.forward_features(x)  # (B, 1 + patches, D)
        if self.tap == "fc_norm":
            return network.fc_norm(tokens[:, 1:].mean(dim=1))
        if self.tap == "tokens":
            return tokens[:, 1:]
        return tokens[:, 0] if self.tap == "cls" else tokens[:, 1:].mean(dim=1)
