"""Items of earlier versions: one Zarr v3 array each, a folder of ``zarr.json`` and one shard file. They are only read.

The shard is that of the sharding codec with ``bytes + crc32c`` inner chunks: chunk, checksum, a gap so that every chunk
begins at a multiple of 64 bytes, and so on, then the index. A window across chunks is therefore copied.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.store.formats.mapping import map_file
from aupipe.store.formats.protocol import Layout, check_size
from aupipe.store.records import ItemRecord

CHUNK_ROWS = 256  # at most
ALIGNMENT = 64  # of chunks in the shard
_CRC = 4  # bytes of a checksum


class ShardLayout(Layout):
    """The positions of an item's chunks in its shard file."""

    @cached_property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.frames // CHUNK_ROWS)

    @cached_property
    def chunk_rows(self) -> int:
        """Rows of every chunk: all equal, so that 300 rows are stored as 2 x 150 and not as 2 x 256."""
        return -(-self.frames // self.chunks) if self.frames else 1

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk's rows."""
        return self.chunk_rows * self.row_bytes

    @cached_property
    def stride(self) -> int:
        """Bytes from one chunk to the next: its rows, its checksum, and a gap that keeps the rows aligned."""
        return -(-(self.chunk_bytes + _CRC) // ALIGNMENT) * ALIGNMENT

    @property
    def file_bytes(self) -> int:
        return self.chunks * (self.stride + 16) + _CRC if self.frames else 0

    @property
    def file_name(self) -> str:
        return "c" + ".0" * len(self.shape)


class ShardRows:
    """A mapped shard as rows: a view inside one chunk, a copy across chunks."""

    def __init__(self, file: NDArray[np.uint8], layout: ShardLayout) -> None:
        self.frames, self.layout, self._rows = layout.frames, layout, layout.chunk_rows
        strides = np.empty((self._rows, *layout.row_shape), layout.dtype).strides
        shape = (layout.chunks, self._rows, *layout.row_shape)
        # (chunks, rows of a chunk, ...): the whole shard as one array whose strides skip the checksums
        self._chunks: NDArray[Any] = np.ndarray(shape, layout.dtype, file.data, strides=(layout.stride, *strides))
        self._list = list(self._chunks)

    def view(self, start: int, stop: int) -> NDArray[Any]:
        chunk, first = divmod(start, self._rows)
        if stop <= (chunk + 1) * self._rows and chunk < len(self._list):
            return self._list[chunk][first : first + stop - start]
        rows = np.empty((stop - start, *self.layout.row_shape), self.layout.dtype)
        self.copy(start, rows)
        rows.flags.writeable = False
        return rows

    def copy(self, start: int, out: NDArray[Any]) -> None:
        size, count = self._rows, len(out)
        chunk, first = divmod(start, size)
        done = 0
        while done < count:
            piece = self._list[chunk][first : first + count - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
            chunk, first = chunk + 1, 0


def map_rows(path: str, record: ItemRecord) -> ShardRows:
    """As `Format.map_rows`."""
    layout = ShardLayout.of(record)
    file = map_file(os.path.join(path, layout.file_name))
    check_size(file, path, record)
    return ShardRows(file, layout)


def checksums(path: str, record: ItemRecord) -> tuple[int, int]:
    """As `Format.checksums`."""
    layout = ShardLayout.of(record)
    file = map_file(os.path.join(path, layout.file_name))
    check_size(file, path, record)
    array = metadata = 0
    left = layout.nbytes
    for chunk in range(layout.chunks):
        content = file[chunk * layout.stride : (chunk + 1) * layout.stride]
        size = min(left, layout.chunk_bytes)
        left -= size
        array = google_crc32c.extend(array, content[:size])
        metadata = google_crc32c.extend(metadata, content[size:])
    metadata = google_crc32c.extend(metadata, file[layout.chunks * layout.stride :])
    return array, google_crc32c.extend(metadata, map_file(os.path.join(path, "zarr.json")))
