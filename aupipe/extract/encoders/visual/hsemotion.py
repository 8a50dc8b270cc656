"""HSEmotion / EmotiEffLib (Savchenko, 2021-2024): EfficientNets trained on faces and expressions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aupipe.extract.encoders.image_base import CheckpointEncoder, Crop, template
from aupipe.extract.imaging.templates import CropTemplate

if TYPE_CHECKING:
    from torch import Tensor

SIZE_PX = {"b0": 224, "b2": 260}
WIDTH = {"b0": 1280, "b2": 1408}


@dataclass(frozen=True, kw_only=True)
class HsEmotion(CheckpointEncoder):
    """``tap``: ``"features"`` (B, 1280) for b0, (B, 1408) for b2; ``"logits"`` (B, 7, 8 or 10).

    Classes are alphabetical, Anger to Surprise; those of ``_mtl`` files end in valence and arousal. The published files
    are whole pickled modules; they are read without running anything.
    """

    model: Literal["b0", "b2"] = "b2"
    weights: str = "enet_b2_8.pt"
    tap: Literal["features", "logits"] = "features"
    crop: Crop = "box"

    licence: ClassVar[str] = "Apache-2.0"
    requires: ClassVar[tuple[str, ...]] = ("timm", *CheckpointEncoder.requires)

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, SIZE_PX[self.model])

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        return (WIDTH[self.model],) if self.tap == "features" else None

    @property
    def network_name(self) -> str:
        return f"hsemotion_{self.model}"

    def build(self, state: Mapping[str, Tensor]) -> Any:
        import timm

        # Emotion models are saved with a classifier of one layer inside a Sequential.
        head = state.get("classifier.0.weight", state.get("classifier.weight", ()))
        return timm.create_model(f"tf_efficientnet_{self.model}", num_classes=len(head) if state else 8)

    def adapt(self, network: Any, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {key.replace("classifier.0.", "classifier."): value for key, value in state.items()}

    def rows(self, network: Any, x: Tensor) -> Tensor:
        pooled = network.forward_head(network.forward_features(x), pre_logits=True)
        return pooled if self.tap == "features" else network.classifier(pooled)
