"""Batches where the head is: the whole data set there once where it fits, else streamed while the head computes.

Either way a window is index arithmetic over the recordings' rows, and its numbers are the same to the last bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupipe.train.data import Example, Scaling, collate, columns, common_dims, fill
from aupipe.types import Window

log = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")

PREFETCH = 2  # batches, or groups of small ones, made while one is computed on
GATHERED = 2048  # frames of one gather: small batches are made together, each costs python's lock by itself
GATHERED_ON_GPU = 256 << 20  # bytes of one gather: there launching it is all that it costs
SHARE = 0.5  # of the free memory that a resident data set may take


@dataclass(frozen=True)
class DeviceBatch:
    """`aupipe.train.data.Batch` as tensors on the device."""

    x: Tensor  # float32 (B, T, D)
    mask: Tensor  # bool (B, T), False at padding
    targets: Tensor  # float32 (B, T, K)
    valid: Tensor  # bool (B, T, K)


class Loader(Protocol):
    """Makes batches of windows of the recordings it was opened with."""

    def batches(self, chunks: Sequence[Sequence[Window]]) -> Iterator[DeviceBatch]:
        """One batch per chunk, in order."""
        ...


def open_loader(
    examples: Sequence[Example], scaling: Scaling, device: str = "cpu", memory_limit: int | None = None
) -> Loader:
    """`InMemory` if the standardised recordings take at most ``memory_limit`` bytes (None: half of what is free)."""
    size = bytes_in_memory(examples)
    memory_limit = free_bytes(device) if memory_limit is None else memory_limit
    if size <= memory_limit:
        return InMemory(examples, scaling, device)
    log.info("%.1f GB of features do not fit on %s beside a head: streamed", size / 1e9, device)
    return Streaming(examples, scaling, device)


def bytes_in_memory(examples: Sequence[Example]) -> int:
    """What `InMemory` takes: float32 rows, targets, and a byte per validity."""
    if not examples:
        return 0
    targets = max(item.targets.shape[1] for item in examples)
    return (sum(map(len, examples)) + 1) * (4 * columns(examples[0].dims) + 5 * targets)


def free_bytes(device: str) -> int:
    """How much of the device's memory a data set may take; 2 GiB where that cannot be known."""
    if device.startswith("cuda"):
        return int(SHARE * torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 2 << 30
    return int(SHARE * free)


def _prefetched(make: Callable[[S], T], chunks: Iterable[S]) -> Iterator[T]:
    """What ``make`` makes of each chunk, in order, by a thread that is at most `PREFETCH` of who asks.

    A queue and no pool of threads: handing on a batch by futures costs a linear head a twentieth of its time.
    """
    made: SimpleQueue[T | _Raised | None] = SimpleQueue()
    memory_limit = Semaphore(PREFETCH)
    left = Event()  # nobody asks any more

    def work() -> None:
        try:
            for chunk in chunks:
                memory_limit.acquire()
                if left.is_set():
                    return
                made.put(make(chunk))
            made.put(None)
        except BaseException as error:
            made.put(_Raised(error))

    thread = Thread(target=work, name="aupipe-loader", daemon=True)
    try:
        thread.start()
        while (batch := made.get()) is not None:
            if isinstance(batch, _Raised):
                raise batch.error
            memory_limit.release()
            yield batch
            del batch  # or it would be one more that lives while the next is waited for
    finally:
        left.set()
        memory_limit.release()
        if thread.is_alive():  # not where a signal came while it was being started: then it ends by itself
            thread.join()


@dataclass(frozen=True)
class _Raised:
    error: BaseException


@dataclass(frozen=True)
class _Group:
    """Batches that are gathered together: all their windows, as numbers, in order."""

    begins: NDArray[np.int64]  # rows of the matrix
    sizes: NDArray[np.int64]
    counts: list[int]  # windows of each batch


def _groups(begins: NDArray[np.int64], sizes: NDArray[np.int64], counts: Sequence[int], most: int) -> Iterator[_Group]:
    """Batches of ``counts`` windows in order, in groups of about ``most`` frames, each of batches that are as long."""
    firsts = np.cumsum([0, *counts])
    longest = np.maximum.reduceat(sizes, firsts[:-1]).tolist() if len(counts) else []
    frames = np.add.reduceat(sizes, firsts[:-1]).tolist() if len(counts) else []
    first = taken = 0
    for i in range(1, len(counts) + 1):
        taken += frames[i - 1]
        if i == len(counts) or taken >= most or longest[i] != longest[first]:
            own = slice(firsts[first], firsts[i])
            yield _Group(begins[own], sizes[own], list(counts[first:i]))
            first, taken = i, 0


class InMemory:
    """All recordings one after another in one matrix on the device, standardised once; a batch is a gather."""

    def __init__(self, examples: Sequence[Example], scaling: Scaling, device: str) -> None:
        width = columns(common_dims(examples))
        targets = max(item.targets.shape[1] for item in examples)
        frames = sum(map(len, examples))
        # The last row, all zero, is what padding reads.
        self.rows = torch.zeros((frames + 1, width), device=device)
        self.targets = torch.zeros((frames + 1, targets), device=device)
        self.valid = torch.zeros((frames + 1, targets), dtype=torch.bool, device=device)
        self.starts: dict[str, int] = {}
        at = 0
        for example in examples:
            self.starts[example.recording], stop = at, at + len(example)
            host = self.rows[at:stop].numpy() if device == "cpu" else np.empty((len(example), width), np.float32)
            fill(example, 0, len(example), scaling, host)
            if device != "cpu":
                self.rows[at:stop] = torch.from_numpy(host)
            if example.targets.shape[1]:
                self.targets[at:stop] = torch.from_numpy(example.targets)
                self.valid[at:stop] = torch.from_numpy(example.valid)
            at = stop

    def batches(self, chunks: Sequence[Sequence[Window]]) -> Iterator[DeviceBatch]:
        """One batch per chunk, in order."""
        # All of an epoch's arithmetic at once: what a thread does in python costs the head as much again.
        begins = [self.starts[window.recording] + window.start for chunk in chunks for window in chunk]
        sizes = [len(window) for chunk in chunks for window in chunk]
        most = self._most_gathered() if self.rows.is_cuda else GATHERED
        groups = _groups(np.array(begins), np.array(sizes), [len(chunk) for chunk in chunks], most)
        # A GPU gathers faster than it is asked; a processor's memory is the limit, and waits while the head computes.
        gathered = map(self._gather, groups) if self.rows.is_cuda else _prefetched(self._gather, groups)
        for batches in gathered:
            yield from batches

    def _most_gathered(self) -> int:
        """Frames of one gather on a GPU."""
        frame = 4 * self.rows.shape[1] + 5 * self.targets.shape[1] + 9  # bytes, with its index and its mask
        return max(GATHERED, min(GATHERED_ON_GPU, free_bytes(str(self.rows.device)) // 4) // frame)

    def _gather(self, group: _Group) -> list[DeviceBatch]:
        """The batches of a group, as pieces of one gather."""
        frame = np.arange(group.sizes.max())
        there = frame < group.sizes[:, None]  # (N, T)
        index = np.where(there, group.begins[:, None] + frame, len(self.rows) - 1)  # (N, T) -> row of the matrix
        flat, mask = self._sent(index.ravel()), self._sent(there)
        x, targets, valid = (
            part.index_select(0, flat).view(*index.shape, part.shape[1])
            for part in (self.rows, self.targets, self.valid)
        )
        if len(group.counts) == 1:
            return [DeviceBatch(x, mask, targets, valid)]
        parts = (part.split(group.counts) for part in (x, mask, targets, valid))
        return [DeviceBatch(*one) for one in zip(*parts, strict=True)]

    def _sent(self, array: NDArray[Any]) -> Tensor:
        """An array on the device; a GPU's steps that are under way are not waited for."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.rows.device, non_blocking=True) if self.rows.is_cuda else tensor


class Streaming:
    """Batches read from the mapped store in a thread, `PREFETCH` of the head; on a GPU through pinned memory.

    There the copies run in a stream of their own, so that they overlap with the head's computations.
    """

    def __init__(self, examples: Sequence[Example], scaling: Scaling, device: str) -> None:
        self.by_id = {example.recording: example for example in examples}
        self.scaling, self.device = scaling, device
        self.copies = torch.cuda.Stream(device) if device.startswith("cuda") else None

    def batches(self, chunks: Sequence[Sequence[Window]]) -> Iterator[DeviceBatch]:
        """One batch per chunk, in order."""
        return map(self._take, _prefetched(self._make, chunks))

    def _make(self, windows: Sequence[Window]) -> tuple[DeviceBatch, torch.cuda.Event | None]:
        batch = collate(self.by_id, windows, self.scaling)
        parts = [torch.from_numpy(part) for part in (batch.x, batch.mask, batch.targets, batch.valid)]
        if self.copies is None:
            return DeviceBatch(*parts), None
        with torch.cuda.stream(self.copies):
            sent = DeviceBatch(*(part.pin_memory().to(self.device, non_blocking=True) for part in parts))
            return sent, self.copies.record_event()

    def _take(self, made: tuple[DeviceBatch, torch.cuda.Event | None]) -> DeviceBatch:
        batch, copied = made
        if copied is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_event(copied)
            for part in (batch.x, batch.mask, batch.targets, batch.valid):
                part.record_stream(here)  # its memory is not reused before the head has read it
        return batch
