"""Any timm backbone on the aligned face."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract import user_cache
from aupipe.extract.encoders.image_base import ImageEncoder, Normal, seeded
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.weights import file_sha256, find_weights, identify, is_random, random_weights
from aupipe.registry import nearest
from aupipe.tables import Range, build
from aupipe.types import Weights

if TYPE_CHECKING:
    from torch import Tensor

FILE = "timm_models.json"


@dataclass(frozen=True, kw_only=True)
class Timm(ImageEncoder):
    """A timm model by name, without its classifier.

    ``weights``: ``"hub"`` (the local cache of the Hugging Face hub; nothing is fetched during extraction), a file
    (absolute, or in AUPIPE_WEIGHTS; safetensors or a plain state dict), or ``"random"`` for tests and benchmarks.
    ``output``: ``"pooled"`` (B, D), or ``"features"``, what timm's ``forward_features`` gives.
    ``size_px``: side of the aligned crop; 0 takes the size the model was trained at.
    """

    model: str
    weights: str = "hub"
    output: Literal["pooled", "features"] = "pooled"
    size_px: Annotated[int, Range(0, 8192)] = 0

    requires: ClassVar[tuple[str, ...]] = ("timm", *ImageEncoder.requires)

    @property
    def reads(self) -> CropTemplate:
        return CropTemplate(self.size_px or published(self.model).size_px)

    def identify_weights(self) -> Weights:
        if is_random(self.weights):
            return random_weights(self.model, self.weights)
        licence = published(self.model).licence
        if self.weights != "hub":
            return replace(identify(self.weights), licence=licence)
        path = self._file()
        return Weights(path.name, file_sha256(path), licence)

    def _file(self) -> Path:
        if self.weights != "hub":
            return find_weights(self.weights)
        from huggingface_hub import try_to_load_from_cache

        known = published(self.model)
        if not known.repository:
            raise WeightsMissingError(f"timm model {self.model!r} has no published weights; name a file in weights")
        cached = try_to_load_from_cache(known.repository, known.filename)
        if not isinstance(cached, str):
            raise WeightsMissingError(
                f"weights of timm model {self.model!r} are not on this machine: get {known.filename} with "
                f"`hf download {known.repository} {known.filename}`, or set weights to a file in AUPIPE_WEIGHTS"
            )
        return Path(cached)

    @property
    def mean_std(self) -> Normal:
        known = published(self.model)
        return known.mean, known.std

    def rows(self, network: Any, x: Tensor) -> Tensor:
        return network(x) if self.output == "pooled" else network.forward_features(x)

    def network(self) -> Any:
        import timm

        options: dict[str, Any] = {"num_classes": 0}
        if self.size_px and published(self.model).fixed_size:  # transformers are built for one size
            options["img_size"] = self.size_px
        if is_random(self.weights):
            return seeded(lambda: timm.create_model(self.model, pretrained=False, **options), self.weights)
        path = self._file()
        try:
            return timm.create_model(
                self.model, pretrained=True, pretrained_cfg_overlay={"file": str(path), "hf_hub_id": None}, **options
            )
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            if "weights_only" in reason:  # torch's own advice is to trust the file
                reason = "torch cannot read it; `aupipe weights import` says why"
            raise WeightsMissingError(
                f"{path} does not hold the weights of timm model {self.model!r}: {reason}"
            ) from error


@dataclass(frozen=True)
class Published:
    """What timm knows of a model: the square pictures it was trained on, and where its weights lie on the hub."""

    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed_size: bool = False
    licence: str = "unknown"
    repository: str = ""
    filename: str = "model.safetensors"


@lru_cache
def published(model: str) -> Published:
    """Of a model by name. It is remembered, because timm and torch take seconds to import and a plan needs this alone.

    Raises UsageError for a model, or a tag of one, that timm does not have.
    """
    key = f"{model} of timm {version('timm')}"
    if isinstance(kept := user_cache.get(FILE, key), dict):
        with suppress(UsageError):  # damaged: it is found out again
            return build(Published, kept, FILE)
    found = _ask_timm(model)
    user_cache.put(FILE, key, asdict(found))
    return found


def _ask_timm(model: str) -> Published:
    import timm

    architecture = model.partition(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(f"timm has no model {model!r}.{nearest(architecture, timm.list_models())}")
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    if config is None:
        raise UsageError(f"timm has no weights named {model!r}; known: {', '.join(timm.list_pretrained(architecture))}")
    return Published(
        config.input_size[-1],
        tuple(config.mean),
        tuple(config.std),
        bool(config.fixed_input_size),
        config.license or "unknown",
        config.hf_hub_id or "",
        config.hf_hub_filename or "model.safetensors",
    )
