"""Items as Zarr v3 groups: the array ``data``, and beside it ``valid`` and ``time``, one value per row.

zarr-python is not imported. ``data`` is one shard of the sharding codec with inner chunks without a checksum
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): its rows lie one after another, so that every
window is a view of the mapped file, and other tools still read a window without the rest. Their checksum is in the
attributes of the group. Tests read the groups back with zarr-python and xarray.
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
from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.formats import zarr3_arrays
from aupipe.store.formats.mapping import map_file
from aupipe.store.formats.protocol import Beside, Layout, PlainRows, Rows, check_size, item_attributes
from aupipe.store.formats.rows import padding_value, stored_dtype
from aupipe.store.records import ItemRecord

CHUNK_ROWS = 256  # at most: other tools read long chunks faster, and must read a whole chunk for a short window
GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC32C = {"name": "crc32c"}
_SMALL = ("valid/c.0", "time/c.0", "data/zarr.json", "valid/zarr.json", "time/zarr.json", "zarr.json")


class ShardLayout(Layout):
    """The positions of an item's chunks in its shard file: one after another, then the index."""

    @cached_property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.frames // CHUNK_ROWS)

    @cached_property
    def chunk_rows(self) -> int:
        """Rows of every chunk: all equal, so that 300 rows are stored as 2 x 150 and not as 2 x 256."""
        return -(-self.frames // self.chunks) if self.frames else 1

    @property
    def padding(self) -> bytes:
        """Rows without data that fill the last chunk."""
        rows = self.chunks * self.chunk_rows - self.frames
        return np.full((rows, *self.row_shape), padding_value(self.dtype), self.dtype).tobytes()

    @property
    def index(self) -> bytes:
        """The shard's index and its checksum: (offset, length) of every chunk, little-endian uint64."""
        table = np.empty((self.chunks, 2), "<u8")
        table[:, 1] = self.chunk_rows * self.row_bytes
        table[:, 0] = np.arange(self.chunks, dtype="<u8") * table[:, 1]
        return _with_crc(table.tobytes())

    @property
    def file_bytes(self) -> int:
        return self.chunks * (self.chunk_rows * self.row_bytes + 16) + 4 if self.frames else 0

    @property
    def file_name(self) -> str:
        return os.path.join("data", "c" + ".0" * len(self.shape))


def _with_crc(content: bytes) -> bytes:
    return content + google_crc32c.value(content).to_bytes(4, "little")


def _array(
    shape: tuple[int, ...], dtype: str, chunk: list[int], codecs: list[Any], fill_value: Any, **attributes: Any
) -> dict[str, Any]:
    """The metadata of an array whose first dimension is time, in one chunk (or shard)."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": ["time", *(f"dim_{axis}" for axis in range(1, len(shape)))],
    }


def _documents(layout: ShardLayout, attributes: dict[str, Any], beside: Beside) -> dict[str, bytes]:
    """Every ``zarr.json`` of an item, by its path in the item."""
    sharding = {
        "chunk_shape": [layout.chunk_rows, *layout.row_shape],
        "codecs": [_LITTLE],
        "index_codecs": [_LITTLE, _CRC32C],
        "index_location": "end",
    }
    shard = [max(1, layout.chunks) * layout.chunk_rows, *layout.row_shape]
    codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    about = {name: attributes[name] for name in ("recording", "feature")} | {"coordinates": "valid"}
    frames, whole = layout.frames, [max(1, layout.frames)]
    empty = "NaN" if layout.dtype.kind == "f" else padding_value(layout.dtype)
    arrays = {
        "data": _array(layout.shape, layout.dtype.name, shard, codecs, empty, **about),
        "valid": _array((frames,), "bool", whole, [{"name": "bytes"}, _CRC32C], bool(beside["valid"].all())),
    }
    if "time" in beside:
        arrays["time"] = _array((frames,), "float64", whole, [_LITTLE, _CRC32C], "NaN", units="s")
    # Not indented: that takes json ten times as long, and the names of a thousand columns are among it.
    texts = {name: json.dumps(array) for name, array in arrays.items()}
    inline = ", ".join(f'"{name}": {text}' for name, text in texts.items())
    consolidated = f'{{"kind": "inline", "must_understand": false, "metadata": {{{inline}}}}}'
    group = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})
    group = f'{group[:-1]}, "consolidated_metadata": {consolidated}}}'
    found = {os.path.join(name, "zarr.json"): text for name, text in texts.items()} | {"zarr.json": group}
    return {name: text.encode() for name, text in found.items()}


class ShardSink:
    """An item's folder while it is written: rows go to the shard file at once, none are kept in memory."""

    def __init__(self, path: str, layout: ShardLayout) -> None:
        self.path, self.layout, self.offset, self.nbytes = path, layout, 0, layout.file_bytes
        for folder in (path, os.path.join(path, "data")):
            fs.make_folders(folder, durable=False)
        self._file = fs.NewFile(os.path.join(path, layout.file_name)) if layout.frames else None

    def write(self, rows: NDArray[Any]) -> None:
        if self._file:
            self._file.write([rows])

    def finish(self, item: ItemRecord, metadata: str, beside: Beside) -> int:
        end = self.layout.padding + self.layout.index if self._file else b""
        # a chunk that is not there is the fill value: one file less where all rows are valid, or none
        chunks = {name: values for name, values in beside.items() if name == "time" or values.any() != values.all()}
        files = {f"{name}/c.0": _with_crc(values.tobytes()) for name, values in chunks.items() if len(values)}
        files |= _documents(self.layout, item_attributes(item, metadata, self.layout.columns), beside)
        for name in beside:
            fs.make_folders(os.path.join(self.path, name), durable=False)
        small = [name for name in _SMALL if name in files]
        opened = [self._file] if self._file else []
        if self._file:
            self._file.write([end])
        try:
            for name in small:
                opened.append(fs.NewFile(os.path.join(self.path, name)))
                opened[-1].write([files[name]])
            fs.fsync_files(opened)
        finally:
            for file in opened:
                file.close()
        for folder in ("data", *beside):
            fs.fsync_folder(os.path.join(self.path, folder))
        fs.fsync_folder(self.path)
        crc = google_crc32c.value(end)
        for name in small:
            crc = google_crc32c.extend(crc, files[name])
        return crc

    def close(self) -> None:
        if self._file:
            self._file.close()


class Zarr3:
    """One Zarr v3 group per item; the folders of items are groups."""

    suffix = ""
    documents: tuple[tuple[str, bytes], ...] = (("zarr.json", GROUP),)

    def open_sink(self, path: str, layout: Layout) -> ShardSink:
        return ShardSink(path, ShardLayout(layout.frames, layout.row_shape, layout.dtype, layout.columns))

    def data_file(self, path: str, record: ItemRecord) -> str:
        name = zarr3_arrays.ShardLayout.of(record).file_name if _is_array(record) else ShardLayout.of(record).file_name
        return os.path.join(path, name)

    def item_files(self, path: str, record: ItemRecord) -> list[str]:
        data = [self.data_file(path, record)] if record.frames else []
        return data + ([os.path.join(path, "zarr.json")] if _is_array(record) else _small_files(path, record))

    def map_rows(self, path: str, record: ItemRecord) -> Rows:
        if not record.frames:
            os.stat(os.path.join(path, "zarr.json"))
            return PlainRows(np.empty(record.shape, stored_dtype(record.dtype)))
        if _is_array(record):
            return zarr3_arrays.map_rows(path, record)
        file = map_file(self.data_file(path, record))
        check_size(file, path, record)
        return PlainRows(np.ndarray(record.shape, stored_dtype(record.dtype), file.data))

    def read_beside(self, path: str, record: ItemRecord, name: str) -> NDArray[Any] | None:
        file = os.path.join(path, name, "c.0")
        if not record.frames or not os.path.exists(file):
            return None
        content = map_file(file)
        if _with_crc(content[:-4].tobytes()) != content.tobytes():
            raise DamageError(f"{file} is damaged: `aupipe store verify --repair`")
        return np.frombuffer(content[:-4].tobytes(), "?" if name == "valid" else "<f8")

    def checksums(self, path: str, record: ItemRecord) -> tuple[int, int]:
        if _is_array(record):
            return zarr3_arrays.checksums(path, record)
        array = metadata = 0
        if record.frames:
            file = map_file(self.data_file(path, record))
            check_size(file, path, record)
            size = ShardLayout.of(record).nbytes
            array, metadata = google_crc32c.value(file[:size]), google_crc32c.value(file[size:])
        for small in _small_files(path, record):
            metadata = google_crc32c.extend(metadata, map_file(small))
        return array, metadata

    def measure(self, path: str, record: ItemRecord) -> ItemRecord:
        if not record.frames:
            return replace(record, nbytes=0)
        old = os.path.join(path, zarr3_arrays.ShardLayout.of(record).file_name)
        return replace(record, nbytes=os.path.getsize(old if os.path.exists(old) else self.data_file(path, record)))

    def read_metadata(self, path: str) -> str:
        with open(os.path.join(path, "zarr.json"), "rb") as file:
            text: str = parse_json(file.read())["attributes"]["aupipe_item"]
        return text


def _small_files(path: str, record: ItemRecord) -> list[str]:
    """The files that an item has beside its data."""
    found = ["data/zarr.json", "valid/zarr.json", "zarr.json"]
    if 0 < record.valid_frames < record.frames:
        found.append("valid/c.0")
    if os.path.isdir(os.path.join(path, "time")):
        found += ["time/zarr.json", *(["time/c.0"] if record.frames else [])]
    return [os.path.join(path, name) for name in _SMALL if name in found]


def _is_array(record: ItemRecord) -> bool:
    """Whether an item is of an earlier version: the shard then is longer by the checksums of its chunks."""
    return record.frames > 0 and record.nbytes == zarr3_arrays.ShardLayout.of(record).file_bytes
