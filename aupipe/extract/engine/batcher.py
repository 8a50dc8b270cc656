"""Inputs of many recordings, gathered into batches of one size for each encoder."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

T = TypeVar("T")  # whom rows are for

LINGER_S = 10.0  # a batch that is not full waits so long for inputs that may come
ROOM = 4  # batches an encoder's pool holds before those who fill it have to wait


@dataclass(frozen=True)
class BatchSlice(Generic[T]):
    """Inputs (n, ...) for one receiver, an array or a tensor; ``first``: the ordinal of the first among all it gets."""

    to: T
    first: int
    inputs: Any


@dataclass
class EncoderQueue(Generic[T]):
    """What waits for one encoder."""

    size: int  # of a batch
    parts: deque[BatchSlice[T]] = field(default_factory=deque)
    waiting: int = 0
    since_s: float = 0.0
    fed_s: float = 0.0  # when inputs came last

    def take(self) -> list[BatchSlice[T]]:
        """At most a batch, oldest first."""
        taken: list[BatchSlice[T]] = []
        room = self.size
        while room and self.parts:
            part = self.parts.popleft()
            if len(part.inputs) > room:
                rest = BatchSlice(part.to, part.first + room, part.inputs[room:])
                self.parts.appendleft(rest)
                part = BatchSlice(part.to, part.first, part.inputs[:room])
            room -= len(part.inputs)
            taken.append(part)
        self.waiting -= self.size - room
        return taken


class Batcher(Generic[T]):
    """The pools of all encoders. Threads that make inputs `put`, threads that encode `take`.

    A batch is given out when it is full, whichever recordings it is of; one that is not full waits as long as more may
    come (``flowing``), but not for somebody who has brought nothing for `LINGER_S`: a video that hangs keeps no other
    from its last rows.
    """

    def __init__(self, size_of: Callable[[str], int]) -> None:
        self._size_of = size_of
        self._pools: dict[str, EncoderQueue[T]] = {}
        self._changed = threading.Condition()
        self._flowing = True
        self._closed = False

    def put(self, encoder: str, part: BatchSlice[T]) -> None:
        """Add inputs for an encoder; waits while its pool is full."""
        if not len(part.inputs):
            return
        with self._changed:
            pool = self._pools.get(encoder) or self._pools.setdefault(encoder, EncoderQueue(self._size_of(encoder)))
            self._changed.wait_for(lambda: pool.waiting < ROOM * pool.size or self._closed)
            if not pool.waiting:
                pool.since_s = time.monotonic()
            pool.fed_s = time.monotonic()
            pool.parts.append(part)
            pool.waiting += len(part.inputs)
            self._changed.notify_all()

    def take(self, wait: bool = True) -> tuple[str, list[BatchSlice[T]]] | None:
        """The next batch and its encoder; waits for one. None when closed, or when none is ready and ``wait`` is no."""
        with self._changed:
            while True:
                ready = [
                    (pool.waiting < pool.size, pool.since_s, name)
                    for name, pool in self._pools.items()
                    if pool.waiting >= (1 if self._is_over(pool) else pool.size)
                ]
                if ready:
                    name = min(ready)[2]
                    pool = self._pools[name]
                    parts = pool.take()
                    pool.since_s = time.monotonic()
                    self._changed.notify_all()
                    return name, parts
                if self._closed or not wait:
                    return None
                self._changed.wait(LINGER_S if any(pool.waiting for pool in self._pools.values()) else None)

    def _is_over(self, pool: EncoderQueue[T]) -> bool:
        """Whether no more inputs are to be waited for."""
        return not self._flowing or time.monotonic() - pool.fed_s >= LINGER_S

    def resize(self, encoder: str, size: int) -> None:
        """Give an encoder smaller batches from now on."""
        with self._changed:
            self._pools[encoder].size = size

    def flow(self, flowing: bool) -> None:
        """Say whether more inputs may come. Where not, batches go out as they are."""
        with self._changed:
            self._flowing = flowing
            self._changed.notify_all()

    def close(self) -> None:
        """Give out what is left, then None."""
        with self._changed:
            self._closed, self._flowing = True, False
            self._changed.notify_all()

    def filled(self) -> float:
        """The share of room in use, of the fullest pool."""
        with self._changed:
            return max((min(1.0, pool.waiting / (ROOM * pool.size)) for pool in self._pools.values()), default=0.0)


def joined(parts: list[BatchSlice[T]], size: int = 0) -> Any:
    """The inputs of a batch as one array (n, ...); (``size``, ...) with zeros at its end where a size is given.

    A tensor where any of them is one, on its device.
    """
    inputs = [part.inputs for part in parts]
    shape = inputs[0].shape[1:]
    missing = size - sum(map(len, inputs))
    if all(isinstance(each, np.ndarray) for each in inputs):
        if missing > 0:
            inputs.append(np.zeros((missing, *shape), inputs[0].dtype))
        return inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
    import torch

    from aupipe.extract.gpu.transfer import upload

    device = next(each.device for each in inputs if isinstance(each, torch.Tensor))
    tensors = [upload(each, device) if isinstance(each, np.ndarray) else each for each in inputs]
    if missing > 0:
        tensors.append(tensors[0].new_zeros((missing, *shape)))
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
