"""Seeds, deterministic algorithms and thread count of a run, and the library versions that it used."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from aupipe import __version__


def versions() -> dict[str, str]:
    """Versions of Python, aupipe, torch and numpy: together with the recipe they determine a run's numbers."""
    libraries = {"aupipe": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {"python": platform.python_version(), **libraries}


@contextmanager
def reproducible(seed: int, threads: int, device: str, strict: bool) -> Iterator[None]:
    """Seed torch and set its threads and deterministic algorithms inside the context; restore them afterwards.

    ``strict``: raise where an operation has no deterministic implementation, instead of warning.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
