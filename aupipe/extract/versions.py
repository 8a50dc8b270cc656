"""Which libraries made the numbers, for each item's record."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

from aupipe.extract.contract import requires_of

# What every item may have passed through: decoding, resampling, warping, arithmetic.
LIBRARIES = ("aupipe", "torch", "opencv-python-headless", "av", "soxr", "numpy")


def library_versions() -> dict[str, str]:
    """The versions of `LIBRARIES` that are installed here; to be asked in the process that computes."""
    return _installed(LIBRARIES)


def versions_of(part: Any) -> dict[str, str]:
    """The versions of what an encoder or detector ``requires``, and of the package it comes from, for its items.

    Of alternatives (``onnxruntime``, ``onnxruntime-gpu``) those count that are installed.
    """
    package = type(part).__module__.partition(".")[0]
    own = () if package == "aupipe" else _distributions().get(package, ())
    return _installed((*own, *requires_of(part)))


@lru_cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _installed(names: Iterable[str]) -> dict[str, str]:
    return {name: found for name in names if (found := _version(name))}


@lru_cache
def _version(name: str) -> str | None:
    """The version that is installed, or None. Read once: it stands in a file, and every item's record has it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
