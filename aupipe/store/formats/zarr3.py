"""Items as Zarr v3 arrays: a folder of ``zarr.json`` and one shard file, read by mapping it.

zarr-python is not imported. The shard is that of the sharding codec with ``bytes + crc32c`` inner chunks and no
compressor (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): chunk, checksum, chunk,
checksum, ..., then the index and its checksum. A gap after each checksum makes every chunk begin at a multiple of 64
bytes, which the format allows: readers find the chunks by the index. Tests read it back with zarr-python, checks on.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.documents import parse_json
from aupipe.store import fs
from aupipe.store.formats.mapping import map_file
from aupipe.store.formats.protocol import Layout, Rows, check_size, item_attributes
from aupipe.store.formats.rows import stored_dtype
from aupipe.store.records import ItemRecord

CHUNK_ROWS = 256  # at most: other tools read long chunks faster, and must read a whole chunk to check a short window
GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
ALIGNMENT = 64  # of chunks in the shard, a cache line: unaligned rows are copied a tenth slower
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
    def gap(self) -> bytes:
        """The zeros between a checksum and the next chunk."""
        return bytes(self.stride - self.chunk_bytes - _CRC)

    @property
    def padding(self) -> bytes:
        """NaN rows that fill the last chunk."""
        rows = self.chunks * self.chunk_rows - self.frames
        return np.full((rows, *self.row_shape), np.nan, self.dtype).tobytes()

    @property
    def index(self) -> bytes:
        """The shard's index and its checksum: (offset, length) of every chunk, little-endian uint64."""
        table = np.empty((self.chunks, 2), "<u8")
        table[:, 0] = np.arange(self.chunks, dtype="<u8") * self.stride
        table[:, 1] = self.chunk_bytes + _CRC
        return _with_crc(table.tobytes())

    @property
    def file_bytes(self) -> int:
        return self.chunks * (self.stride + 16) + _CRC if self.frames else 0

    @property
    def file_name(self) -> str:
        return "c" + ".0" * len(self.shape)


def _with_crc(content: bytes) -> bytes:
    return content + google_crc32c.value(content).to_bytes(4, "little")


def _array_json(layout: ShardLayout, attributes: dict[str, Any]) -> bytes:
    """The ``zarr.json`` of an item."""
    crc = {"name": "crc32c"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    names = ["time", *(f"dim_{axis}" for axis in range(1, len(layout.shape)))]
    sharding = {
        "chunk_shape": [layout.chunk_rows, *layout.row_shape],
        "codecs": [little, crc],
        "index_codecs": [little, crc],
        "index_location": "end",
    }
    shard = [max(1, layout.chunks) * layout.chunk_rows, *layout.row_shape]
    content = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(layout.shape),
        "data_type": layout.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "NaN",
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": attributes,
        "dimension_names": names,
    }
    return json.dumps(content, indent=1).encode()


class ShardSink:
    """An item folder while it is written: rows go to the shard file at once, none are kept in memory."""

    def __init__(self, path: str, layout: ShardLayout) -> None:
        self.path, self.layout, self.offset, self.nbytes = path, layout, 0, layout.file_bytes
        self._row = 0  # of the chunk being filled
        self._chunk_crc = 0
        self._metadata_crc = 0
        fs.make_folders(path, durable=False)
        self._file = fs.NewFile(os.path.join(path, layout.file_name)) if layout.frames else None

    def write(self, rows: NDArray[Any]) -> None:
        parts: list[Any] = []
        start = 0
        while start < len(rows):
            piece = rows[start : start + self.layout.chunk_rows - self._row]
            parts.append(piece)
            self._chunk_crc = google_crc32c.extend(self._chunk_crc, piece.reshape(-1).view(np.uint8))
            self._row += len(piece)
            start += len(piece)
            if self._row == self.layout.chunk_rows:
                parts.append(self._chunk_end())
        if parts and self._file:
            self._file.write(parts)

    def _chunk_end(self) -> bytes:
        end = self._chunk_crc.to_bytes(4, "little") + self.layout.gap
        self._metadata_crc = google_crc32c.extend(self._metadata_crc, end)
        self._row = self._chunk_crc = 0
        return end

    def finish(self, item: ItemRecord, metadata: str) -> int:
        if self._file:
            parts = []
            if padding := self.layout.padding:
                self._chunk_crc = google_crc32c.extend(self._chunk_crc, padding)
                self._metadata_crc = google_crc32c.extend(self._metadata_crc, padding)
                parts = [padding, self._chunk_end()]
            parts.append(self.layout.index)
            self._metadata_crc = google_crc32c.extend(self._metadata_crc, parts[-1])
            self._file.write(parts)
            self._file.fsync()
        self.close()
        document = _array_json(self.layout, item_attributes(item, metadata))
        self._metadata_crc = google_crc32c.extend(self._metadata_crc, document)
        fs.write_file(os.path.join(self.path, "zarr.json"), [document])
        fs.fsync_folder(self.path)
        return self._metadata_crc

    def close(self) -> None:
        if self._file:
            self._file.close()


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


class Zarr3:
    """One Zarr v3 array per item; the folders of items are groups."""

    suffix = ""
    documents: tuple[tuple[str, bytes], ...] = (("zarr.json", GROUP),)

    def open_sink(self, path: str, layout: Layout) -> ShardSink:
        return ShardSink(path, ShardLayout(layout.frames, layout.row_shape, layout.dtype))

    def data_file(self, path: str, record: ItemRecord) -> str:
        return os.path.join(path, _layout(record).file_name)

    def item_files(self, path: str, record: ItemRecord) -> list[str]:
        document = os.path.join(path, "zarr.json")
        return [self.data_file(path, record), document] if record.frames else [document]

    def map_rows(self, path: str, record: ItemRecord) -> Rows:
        layout = _layout(record)
        if not record.frames:
            os.stat(os.path.join(path, "zarr.json"))
            return ShardRows(np.empty(0, np.uint8), layout)
        file = map_file(self.data_file(path, record))
        check_size(file, path, record)
        return ShardRows(file, layout)

    def checksums(self, path: str, record: ItemRecord) -> tuple[int, int]:
        layout = _layout(record)
        document = map_file(os.path.join(path, "zarr.json"))
        if not record.frames:
            return 0, google_crc32c.value(document)
        file = map_file(self.data_file(path, record))
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
        return array, google_crc32c.extend(metadata, document)

    def measure(self, path: str, record: ItemRecord) -> ItemRecord:
        return replace(record, nbytes=os.path.getsize(self.data_file(path, record)) if record.frames else 0)

    def read_metadata(self, path: str) -> str:
        with open(os.path.join(path, "zarr.json"), "rb") as file:
            text: str = parse_json(file.read())["attributes"]["aupipe_item"]
        return text


def _layout(record: ItemRecord) -> ShardLayout:
    return ShardLayout(record.frames, record.shape[1:], stored_dtype(record.dtype))
