"""Batches of windows on the device of the head, from memory of that device or streamed from the store.

Both loaders give the same numbers to the last bit. A window is a range of rows, so no window is stored as such.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupipe.train.batch import empty_rows, fill
from aupipe.train.blocks import BlockReader
from aupipe.train.data import Example, Scaling, blocks, columns, common_dims
from aupipe.train.prefetch import prefetched
from aupipe.types import Window

log = logging.getLogger(__name__)

GATHER_FRAMES = 2048  # per gather on a CPU: a gather has a fixed cost, so small batches are made together
GATHER_BYTES = 256 << 20  # per gather on a GPU, where launching the kernel is most of the cost
BLOCK_BYTES, GPU_BLOCK_BYTES = 4 << 20, 64 << 20  # of a streamed block, as it is stored and standardised
MEMORY_SHARE = 0.5  # of the free memory that a data set may take


@dataclass(frozen=True)
class DeviceBatch:
    """Windows with their context on the device; shorter ones are padded at their end with zeros."""

    x: Tensor  # float32 (B, T, D)
    mask: Tensor  # bool (B, T), False at padding
    targets: Tensor  # float32 (B, T, K)
    valid: Tensor  # bool (B, T, K)
    scored: Tensor | None = None  # bool (B, T), False at padding and at context
    times: Tensor | None = None  # float64 (B, T) in s, inf at padding; where the head reads them
    # (B, T, d) of each feature that is not standardised, as it is stored
    raw: tuple[Tensor, ...] = field(default=(), kw_only=True)

    @property
    def tensors(self) -> list[Tensor]:
        """All there are."""
        found = (self.x, self.mask, self.targets, self.valid, self.scored, self.times, *self.raw)
        return [tensor for tensor in found if tensor is not None]


class Loader(Protocol):
    """Makes batches from windows of the recordings that it was opened with."""

    def batches(self, chunks: Sequence[Sequence[Window]]) -> Iterator[DeviceBatch]:
        """One batch per chunk of windows, in order."""
        ...


def open_loader(
    examples: Sequence[Example],
    scaling: Scaling,
    device: str = "cpu",
    memory_limit: int | None = None,
    timed: bool = False,
) -> Loader:
    """`InMemory` if the standardised recordings take at most ``memory_limit`` bytes, else `Streaming`.

    ``memory_limit`` None: half of the free memory of the device. ``timed``: batches have the times of their frames.
    """
    size = bytes_in_memory(examples, scaling.unscaled)
    if size <= (free_bytes(device) if memory_limit is None else memory_limit):
        return InMemory(examples, scaling, device, timed)
    log.info("%.1f GB of features exceed the memory limit on %s: streamed from the store", size / 1e9, device)
    return Streaming(examples, scaling, device, timed)


def bytes_in_memory(examples: Sequence[Example], unscaled: Collection[int] = ()) -> int:
    """What `InMemory` takes: float32 rows and targets, a byte per validity, and ``unscaled`` features as stored."""
    if not examples:
        return 0
    targets = max(item.targets.shape[1] for item in examples)
    raw = sum(one.nbytes for one in empty_rows(examples[0], unscaled, ()))
    return (sum(map(len, examples)) + 1) * (4 * columns(examples[0].dims, unscaled) + 5 * targets + raw)


def free_bytes(device: str) -> int:
    """How much of the device's memory a data set may take; 2 GiB where the free memory is unknown."""
    if device.startswith("cuda"):
        return int(MEMORY_SHARE * torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 2 << 30
    return int(MEMORY_SHARE * free)


@dataclass(frozen=True)
class Gather:
    """Batches that are copied by one index operation: the row ranges of all their windows, in order."""

    starts: NDArray[np.int64]  # (N,) first rows in the matrix
    sizes: NDArray[np.int64]  # (N,) frames, context included
    counts: list[int]  # windows of each batch; together N
    context: NDArray[np.int64]  # (N, 2) frames of it at the start and at the end


def plan_gathers(
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    counts: Sequence[int],
    frames: int,
    context: NDArray[np.int64] | None = None,
) -> Iterator[Gather]:
    """Batches of ``counts`` windows grouped into gathers of about ``frames`` frames.

    The batches of one gather have the same longest window, so that none is padded further than by itself.
    """
    context = np.zeros((len(starts), 2), np.int64) if context is None else context
    firsts = np.cumsum([0, *counts])
    longest = np.maximum.reduceat(sizes, firsts[:-1]).tolist() if len(counts) else []
    lengths = np.add.reduceat(sizes, firsts[:-1]).tolist() if len(counts) else []
    first = taken = 0
    for i in range(1, len(counts) + 1):
        taken += lengths[i - 1]
        if i == len(counts) or taken >= frames or longest[i] != longest[first]:
            own = slice(firsts[first], firsts[i])
            yield Gather(starts[own], sizes[own], list(counts[first:i]), context[own])
            first, taken = i, 0


class InMemory:
    """All recordings in one matrix on the device, standardised once; a batch is gathered from its rows."""

    def __init__(self, examples: Sequence[Example], scaling: Scaling, device: str, timed: bool = False) -> None:
        width = columns(common_dims(examples), scaling.unscaled)
        targets = max(item.targets.shape[1] for item in examples)
        frames = sum(map(len, examples))
        # Padding reads the last row, which is all zero.
        self.rows = torch.zeros((frames + 1, width), device=device)
        stored = empty_rows(examples[0], scaling.unscaled, (0,))
        self.raw = [torch.from_numpy(one).new_zeros((frames + 1, one.shape[1]), device=device) for one in stored]
        self.targets = torch.zeros((frames + 1, targets), device=device)
        self.valid = torch.zeros((frames + 1, targets), dtype=torch.bool, device=device)
        self.times = torch.full((frames + 1, 1), torch.inf, dtype=torch.float64, device=device) if timed else None
        self.starts: dict[str, int] = {}
        start = 0
        for example in examples:
            self.starts[example.recording], stop = start, start + len(example)
            for first, last in blocks(len(example)):
                own = [matrix[start + first : start + last] for matrix in (self.rows, *self.raw)]
                host, *raw = [(one if device == "cpu" else torch.empty_like(one, device="cpu")).numpy() for one in own]
                fill(example, first, last, scaling, host, raw)
                if device != "cpu":
                    for there, here in zip(own, (host, *raw), strict=True):
                        there.copy_(torch.from_numpy(here))
            if example.targets.shape[1]:
                self.targets[start:stop] = torch.from_numpy(example.targets)
                self.valid[start:stop] = torch.from_numpy(example.valid)
            if self.times is not None:
                self.times[start:stop, 0] = torch.from_numpy(np.array(example.times))
            start = stop

    def batches(self, chunks: Sequence[Sequence[Window]]) -> Iterator[DeviceBatch]:
        """One batch per chunk of windows, in order."""
        # Index arithmetic for the whole epoch at once: Python in the loader's thread slows down the head.
        windows = [window for chunk in chunks for window in chunk]
        starts = [self.starts[window.recording] + window.start - window.before for window in windows]
        context = np.array([(window.before, window.after) for window in windows], np.int64).reshape(-1, 2)
        sizes = np.array([len(window) for window in windows], np.int64) + context.sum(axis=1)
        frames = self._gather_frames() if self.rows.is_cuda else GATHER_FRAMES
        gathers = plan_gathers(np.array(starts), sizes, [len(chunk) for chunk in chunks], frames, context)
        # A GPU gathers faster than it is asked to. On a CPU memory is the limit, so a thread gathers in advance.
        made = map(self._gather, gathers) if self.rows.is_cuda else prefetched(self._gather, gathers)
        for batches in made:
            yield from batches

    def _gather_frames(self) -> int:
        """Frames of one gather on a GPU."""
        frame = 4 * self.rows.shape[1] + 5 * self.targets.shape[1] + 9  # bytes, with its index and its mask
        frame += sum(one.shape[1] * one.element_size() for one in self.raw)
        return max(GATHER_FRAMES, min(GATHER_BYTES, free_bytes(str(self.rows.device)) // 4) // frame)

    def _gather(self, gather: Gather) -> list[DeviceBatch]:
        frame = np.arange(gather.sizes.max())
        there = frame < gather.sizes[:, None]  # (N, T)
        index = np.where(there, gather.starts[:, None] + frame, len(self.rows) - 1)  # (N, T) -> row of the matrix
        flat, mask = self._to_device(index.ravel()), self._to_device(there)
        x, targets, valid, *raw = (
            matrix.index_select(0, flat).view(*index.shape, matrix.shape[1])
            for matrix in (self.rows, self.targets, self.valid, *self.raw)
        )
        scored = mask
        if gather.context.any():
            before, after = gather.context[:, :1], gather.context[:, 1:]
            scored = self._to_device((frame >= before) & (frame < gather.sizes[:, None] - after))
            valid &= scored[..., None]
        tensors = [x, mask, targets, valid, scored]
        if self.times is not None:
            tensors.append(self.times.index_select(0, flat).view(*index.shape))
        split = zip(*(tensor.split(gather.counts) for tensor in tensors), strict=True)
        batches = [DeviceBatch(*batch) for batch in split]
        beside = zip(*(tensor.split(gather.counts) for tensor in raw), strict=True)
        return [replace(batch, raw=own) for batch, own in zip(batches, beside, strict=True)] if raw else batches

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        """An array on the device, without waiting for GPU work in progress."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.rows.device, non_blocking=True) if self.rows.is_cuda else tensor


class Streaming:
    """Batches read from the store in a thread, a block of windows at a time; on a GPU copied through pinned memory.

    Only the rows of the blocks in use and of those prefetched are in memory, however large the corpus. On a GPU a block
    is copied and standardised in a CUDA stream of its own, so that both overlap with the head's computations.
    """

    def __init__(self, examples: Sequence[Example], scaling: Scaling, device: str, timed: bool = False) -> None:
        self.reader = BlockReader(examples, scaling, device, timed)
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.startswith("cuda") else None

    def batches(self, chunks: Sequence[Sequence[Window]]) -> Iterator[DeviceBatch]:
        """One batch per chunk of windows, in order."""
        if self.stream is not None:  # the mean and the standard deviation may still be on their way
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        for made in prefetched(self._make, self._plan(chunks)):
            yield from self._take(*made)

    def _plan(self, chunks: Sequence[Sequence[Window]]) -> Iterator[tuple[list[Window], Gather]]:
        """The windows of each block."""
        windows = [window for chunk in chunks for window in chunk]
        sizes = np.array([window.before + len(window) + window.after for window in windows], np.int64)
        rest = iter(windows)
        for block in plan_gathers(sizes, sizes, [len(chunk) for chunk in chunks], self._block_frames()):
            yield list(islice(rest, len(block.sizes))), block

    def _block_frames(self) -> int:
        """Frames of one block."""
        frame = max(1, self.reader.frame_bytes)
        if self.stream is None:
            return max(1, min(GATHER_FRAMES, BLOCK_BYTES // frame))
        return max(1, min(GPU_BLOCK_BYTES, free_bytes(self.device) // 8) // frame)

    def _make(self, block: tuple[Sequence[Window], Gather]) -> tuple[list[DeviceBatch], torch.cuda.Event | None]:
        windows, gather = block
        stored = self.reader.read(windows)
        with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
            parts, raw = self.reader.standardise(stored)
            each = {name: part.split(gather.counts) for name, part in parts.items()}
            beside = [part.split(gather.counts) for part in raw]
            batches = [
                DeviceBatch(**{name: split[i] for name, split in each.items()}, raw=tuple(split[i] for split in beside))
                for i in range(len(gather.counts))
            ]
            return batches, self.stream.record_event() if self.stream is not None else None

    def _take(self, batches: Sequence[DeviceBatch], made: torch.cuda.Event | None) -> Iterator[DeviceBatch]:
        if made is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(made)
            for tensor in (tensor for batch in batches for tensor in batch.tensors):
                tensor.record_stream(current)  # its memory is not reused before the head has read it
        yield from batches
