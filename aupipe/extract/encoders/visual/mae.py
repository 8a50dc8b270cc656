"""MAE (He et al., 2022): a ViT trained to fill in masked patches, on the face; no patch is masked here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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

MODELS = {"base": "vit_base_patch16_224", "large": "vit_large_patch16_224", "huge": "vit_huge_patch14_224"}
DECODER = ("decoder", "mask_token")  # what pretraining alone needs


@dataclass(frozen=True)
class Mae:
    """(B, 768) for base, 1024 for large, 1280 for huge; 224 px, ImageNet mean and deviation.

    ``tap``: ``"cls"``, the class token after the last norm; ``"mean"``, the mean of the patch tokens after it;
    ``"fc_norm"``, the fine-tuning code's pooling: mean of the patch tokens before any norm, then a norm that only
    fine-tuned checkpoints have. ``"tokens"``: every patch token after the norm, (B, 196, 768) for base.
    """

    model: Literal["base", "large", "huge"] = "base"
    weights: str = "mae_pretrain_vit_base.pth"
    tap: Literal["cls", "mean", "fc_norm", "tokens"] = "cls"
    crop: Crop = "box"
    precision: Precision = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, 224)

    def identify_weights(self) -> Weights:
        return identify_weights(self.weights, f"mae_{self.model}", "CC BY-NC 4.0")

    def load(self, device: str) -> Encode:
        network = self._network()

        def forward(x: Tensor) -> Tensor:
            tokens = network.forward_features(x)  # (B, 1 + patches, D)
            if self.tap == "fc_norm":
                return network.fc_norm(tokens[:, 1:].mean(dim=1))
            if self.tap == "tokens":
                return tokens[:, 1:]
            return tokens[:, 0] if self.tap == "cls" else tokens[:, 1:].mean(dim=1)

        return image_encoder(network, device, IMAGENET, forward, self.precision, self.reads.size_px)

    def _network(self) -> Any:
        import timm

        def build(weight_init: str = "") -> Any:
            # With average pooling timm moves the last norm behind the pooling, as fine-tuned checkpoints have it.
            pool = "avg" if self.tap == "fc_norm" else "token"
            return timm.create_model(MODELS[self.model], num_classes=0, global_pool=pool, weight_init=weight_init)

        if self.weights == RANDOM:
            return seeded(build)
        state, source = read_weights(self.weights)
        state = {key: value for key, value in state.items() if not key.startswith((*DECODER, "head."))}
        # timm's own initialisation takes seconds, and the file overwrites every number.
        return filled(build("skip"), state, source)
