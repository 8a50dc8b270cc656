"""The `ItemWriter` of every backend: it checks rows, computes their checksum and passes them to a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import free_space
from aupipe.store.formats.protocol import Layout, Sink
from aupipe.store.formats.rows import BLOCK_BYTES, checked_rows, padding_value, stored_dtype
from aupipe.store.record_json import item_metadata
from aupipe.store.records import ItemRecord
from aupipe.types import FeatureSpec, SourceIdentity


def now_utc() -> str:
    """The time of a record, for people only: ``2026-11-20T11:09:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class StagedItem:
    """An item being written to a sink. ``publish`` and ``discard`` are what the backend does with it at the end."""

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
        read_times: Callable[[], NDArray[np.float64] | None],
        open_sink: Callable[[Layout], Sink],
        publish: Callable[[ItemRecord, Sink], ItemRecord],
        discard: Callable[[Sink], None],
    ) -> None:
        self.where = f"{spec.id}, recording {recording!r}"
        if frames < 0 or any(extent < 1 for extent in row_shape):
            raise ValueError(f"{self.where}: {frames} frames of shape {tuple(row_shape)}; extents must be positive")
        extents = tuple(int(extent) for extent in row_shape)
        self.layout = Layout(frames, extents, stored_dtype(spec.dtype), spec.columns)
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
        self._valid: list[NDArray[np.bool_]] = []
        self.crc32c = 0
        self.read_times, self._publish, self._discard = read_times, publish, discard
        self._sink: Sink | None = open_sink(self.layout)

    def append(self, rows: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """Add rows (n, ...); see `ItemWriter`."""
        sink = self._open_sink()
        rows = np.asarray(rows)
        if rows.dtype.kind != "f" and rows.dtype != self.layout.dtype:
            raise ValueError(f"{self.where}: rows are {rows.dtype}, expected floating point")
        if rows.shape[1:] != self.layout.row_shape or rows.ndim == 0:
            raise ValueError(f"{self.where}: rows are {rows.shape}, expected (n, *{self.layout.row_shape})")
        if self.appended + len(rows) > self.layout.frames:
            total = self.appended + len(rows)
            raise ValueError(f"{self.where}: row {total - 1} appended, but {self.layout.frames} rows were announced")
        if valid is not None and valid.shape != (len(rows),):
            raise ValueError(f"{self.where}: validity is {valid.shape}, expected ({len(rows)},)")
        step = max(1, BLOCK_BYTES // self.layout.row_bytes)
        for start in range(0, len(rows), step):
            block, present = checked_rows(rows[start : start + step], self.layout.dtype, self.where, self.appended)
            if valid is not None:
                present = present & valid[start : start + step]
                shape = (-1, *(1,) * (block.ndim - 1))
                block = np.where(present.reshape(shape), block, block.dtype.type(padding_value(block.dtype)))
            with self._errors_have_size():
                sink.write(block)
            self.crc32c = google_crc32c.extend(self.crc32c, block.reshape(-1).view(np.uint8))
            self._valid.append(present)
            self.appended += len(block)

    def commit(self, *, seconds: float = 0.0, damage: str = "", media: Mapping[str, Any] | None = None) -> ItemRecord:
        """Publish; see `ItemWriter`."""
        sink = self._open_sink()
        if self.appended != self.layout.frames:
            raise ValueError(f"{self.where}: {self.appended} rows appended, {self.layout.frames} announced")
        valid, times = np.concatenate([np.empty(0, bool), *self._valid]), self.read_times()
        beside: dict[str, NDArray[Any]] = {"valid": valid} if times is None else {"valid": valid, "time": times}
        about: dict[str, Any] = {"damage": damage, "media": dict(media or {})}
        item = replace(self.item, valid_frames=int(valid.sum()), crc32c=self.crc32c, **about)
        metadata = item_metadata(item, None if times is None else google_crc32c.value(times.tobytes()))
        with self._errors_have_size():
            metadata_crc32c = sink.finish(item, metadata, beside)
        item = replace(
            item,
            nbytes=sink.nbytes,
            offset=sink.offset,
            metadata_crc32c=metadata_crc32c,
            seconds=seconds,
            time_utc=now_utc(),
        )
        record = self._publish(item, sink)
        self._sink = None
        return record

    @contextmanager
    def _errors_have_size(self) -> Iterator[None]:
        """Puts the size of the item into an OSError, for the message about a full disk."""
        try:
            yield
        except OSError as error:
            error.item_bytes = self.layout.nbytes  # type: ignore[attr-defined]
            error.free_space = free_space(error)  # type: ignore[attr-defined]
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
