"""How many inputs an encoder gets at once. It changes speed and memory, never a feature's identity."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from aupipe.errors import is_out_of_memory
from aupipe.extract import user_cache

CPU_BATCH = 32  # throughput is flat from 16 on for networks in torch, whatever the size for exported ones; not probed
GPU_BATCH = 256  # where nothing could be probed
PROBED = (32, 64, 128, 256, 512)
WORTH = 1.03  # a batch twice the size has to be this much faster
RUNS = 3  # timed, after one that is not
FILE = "batch_sizes.json"


@dataclass
class BatchSizes:
    """The batch size of each feature: ``fixed`` for all, or the default, halved where memory runs out."""

    fixed: int = 0
    default: int = CPU_BATCH
    _of: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def on(cls, device: str, fixed: int = 0) -> BatchSizes:
        """The sizes to begin with on a torch device; ``fixed`` 0 for its default."""
        return cls(fixed, CPU_BATCH if device == "cpu" else GPU_BATCH)

    def of(self, feature: str) -> int:
        """Inputs per batch of a feature id."""
        with self._lock:
            return self._of.get(feature, self.fixed or self.default)

    def set(self, feature: str, size: int) -> None:
        """What a probe has found."""
        with self._lock:
            self._of[feature] = size

    def halve(self, feature: str, tried: int) -> tuple[int, bool]:
        """Half of what was ``tried``, at least 1, unless it is less by now; and whether that is news."""
        with self._lock:
            now = self._of.get(feature, self.fixed or self.default)
            size = min(now, max(1, tried // 2))
            self._of[feature] = size
            return size, size < now


def probe(encode: Callable[[int], object], clock: Callable[[], float] = time.perf_counter) -> int:
    """The batch size from which on doubling it is not worth while, at most 512; 0 where not even 32 fit in memory.

    ``encode`` encodes a batch of so many inputs and returns when that is done.
    """
    best, rate = 0, 0.0
    for size in PROBED:
        try:
            encode(size)
            began = clock()
            for _ in range(RUNS):
                encode(size)
            now = RUNS * size / max(clock() - began, 1e-9)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if now < WORTH * rate:
            break
        best, rate = size, now
    return best


def remembered(key: str) -> int | None:
    """What an earlier probe has found; None where there was none, or where the file of it is damaged."""
    size = user_cache.get(FILE, key)
    return size if isinstance(size, int) and 0 < size <= PROBED[-1] else None


def remember(key: str, size: int) -> None:
    """Write down what a probe has found. Where that cannot be done it is probed again another time."""
    user_cache.put(FILE, key, size)


def one_prober() -> AbstractContextManager[None]:
    """Held while probing: two at a time on one device would each find what half of it can do."""
    return user_cache.lock(FILE)
