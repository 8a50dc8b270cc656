"""Items as HDF5 files: one contiguous dataset ``data`` each, read by mapping it; beside it ``valid`` and ``time``.

The rows are written to the file directly, at the speed of the disk. h5py only makes the few kilobytes before and after
the array, in memory, so that every byte of the file is known and in a checksum.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.documents import parse_json
from aupipe.store import fs
from aupipe.store.formats.mapping import map_file
from aupipe.store.formats.protocol import Beside, Layout, PlainRows, Rows, check_size, item_attributes
from aupipe.store.formats.rows import padding_value, stored_dtype
from aupipe.store.records import ItemRecord

DATASET = "data"
ALIGNMENT = 4096  # of the array in the file: a page
# Names of columns in an attribute, else it is left out and ``spec.json`` alone has them: an attribute holds 64 KiB, in
# which a name takes 16 bytes, and these are shared with the other attributes.
MAX_NAMES = 2000


class _SparseFile(io.RawIOBase):
    """A file for h5py that keeps the written bytes in memory and reads as zeros elsewhere, in place of the array."""

    def __init__(self) -> None:
        self.size = self.position = 0
        self.written: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def truncate(self, size: int | None = None, /) -> int:
        self.size = self.position if size is None else size
        return self.size

    def write(self, content: Any, /) -> int:
        piece = bytes(content)
        self.written[self.position] = piece  # in order of writing: a later write covers an earlier one
        self.position += len(piece)
        self.size = max(self.size, self.position)
        return len(piece)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        content = self.between(self.position, min(self.position + len(view), self.size))
        view[: len(content)] = content
        self.position += len(content)
        return len(content)

    def between(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop), zero where nothing was written."""
        content = bytearray(max(0, stop - start))
        for offset, piece in self.written.items():
            low, high = max(offset, start), min(offset + len(piece), stop)
            if low < high:
                content[low - start : high - start] = piece[low - offset : high - offset]
        return bytes(content)


def _make_file(layout: Layout, attributes: dict[str, Any], beside: Beside) -> tuple[_SparseFile, int]:
    """An item's HDF5 file without its array, and the array's offset in it."""
    import h5py

    sparse = _SparseFile()
    alignment = {"alignment_threshold": max(1, min(layout.nbytes, ALIGNMENT)), "alignment_interval": ALIGNMENT}
    with h5py.File(sparse, "w", **alignment) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.CONTIGUOUS)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plist.set_fill_value(np.array(padding_value(layout.dtype), layout.dtype))
        plist.set_obj_track_times(False)
        space = h5py.h5s.create_simple(layout.shape)
        kind = h5py.h5t.py_create(layout.dtype)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, DATASET.encode(), kind, space, dcpl=plist))
        offset = dataset.id.get_offset() or 0
        for name, value in attributes.items():
            dataset.attrs[name] = value
        for name, values in beside.items():
            file.create_dataset(name, data=values, track_times=False)
    return sparse, offset


class Hdf5Sink:
    """An HDF5 file while it is written: first the array, at its final offset, then the bytes before and after it."""

    def __init__(self, path: str, layout: Layout) -> None:
        self.path, self.layout = path, layout
        self.nbytes = 0
        # what h5py puts before an array of a page or more fits into one page; `finish` checks it
        self.offset = ALIGNMENT if layout.nbytes >= ALIGNMENT else _make_file(layout, {}, {})[1]
        self._file = fs.NewFile(path, self.offset)

    def write(self, rows: NDArray[Any]) -> None:
        self._file.write([rows])

    def finish(self, item: ItemRecord, metadata: str, beside: Beside) -> int:
        columns = self.layout.columns if len(self.layout.columns) <= MAX_NAMES else ()
        sparse, offset = _make_file(self.layout, item_attributes(item, metadata, columns), beside)
        if offset != self.offset:  # another h5py may place the array elsewhere: refuse, do not write a damaged file
            raise OSError(f"{self.path}: HDF5 moved the array from byte {self.offset} to {offset}; use backend 'zarr'")
        self.nbytes = max(sparse.size, offset + self.layout.nbytes)
        head, tail = sparse.between(0, offset), sparse.between(offset + self.layout.nbytes, self.nbytes)
        self._file.write([tail])
        self._file.write_head(head)
        self._file.fsync()
        self.close()
        return google_crc32c.extend(google_crc32c.value(head), tail)

    def close(self) -> None:
        self._file.close()


class Hdf5:
    """One HDF5 file per item."""

    suffix = ".h5"
    documents: tuple[tuple[str, bytes], ...] = ()

    def open_sink(self, path: str, layout: Layout) -> Hdf5Sink:
        return Hdf5Sink(path, layout)

    def data_file(self, path: str, record: ItemRecord) -> str:
        return path

    def item_files(self, path: str, record: ItemRecord) -> list[str]:
        return [path]

    def map_rows(self, path: str, record: ItemRecord) -> Rows:
        file = map_file(path)
        check_size(file, path, record)
        return PlainRows(np.ndarray(record.shape, stored_dtype(record.dtype), file.data, offset=record.offset))

    def read_beside(self, path: str, record: ItemRecord, name: str) -> NDArray[Any] | None:
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            return file[name][...] if name in file else None

    def checksums(self, path: str, record: ItemRecord) -> tuple[int, int]:
        file = map_file(path)
        check_size(file, path, record)
        stop = record.offset + Layout.of(record).nbytes
        head = google_crc32c.value(file[: record.offset])
        return google_crc32c.value(file[record.offset : stop]), google_crc32c.extend(head, file[stop:])

    def measure(self, path: str, record: ItemRecord) -> ItemRecord:
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            offset = file[DATASET].id.get_offset() or 0
        return replace(record, nbytes=os.path.getsize(path), offset=offset)

    def read_metadata(self, path: str) -> str:
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            text = file[DATASET].attrs["aupipe_item"]
        parse_json(text)
        return str(text)
