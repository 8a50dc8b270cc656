"""What a file format does for a store: write an item's array to files, and map it back.

A path is that of an item: a folder (Zarr) or a file (HDF5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.store.formats.rows import stored_dtype
from aupipe.store.keys import recording_bytes
from aupipe.store.records import ItemRecord


@dataclass(frozen=True)
class Layout:
    """An item's array before its first row is there: (T, ...) in a little-endian dtype, C order."""

    frames: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: tuple[str, ...] = ()  # names of the last axis of a row, for people; see `aupipe.types.FeatureSpec`

    @classmethod
    def of(cls, record: ItemRecord) -> Self:
        """That of a published item."""
        return cls(record.frames, record.shape[1:], stored_dtype(record.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.frames, *self.row_shape)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.frames * self.row_bytes


# What lies beside the array of an item, by name: "valid" bool (T,), and "time" float64 (T,) in s where it is known.
Beside = Mapping[str, NDArray[Any]]


class Sink(Protocol):
    """The files of one item while they are written, under a temporary path."""

    path: str  # becomes the item by a rename
    offset: int  # of the array in the data file
    nbytes: int  # size of the data file

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows, C-contiguous in the layout's dtype."""
        ...

    def finish(self, item: ItemRecord, metadata: str, beside: Beside) -> int:
        """Write everything else and fsync. Returns the crc32c of every byte that is not the array's."""
        ...

    def close(self) -> None:
        """Close the file, finished or not."""
        ...


class Rows(Protocol):
    """An item's rows, mapped or in memory."""

    frames: int

    def view(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop), read-only."""
        ...

    def copy(self, start: int, out: NDArray[Any]) -> None:
        """Copy rows [start, start + len(out)) into ``out``."""
        ...


class PlainRows:
    """`Rows` of one contiguous array: every window is a view."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows, self.frames = rows, len(rows)

    def view(self, start: int, stop: int) -> NDArray[Any]:
        return self.rows[start:stop]

    def copy(self, start: int, out: NDArray[Any]) -> None:
        out[...] = self.rows[start : start + len(out)]


class Format(Protocol):
    """One file format; no state."""

    suffix: str  # of an item's path
    documents: tuple[tuple[str, bytes], ...]  # (name, content) of the files that every folder of items has

    def open_sink(self, path: str, layout: Layout) -> Sink:
        """Begin an item's files at ``path``."""
        ...

    def data_file(self, path: str, record: ItemRecord) -> str:
        """The file with the array, of the item at ``path``."""
        ...

    def item_files(self, path: str, record: ItemRecord) -> list[str]:
        """Every file of the item at ``path``."""
        ...

    def map_rows(self, path: str, record: ItemRecord) -> Rows:
        """Map the item at ``path``. Raises FileNotFoundError, or DamageError when its size is not the record's."""
        ...

    def read_beside(self, path: str, record: ItemRecord, name: str) -> NDArray[Any] | None:
        """``valid`` or ``time`` of the item at ``path``, None where it has none. Errors as `map_rows`."""
        ...

    def checksums(self, path: str, record: ItemRecord) -> tuple[int, int]:
        """crc32c of the array's bytes, and of every other byte of the item's files. Errors as `map_rows`."""
        ...

    def measure(self, path: str, record: ItemRecord) -> ItemRecord:
        """The record with the size of the data file at ``path`` and the array's offset in it."""
        ...

    def read_metadata(self, path: str) -> str:
        """The text of `item_metadata` in the item at ``path``. Raises OSError, ValueError, KeyError, TypeError."""
        ...


def item_attributes(item: ItemRecord, metadata: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """The attributes of an item: ``aupipe_item`` for aupipe, the others for people who open it with other tools."""
    name = recording_bytes(item.recording).decode("utf-8", "replace")
    found = {
        "recording": name.replace("\0", "\ufffd"),
        "feature": item.feature,
        "valid_frames": item.valid_frames,
        "aupipe_item": metadata,
    }
    return found | {"columns": list(columns)} if columns else found


def check_size(content: NDArray[np.uint8], path: str, record: ItemRecord) -> None:
    """Raises DamageError when the data file of the item at ``path`` is not as long as it was when published."""
    if len(content) != record.nbytes:
        raise DamageError(
            f"{record.feature}, recording {record.recording!r}: {path} has {len(content)} bytes, "
            f"{record.nbytes} were published: `aupipe store verify --repair`"
        )
