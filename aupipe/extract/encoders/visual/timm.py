"""Any timm backbone on the aligned face."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.encoders import Encode
from aupipe.extract.faces.align import CropTemplate
from aupipe.extract.weights import file_sha256, find_weights
from aupipe.types import Modality, Weights

RANDOM_SEED = 0


@dataclass(frozen=True)
class Timm:
    """A timm model by name, without its classifier.

    ``weights``: ``"hub"`` (the local cache of the Hugging Face hub; nothing is fetched during extraction), a file
    (absolute, or in AUPIPE_WEIGHTS; safetensors or a plain state dict), or ``"random"`` for tests and benchmarks.
    ``output``: ``"pooled"`` (B, D), or ``"features"``, what timm's ``forward_features`` gives.
    ``size_px``: side of the aligned crop; 0 takes the size the model was trained at.
    """

    model: str
    weights: str = "hub"
    output: Literal["pooled", "features"] = "pooled"
    size_px: int = 0
    precision: Literal["float32", "float16", "bfloat16"] = "float32"

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    @property
    def reads(self) -> CropTemplate:
        return CropTemplate(self.size_px or _pretrained_config(self.model).input_size[-1])

    def identify_weights(self) -> Weights:
        if self.weights == "random":
            name = f"random:{RANDOM_SEED}:{self.model}"
            return Weights(name, hashlib.sha256(name.encode()).hexdigest(), "none: random numbers")
        path = self._file()
        licence = getattr(_pretrained_config(self.model), "license", None) or "unknown"
        return Weights(path.name, file_sha256(path), licence)

    def _file(self) -> Path:
        if self.weights != "hub":
            return find_weights(self.weights)
        from huggingface_hub import try_to_load_from_cache

        config = _pretrained_config(self.model)
        repository = config.hf_hub_id
        if not repository:
            raise WeightsMissingError(f"timm model {self.model!r} has no published weights; name a file in weights")
        filename = config.hf_hub_filename or "model.safetensors"
        cached = try_to_load_from_cache(repository, filename)
        if not isinstance(cached, str):
            raise WeightsMissingError(
                f"weights of timm model {self.model!r} are not on this machine: get {filename} with "
                f"`hf download {repository} {filename}`, or set weights to a file in AUPIPE_WEIGHTS"
            )
        return Path(cached)

    def load(self, device: str) -> Encode:
        import torch

        dtype = getattr(torch, self.precision)
        network = self._network().eval().to(device=device, dtype=dtype)
        config = _pretrained_config(self.model)
        mean = torch.tensor(config.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(config.std, device=device).view(1, 3, 1, 1)
        forward = network if self.output == "pooled" else network.forward_features

        def encode(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.inference_mode():
                pixels = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S)
                pixels = ((pixels.float() / 255 - mean) / std).to(dtype)
                return forward(pixels).float().cpu().numpy()

        return encode

    def _network(self) -> Any:
        import timm
        import torch

        options: dict[str, Any] = {"num_classes": 0}
        if self.size_px and _pretrained_config(self.model).fixed_input_size:  # transformers are built for one size
            options["img_size"] = self.size_px
        if self.weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(RANDOM_SEED)
                return timm.create_model(self.model, pretrained=False, **options)
        path = self._file()
        try:
            return timm.create_model(
                self.model, pretrained=True, pretrained_cfg_overlay={"file": str(path), "hf_hub_id": None}, **options
            )
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsMissingError(
                f"{path} does not hold the weights of timm model {self.model!r}: {reason}"
            ) from error


def _pretrained_config(model: str) -> Any:
    import timm

    architecture = model.partition(".")[0]
    if not timm.is_model(architecture):
        from aupipe.registry import nearest

        raise UsageError(f"timm has no model {model!r}.{nearest(architecture, timm.list_models())}")
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    if config is None:
        raise UsageError(f"timm has no weights named {model!r}; known: {', '.join(timm.list_pretrained(architecture))}")
    return config
