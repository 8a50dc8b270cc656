"""Any vision model of Hugging Face transformers on the face, from a local folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from aupipe.errors import WeightsMissingError
from aupipe.extract.contract import WeightFile
from aupipe.extract.encoders.image_base import Crop, ImageEncoder, Normal, seeded, template
from aupipe.extract.encoders.pretrained import settings
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.weights import RefusedWeightsError, file_sha256, is_random, random_weights, weights_folder
from aupipe.tables import Range
from aupipe.types import Weights

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class Transformers(ImageEncoder):
    """A folder with ``config.json`` and ``model.safetensors``, absolute or in AUPIPE_WEIGHTS.

    ``tap``: ``"cls"``, the first token; ``"mean"``, the mean of the tokens after it (of all where there is no class
    token); ``"tokens"``, all of them; ``"pooled"``, the model's own pooler. ``size_px``, ``mean`` and ``std`` are taken
    from ``preprocessor_config.json`` where they are left at 0 and empty, else the size
    from ``config.json``; at last 224 and 0.5. ``weights = "random"`` needs
    ``config.json`` alone.
    """

    model: WeightFile
    weights: Literal["folder", "random"] = "folder"
    tap: Literal["cls", "mean", "tokens", "pooled"] = "mean"
    size_px: Annotated[int, Range(0, 8192)] = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop: Crop = "aligned"

    requires: ClassVar[tuple[str, ...]] = ("transformers", *ImageEncoder.requires)

    @property
    def reads(self) -> CropTemplate:
        return template(self.crop, self._size_px())

    def identify_weights(self) -> Weights:
        """The digest covers the weights, the architecture and the preprocessing the folder states."""
        folder = self._folder()
        if is_random(self.weights):
            return random_weights(f"{folder.name}:{file_sha256(folder / 'config.json')}", self.weights)
        names = [name for name in WEIGHT_FILES if (folder / name).is_file()][:1]
        if not names:
            raise WeightsMissingError(f"{folder} holds no weights: expected {WEIGHT_FILES[0]}")
        names += sorted(path.name for path in folder.glob("model-*.safetensors") if names[0].endswith("index.json"))
        names += [name for name in ("config.json", "preprocessor_config.json") if (folder / name).is_file()]
        digest = hashlib.sha256("".join(file_sha256(folder / name) for name in names).encode()).hexdigest()
        return Weights(folder.name, digest)

    def rows(self, network: Any, x: Tensor) -> Tensor:
        found = network(pixel_values=x)
        if self.tap == "pooled":
            return found.pooler_output.flatten(1)
        tokens = found.last_hidden_state
        if tokens.ndim == 4:  # convolutional models give maps: (B, D, h, w) -> (B, h * w, D)
            tokens = tokens.flatten(2).transpose(1, 2)
        if self.tap == "cls":
            return tokens[:, 0]
        return tokens if self.tap == "tokens" else tokens[:, _prefix_tokens(network) :].mean(dim=1)

    def _folder(self) -> Path:
        path = Path(self.model).expanduser()
        root = weights_folder()
        if not path.is_absolute() and root is not None:
            path = root / path
        if not path.is_absolute() or not (path / "config.json").is_file():
            raise WeightsMissingError(
                f"no transformers model at {path}: get it with `hf download {self.model} --local-dir FOLDER` and name "
                "the folder, absolute or below AUPIPE_WEIGHTS"
            )
        return path

    def _stated(self, name: str) -> dict[str, Any]:
        return settings(self._folder(), name)

    def _size_px(self) -> int:
        if self.size_px:
            return self.size_px
        preprocessing, config = self._stated("preprocessor_config.json"), self._stated("config.json")
        stated = preprocessing.get("crop_size") or preprocessing.get("size")
        stated = stated or config.get("image_size") or config.get("vision_config", {}).get("image_size")
        if isinstance(stated, dict):
            stated = stated.get("height") or stated.get("shortest_edge")
        return int(stated or 224)

    @property
    def mean_std(self) -> Normal:
        stated = self._stated("preprocessor_config.json")
        mean = self.mean or tuple(stated.get("image_mean", ())) or (0.5,) * 3
        std = self.std or tuple(stated.get("image_std", ())) or (0.5,) * 3
        return mean, std

    def network(self) -> Any:
        from transformers import AutoConfig, AutoModel

        folder = self._folder()
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.model_type == "vit_mae":
            # ViTMAEModel masks three quarters of the patches at random, in eval mode too.
            raise RefusedWeightsError(f"{folder} is a ViTMAE: use kind 'mae' with the checkpoint it was made from")
        if is_random(self.weights):
            network = seeded(lambda: AutoModel.from_config(config), self.weights)
        else:
            network = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return getattr(network, "vision_model", network)  # of CLIP and its kin, the half that sees


def _prefix_tokens(network: Any) -> int:
    """How many tokens stand before the patches: class, distillation and register tokens."""
    embeddings = getattr(network, "embeddings", None)
    single = sum(hasattr(embeddings, name) for name in ("cls_token", "class_embedding", "distillation_token"))
    return single + int(getattr(network.config, "num_register_tokens", 0) or 0)
