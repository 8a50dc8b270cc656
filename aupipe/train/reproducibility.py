"""Seeds, deterministic algorithms and threads of a run, and the versions it was made with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from aupipe import __version__


def versions() -> dict[str, str]:
    """Of what decides a run's numbers beside its recipe."""
    libraries = {"aupipe": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {"python": platform.python_version(), **libraries}


@contextmanager
def reproducible(seed: int, threads: int, device: str, strict: bool) -> Iterator[None]:
    """Seeds, deterministic algorithms and a thread count for the time of a run; afterwards what was there before."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS refuses to be deterministic
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
