"""How many inputs an encoder gets at once. It changes speed and memory, never a feature's identity."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

CPU_BATCH = 32  # throughput is flat from 16 on (specs/stages.md, section 5); not probed
GPU_BATCH = 256  # where a probe has not said otherwise


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which torch and numpy say that memory has run out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


@dataclass
class BatchSizes:
    """The batch size of each feature: ``fixed`` for all, or the default, halved where memory runs out."""

    fixed: int = 0
    default: int = CPU_BATCH
    _halved: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def on(cls, device: str, fixed: int = 0) -> BatchSizes:
        """The sizes to begin with on a torch device; ``fixed`` 0 for its default."""
        return cls(fixed, CPU_BATCH if device == "cpu" else GPU_BATCH)

    def of(self, feature: str) -> int:
        """Inputs per batch of a feature id."""
        with self._lock:
            return self._halved.get(feature, self.fixed or self.default)

    def set(self, feature: str, size: int) -> None:
        """What a probe has found."""
        with self._lock:
            self._halved[feature] = size

    def halve(self, feature: str) -> int:
        """Half of what it is now, at least 1; what comes out."""
        with self._lock:
            size = max(1, self._halved.get(feature, self.fixed or self.default) // 2)
            self._halved[feature] = size
            return size
