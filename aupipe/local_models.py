"""Where models lie on this machine: the folder of weights, and the local cache of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from aupipe.errors import WeightsMissingError

VARIABLE = "AUPIPE_WEIGHTS"
_configured = [""]  # what `configure_weights` has set the variable to


@dataclass(frozen=True)
class WeightsConfig:
    """Weights of encoders and detectors. AUPIPE_WEIGHTS in the environment goes before."""

    path: Path | None = None


def weights_folder() -> Path | None:
    """The folder named by AUPIPE_WEIGHTS, or None."""
    value = os.environ.get(VARIABLE)
    return Path(value).expanduser() if value else None


def configure_weights(config: WeightsConfig) -> None:
    """Make the configured folder that of this process and its children, unless the environment names another one."""
    if os.environ.get(VARIABLE, "") not in ("", _configured[0]):
        return
    _configured[0] = str(config.path or "")
    if _configured[0]:
        os.environ[VARIABLE] = _configured[0]
    else:
        os.environ.pop(VARIABLE, None)


def imported_name(source: Path) -> str:
    """The name a pickle is imported under; ``backbone.pth`` says nothing without its folder."""
    stem = f"{source.parent.name}-{source.stem}" if source.stem in ("backbone", "model") else source.stem
    return f"{stem}.safetensors"


def model_folder(model: str) -> Path:
    """The folder of a model: a path, a folder in AUPIPE_WEIGHTS, or the hub's snapshot in the local cache.

    Raises WeightsMissingError with the command that gets it.
    """
    path = Path(model).expanduser()
    if path.is_absolute():
        candidates = [path]
    else:
        folder = weights_folder()
        candidates = [folder / path, folder / path.name] if folder else []
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    if not path.is_absolute() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached).parent
    raise WeightsMissingError(
        f"model {model!r} is not on this machine: `hf download {model}` puts it into the hub's cache, "
        "or name a folder (absolute, or in AUPIPE_WEIGHTS) that holds its config.json and weights"
        if not path.is_absolute()
        else f"{model}: no model folder with a config.json there"
    )
