"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
from contextlib import suppress

KEPT_BYTES = 1 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Reuse freed blocks of up to 1 GiB instead of returning them to the system.

    By default glibc maps every large tensor anew and faults in its pages, which takes two thirds of the time of a
    linear head (benchmarks/train.py; docs/training.md, "Speed"). The setting holds for the whole process, so a command
    may call this and a library may not. Does nothing with other C libraries.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for setting in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(setting, KEPT_BYTES)
