"""HSEmotion / EmotiEffLib (Savchenko, 2021-2024): EfficientNets trained on faces and expressions."""

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

SIZE_PX = {"b0": 224, "b2": 260}


@dataclass(frozen=True)
class HsEmotion:
    """``tap``: ``"features"`` (B, 1280) for b0, (B, 1408) for b2; ``"logits"`` (B, 7, 8 or 10).

    Classes are alphabetical, Anger to Surprise; those of ``_mtl`` files end in valence and arousal. The published files
    are whole pickled modules; they are read without running anything.
    """

    model: Literal["b0", "b2"] = "b2"
    weights: str = "enet_b2_8.pt"
    tap: Literal["features", "logits"] = "features"
    crop: Crop = "box"
    precision: Precision = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, SIZE_PX[self.model])

    def identify_weights(self) -> Weights:
        return identify_weights(self.weights, f"hsemotion_{self.model}", "Apache-2.0")

    def load(self, device: str) -> Encode:
        network = self._network()

        def forward(x: Tensor) -> Tensor:
            pooled = network.forward_head(network.forward_features(x), pre_logits=True)
            return pooled if self.tap == "features" else network.classifier(pooled)

        return image_encoder(network, device, IMAGENET, forward, self.precision, self.reads.size_px)

    def _network(self) -> Any:
        import timm

        name = f"tf_efficientnet_{self.model}"
        if self.weights == RANDOM:
            return seeded(lambda: timm.create_model(name, num_classes=8))
        state, source = read_weights(self.weights)
        # Emotion models are saved with a classifier of one layer inside a Sequential.
        state = {key.replace("classifier.0.", "classifier."): value for key, value in state.items()}
        classes = len(state["classifier.weight"]) if "classifier.weight" in state else 0
        return filled(timm.create_model(name, num_classes=classes), state, source)
