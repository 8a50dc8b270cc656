"""aupipe: offline audio-visual features for facial behaviour, kept in a store, and heads trained on them.

`open_store`, `load_project`, `load_run`, `extract` and `train` are imported when they are first used, so that
``import aupipe`` loads neither numpy nor torch. They are documented in `aupipe.project` and
`aupipe.commands`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aupipe.types import (
    FaceTrack,
    Features,
    FeatureSpec,
    Frames,
    Labels,
    Recording,
    Waveform,
    Window,
)

if TYPE_CHECKING:
    from aupipe.commands import extract, train
    from aupipe.project import load_project, load_run, open_store

__version__ = "0.1.0"
__all__ = [
    "FaceTrack",
    "FeatureSpec",
    "Features",
    "Frames",
    "Labels",
    "Recording",
    "Waveform",
    "Window",
    "__version__",
    "extract",
    "load_project",
    "load_run",
    "open_store",
    "train",
]
_IN_PROJECT = ("load_project", "load_run", "open_store")
_PACKAGES = ("extract", "train")  # which are called as functions


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"aupipe.{name}")
    if name in _IN_PROJECT:
        return getattr(import_module("aupipe.project"), name)
    raise AttributeError(f"module 'aupipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
