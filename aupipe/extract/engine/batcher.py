"""Inputs of many recordings, gathered into batches of one size for each encoder."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

LINGER_S = 10.0  # a batch that is not full waits so long for inputs that may come
QUEUED_BATCHES = 4  # batches that wait for an encoder before `Batcher.put` blocks


T = TypeVar("T")  # who gets the rows


@dataclass(frozen=True)
class BatchSlice(Generic[T]):
    """Inputs (n, ...) of one receiver, an array or a tensor; ``first``: the ordinal of the first among all it puts."""

    to: T
    first: int
    inputs: Any


@dataclass
class EncoderQueue(Generic[T]):
    """What waits for one encoder."""

    size: int  # of a batch
    slices: deque[BatchSlice[T]] = field(default_factory=deque)
    waiting: int = 0  # inputs
    since_s: float = 0.0
    fed_s: float = 0.0  # when inputs came last

    def take(self) -> list[BatchSlice[T]]:
        """At most a batch, oldest first."""
        taken: list[BatchSlice[T]] = []
        missing = self.size
        while missing and self.slices:
            one = self.slices.popleft()
            if len(one.inputs) > missing:
                self.slices.appendleft(BatchSlice(one.to, one.first + missing, one.inputs[missing:]))
                one = BatchSlice(one.to, one.first, one.inputs[:missing])
            missing -= len(one.inputs)
            taken.append(one)
        self.waiting -= self.size - missing
        return taken


class Batcher(Generic[T]):
    """The queues of all encoders. Threads that make inputs `put`, threads that encode `take`.

    A batch is given out when it is full, whichever recordings it is of. One that is not full waits as long as a
    producer of the encoder is active (`producing`), but not for producers that have put nothing for `LINGER_S`: a
    video that hangs does not keep another from its last rows.
    """

    def __init__(self, size_of: Callable[[str], int]) -> None:
        self._size_of = size_of
        self._queues: dict[str, EncoderQueue[T]] = {}
        self._producers: Counter[str] = Counter()  # encoder -> active producers
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    @contextmanager
    def producing(self, encoders: Iterable[str]) -> Iterator[None]:
        """Inside, more inputs for these encoders may come."""
        encoders = list(encoders)
        with self._changed:
            self._producers.update(encoders)
        try:
            yield
        finally:
            with self._changed:
                self._producers.subtract(encoders)
                self._changed.notify_all()

    def put(self, encoder: str, one: BatchSlice[T]) -> None:
        """Add inputs for an encoder; blocks while its queue is full. Raises what `abort` was given."""
        if not len(one.inputs):
            return
        with self._changed:
            queue = self._queues.get(encoder) or self._queues.setdefault(encoder, EncoderQueue(self._size_of(encoder)))
            self._changed.wait_for(lambda: queue.waiting < QUEUED_BATCHES * queue.size or self._closed)
            if self._error is not None:
                raise self._error
            if not queue.waiting:
                queue.since_s = time.monotonic()
            queue.fed_s = time.monotonic()
            queue.slices.append(one)
            queue.waiting += len(one.inputs)
            self._changed.notify_all()

    def take(self, wait: bool = True) -> tuple[str, list[BatchSlice[T]]] | None:
        """The next batch and its encoder; blocks until there is one. None when closed, and when none is ready and
        ``wait`` is False."""
        with self._changed:
            while True:
                ready = [
                    (queue.waiting < queue.size, queue.since_s, name)
                    for name, queue in self._queues.items()
                    if queue.waiting >= (1 if self._is_over(name, queue) else queue.size)
                ]
                if ready:
                    name = min(ready)[2]
                    queue = self._queues[name]
                    taken = queue.take()
                    queue.since_s = time.monotonic()
                    self._changed.notify_all()
                    return name, taken
                if self._closed or not wait:
                    return None
                self._changed.wait(LINGER_S if any(queue.waiting for queue in self._queues.values()) else None)

    def _is_over(self, name: str, queue: EncoderQueue[T]) -> bool:
        """Whether no more inputs are to be waited for."""
        return self._closed or not self._producers[name] or time.monotonic() - queue.fed_s >= LINGER_S

    def resize(self, encoder: str, size: int) -> None:
        """Give an encoder smaller batches from now on."""
        with self._changed:
            self._queues[encoder].size = size

    def close(self) -> None:
        """Give out what is left, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self, error: BaseException) -> None:
        """Nothing more is encoded: what waits is dropped, and `put` raises ``error``."""
        with self._changed:
            self._closed, self._error = True, self._error or error
            self._queues.clear()
            self._changed.notify_all()

    def filled(self) -> float:
        """How full the fullest queue is, from 0 to 1."""
        with self._changed:
            queues = self._queues.values()
            return max((min(1.0, queue.waiting / (QUEUED_BATCHES * queue.size)) for queue in queues), default=0.0)


def joined(slices: list[BatchSlice[T]], size: int = 0) -> Any:
    """The inputs of a batch as one array (n, ...); (``size``, ...) with zeros at its end where a size is given.

    A tensor where any of them is one, on its device.
    """
    inputs = [one.inputs for one in slices]
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
