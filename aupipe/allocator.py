"""How this process keeps memory it has freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

KEPT_BYTES = 1 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let freed blocks of up to a GiB be used again instead of being given back.

    glibc maps and faults in every large activation anew, which costs a linear head two thirds of its time
    (benchmarks/train.py; docs/training.md, "Speed"). For programs, not for libraries: it holds for the whole process.
    With other C libraries nothing happens.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for setting in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(setting, KEPT_BYTES)
