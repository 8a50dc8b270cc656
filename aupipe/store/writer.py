"""One item on its way into a store: rows are checked, summed and handed to the backend's sink, then published."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.documents import parse_json
from aupipe.store.formats.rows import BLOCK_BYTES, checked_rows, stored_dtype
from aupipe.store.log.journal import record_from_json, record_to_json
from aupipe.store.protocol import ItemRecord
from aupipe.types import FeatureSpec, SourceIdentity


@dataclass(frozen=True)
class Layout:
    """The form of an item's array, known before its first row: (T, ...) in a little-endian dtype, C order."""

    frames: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.frames, *self.row_shape)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.frames * self.row_bytes


class Sink(Protocol):
    """Where a backend puts the bytes of one item, under a name nobody looks at."""

    path: str  # what becomes the item by a rename
    offset: int  # of the array in the data file
    nbytes: int  # of the data file

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows, C-contiguous in the layout's dtype."""
        ...

    def finish(self, item: ItemRecord, metadata: str) -> int:
        """Everything else, and all of it on the disk. Returns the crc32c of every byte that is not the array's."""
        ...

    def close(self) -> None:
        """Let go of the file, finished or not."""
        ...


def item_metadata(record: ItemRecord) -> str:
    """The JSON an item carries in its own files: all that the catalogue needs to be rebuilt from items alone.

    Nothing in it tells when, where or how fast the item was made: equal rows of an equal source are equal bytes.
    """
    source = record.source._replace(folder="") if record.source else None
    bare = replace(record, nbytes=0, offset=0, rest_crc32c=0, edition="", seconds=0.0, time_utc="", source=source)
    return json.dumps(record_to_json(bare), sort_keys=True, separators=(",", ":"))


def parse_metadata(text: str) -> ItemRecord:
    """The inverse of `item_metadata`, with the edition filled in."""
    return replace(record_from_json(parse_json(text)), edition=edition_of(text))


def edition_of(metadata: str) -> str:
    """8 hex that name one publication of an item: other rows, another source or other versions are another edition."""
    return hashlib.sha256(metadata.encode()).hexdigest()[:8]


def now_utc() -> str:
    """The time, for people: `2026-11-20T11:09:00Z`. Nothing is decided by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class StagedItem:
    """The `ItemWriter` of every backend."""

    def __init__(
        self,
        recording: str,
        spec: FeatureSpec,
        *,
        frames: int,
        row_shape: tuple[int, ...],
        source: SourceIdentity | None,
        versions: Mapping[str, str] | None,
        video_id: str,
        open_sink: Callable[[Layout], Sink],
        publish: Callable[[ItemRecord, Sink], ItemRecord],
        discard: Callable[[Sink], None],
    ) -> None:
        self.where = f"{spec.id}, recording {recording!r}"
        if frames < 0 or any(extent < 1 for extent in row_shape):
            raise ValueError(f"{self.where}: {frames} frames of shape {tuple(row_shape)}; extents must be positive")
        self.layout = Layout(frames, tuple(int(extent) for extent in row_shape), stored_dtype(spec.dtype))
        self.item = ItemRecord(
            recording=recording,
            feature=spec.id,
            state="done",
            frames=frames,
            shape=self.layout.shape,
            dtype=self.layout.dtype.name,
            source=source,
            versions=dict(versions or {}),
            video_id="" if video_id == recording else video_id,
        )
        self.appended = 0
        self._valid = 0
        self.crc32c = 0
        self._publish, self._discard = publish, discard
        self._sink: Sink | None = open_sink(self.layout)

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n, ...); see `ItemWriter`."""
        sink = self._open_sink()
        rows = np.asarray(rows)
        if rows.dtype.kind != "f":
            raise ValueError(f"{self.where}: rows are {rows.dtype}, expected floating point")
        if rows.shape[1:] != self.layout.row_shape or rows.ndim == 0:
            raise ValueError(f"{self.where}: rows are {rows.shape}, expected (n, *{self.layout.row_shape})")
        if self.appended + len(rows) > self.layout.frames:
            total = self.appended + len(rows)
            raise ValueError(f"{self.where}: row {total - 1} appended, but {self.layout.frames} rows were announced")
        step = max(1, BLOCK_BYTES // self.layout.row_bytes)
        for start in range(0, len(rows), step):
            block, valid = checked_rows(rows[start : start + step], self.layout.dtype, self.where, self.appended)
            with self._sized():
                sink.write(block)
            self.crc32c = google_crc32c.extend(self.crc32c, block.reshape(-1).view(np.uint8))
            self._valid += valid
            self.appended += len(block)

    def commit(self, *, seconds: float = 0.0, damage: str = "", media: Mapping[str, Any] | None = None) -> ItemRecord:
        """Publish; see `ItemWriter`."""
        sink = self._open_sink()
        if self.appended != self.layout.frames:
            raise ValueError(f"{self.where}: {self.appended} rows appended, {self.layout.frames} announced")
        item = replace(self.item, valid_frames=self._valid, crc32c=self.crc32c, damage=damage, media=dict(media or {}))
        metadata = item_metadata(item)
        with self._sized():
            rest = sink.finish(item, metadata)
        item = replace(
            item,
            nbytes=sink.nbytes,
            offset=sink.offset,
            rest_crc32c=rest,
            edition=edition_of(metadata),
            seconds=seconds,
            time_utc=now_utc(),
        )
        record = self._publish(item, sink)
        self._sink = None
        return record

    @contextmanager
    def _sized(self) -> Iterator[None]:
        """An error of the disk says how large the item is that did not fit."""
        try:
            yield
        except OSError as error:
            error.item_bytes = self.layout.frames * self.layout.row_bytes  # type: ignore[attr-defined]
            raise

    def _open_sink(self) -> Sink:
        if self._sink is None:
            raise ValueError(f"{self.where}: this writer is closed")
        return self._sink

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()
            self._discard(sink)
