"""Blocks of windows: their rows as they are stored, copied to the device at once, and standardised there.

The numbers are those of `aupipe.train.batch.fill`, to the last bit: both do the same operations on float32 numbers, one
after another, each of which IEEE 754 defines exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupipe.train.data import Example, Scaling, columns, common_dims
from aupipe.types import Window

ALIGNED_BYTES = 16  # a part may be viewed as any dtype


class Packed:
    """Arrays in one piece of memory, pinned for a GPU, so that one copy takes all of them to a device."""

    def __init__(self, parts: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], pinned: bool) -> None:
        """``parts``: name -> shape and dtype; their content is not set."""
        self.places: dict[str, tuple[int, int, tuple[int, ...], np.dtype[Any]]] = {}
        size = 0
        for name, (shape, dtype) in parts.items():
            nbytes = int(np.prod(shape)) * dtype.itemsize
            self.places[name] = size, size + nbytes, shape, dtype
            size += -(-nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
        self.memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)

    def host(self, name: str) -> NDArray[Any]:
        """An array, to be written."""
        start, stop, shape, dtype = self.places[name]
        return self.memory.numpy()[start:stop].view(dtype).reshape(shape)

    def shorten(self, name: str, content: NDArray[Any]) -> None:
        """Set an array of one dimension to fewer values than it was made for."""
        start, _, _, dtype = self.places[name]
        self.places[name] = start, start + len(content) * dtype.itemsize, (len(content),), dtype
        self.host(name)[...] = content

    def on(self, device: str) -> dict[str, Tensor]:
        """All arrays on a device; the copy does not wait for it."""
        memory = self.memory.to(device, non_blocking=True)
        found = {}
        for name, (start, stop, shape, dtype) in self.places.items():
            found[name] = memory[start:stop].view(torch.from_numpy(np.empty(0, dtype)).dtype).view(shape)
        return found


class BlockReader:
    """Reads the rows of blocks of windows, and standardises them on a device."""

    def __init__(self, examples: Sequence[Example], scaling: Scaling, device: str, timed: bool = False) -> None:
        self.by_id = {example.recording: example for example in examples}
        self.scaling, self.device, self.timed = scaling, device, timed
        self.dims = common_dims(examples) if examples else ()
        self.targets = max((example.targets.shape[1] for example in examples), default=0)
        self.dtypes = [np.dtype(array.dtype) for array in (examples[0].arrays if examples else ())]
        mirrored = examples[0].mirrored if examples else ()
        self.orders = [None if order is None else torch.from_numpy(order).to(device) for order in mirrored]
        self.mean, self.std = (torch.from_numpy(part).to(device) for part in (scaling.mean, scaling.std))

    @property
    def frame_bytes(self) -> int:
        """What a frame takes: as it is stored, and as a head reads it."""
        stored = sum(dim * dtype.itemsize for dim, dtype in zip(self.dims, self.dtypes, strict=True))
        return stored + 4 * columns(self.dims, self.scaling.unscaled)

    def read(self, windows: Sequence[Window]) -> Packed:
        """The rows of windows with their context as they are stored, (N * T, d), in host memory.

        Every window takes as many rows as the longest; those behind its end are padding, and are not set.
        """
        longest = max(window.before + len(window) + window.after for window in windows)
        count, frames, features = len(windows), len(windows) * longest, len(self.dims)
        parts: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "mask": ((count, longest), np.dtype(bool)),
            "scored": ((count, longest), np.dtype(bool)),
            "targets": ((count, longest, self.targets), np.dtype(np.float32)),
            "valid": ((count, longest, self.targets), np.dtype(bool)),
            "present": ((frames, features), np.dtype(bool)),
        }
        if self.timed:
            parts["times"] = (count, longest), np.dtype(np.float64)
        for i, dim in enumerate(self.dims):
            parts[f"rows{i}"] = (frames, dim), self.dtypes[i]
            parts[f"absent{i}"] = (frames,), np.dtype(np.int64)  # numbers of rows, as many as there are
            if self._center(i):
                parts[f"center{i}"] = (count, dim), np.dtype(np.float32)
        packed = Packed(parts, pinned=self.device.startswith("cuda"))
        arrays = {name: packed.host(name) for name in parts}
        for name in ("mask", "scored", "targets", "valid", "present"):
            arrays[name].fill(0)
        absent = np.ones((frames, features), bool)  # padding too
        if self.timed:
            arrays["times"].fill(np.inf)
        for number, window in enumerate(windows):
            self._copy_window(arrays, number, window, slice(number * longest, (number + 1) * longest), absent)
        for i in range(features):
            packed.shorten(f"absent{i}", np.flatnonzero(absent[:, i]))
        return packed

    def _copy_window(
        self, arrays: Mapping[str, NDArray[Any]], number: int, window: Window, at: slice, absent: NDArray[np.bool_]
    ) -> None:
        """Copy the window with this number of a block to its rows, and note which of them are ``absent``."""
        example = self.by_id[window.recording]
        first, last = window.start - window.before, window.stop + window.after
        own, size, scored = slice(first, last), last - first, slice(window.before, window.before + len(window))
        arrays["mask"][number, :size] = True
        arrays["scored"][number, scored] = True
        arrays["targets"][number, :size] = example.targets[own]
        arrays["valid"][number, scored] = example.valid[window.start : window.stop]
        present, absent = arrays["present"][at][:size], absent[at][:size]
        present[...] = example.present[own]
        np.logical_not(present, out=absent)
        if self.timed:
            arrays["times"][number, :size] = example.times[own]
        for i, stored in enumerate(example.arrays):
            rows = arrays[f"rows{i}"][at][:size]
            rows[...] = stored[own].reshape(rows.shape)
            if self.scaling.absent == "nearest" and i not in self.scaling.unscaled and absent[:, i].any():
                nearest = example.nearest[own, i]
                replaced = np.flatnonzero(absent[:, i] & (nearest >= 0))
                if len(replaced):
                    rows[replaced] = stored[nearest[replaced]].reshape(-1, rows.shape[1])
                    absent[replaced, i] = False
            if self._center(i):
                arrays[f"center{i}"][number] = np.float32(self.scaling.center) * example.means[i]

    def standardise(self, packed: Packed) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The fields of `aupipe.train.loader.DeviceBatch` for a block of windows, and its ``raw``, on the device."""
        parts = packed.on(self.device)
        count, longest = parts["mask"].shape
        x = torch.empty((count * longest, columns(self.dims, self.scaling.unscaled)), device=self.device)
        raw: list[Tensor] = []
        at = column = 0  # in mean and std, and in x
        for i, dim in enumerate(self.dims):
            place, at = slice(at, at + dim), at + dim
            if i in self.scaling.unscaled:
                rows = parts[f"rows{i}"]
                raw.append(rows.view(count, longest, dim))
            else:
                rows, column = x[:, column : column + dim], column + dim
                rows.copy_(parts[f"rows{i}"])
                order = self.orders[i] if self.orders else None
                if order is not None:
                    rows.copy_((rows + rows[:, order]) / 2)  # `aupipe.train.mirror.symmetric_rows`
                if self._center(i):
                    rows.view(count, longest, dim).sub_(parts[f"center{i}"][:, None])
                rows -= self.mean[place]
                rows /= self.std[place]
                if self.scaling.clip:
                    rows.clamp_(-self.scaling.clip, self.scaling.clip)
            if len(parts[f"absent{i}"]):
                rows.index_fill_(0, parts[f"absent{i}"], 0)
        x[:, column:] = parts["present"]
        names = [name for name in ("mask", "targets", "valid", "scored", "times") if name in parts]
        fields = {"x": x.view(count, longest, -1)} | {name: parts[name] for name in names}
        return fields, raw

    def _center(self, i: int) -> bool:
        """Is a share of the recording's mean subtracted from feature i?"""
        return bool(self.scaling.center) and i not in self.scaling.unscaled
