"""Items in memory: for tests, and for work that nobody wants to keep."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.store.base import ItemRecord
from aupipe.store.catalogue import Catalogue
from aupipe.store.folder import range_error
from aupipe.store.journal import Line
from aupipe.store.writer import Layout, Sink, StagedItem, now_utc
from aupipe.types import FeatureSpec, SourceIdentity


class _ArraySink:
    """Rows collected in one array."""

    def __init__(self, layout: Layout) -> None:
        self.path, self.offset, self.nbytes = "", 0, layout.nbytes
        self.rows: NDArray[Any] = np.empty(layout.shape, layout.dtype)
        self._filled = 0

    def write(self, rows: NDArray[Any]) -> None:
        self.rows[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def finish(self, item: ItemRecord, metadata: str) -> int:
        self.rows.flags.writeable = False
        return 0

    def close(self) -> None:
        pass


class MemoryStore:
    """The store protocol over a dict; gone with the process. ``path`` is a name, nothing is written there."""

    backend = "memory"
    persistent = False

    def __init__(self, path: str | os.PathLike[str] = "memory") -> None:
        self.path = Path(path)
        self._catalogue = Catalogue("")
        self._specs: dict[str, FeatureSpec] = {}
        self._arrays: dict[tuple[str, str], NDArray[Any]] = {}

    def writer(
        self,
        recording: str,
        spec: FeatureSpec,
        *,
        frames: int,
        row_shape: tuple[int, ...],
        source: SourceIdentity | None = None,
        versions: Mapping[str, str] | None = None,
        video_id: str = "",
    ) -> StagedItem:
        """Begin an item."""

        def publish(record: ItemRecord, sink: Sink) -> ItemRecord:
            assert isinstance(sink, _ArraySink)
            self._specs[spec.id] = spec
            self._arrays[recording, spec.id] = sink.rows
            return self._acknowledge(record)

        return StagedItem(
            recording,
            spec,
            frames=frames,
            row_shape=row_shape,
            source=source,
            versions=versions,
            video_id=video_id,
            open_sink=_ArraySink,
            publish=publish,
            discard=lambda sink: None,
        )

    def publish(
        self,
        recording: str,
        spec: FeatureSpec,
        rows: NDArray[Any],
        *,
        source: SourceIdentity | None = None,
        seconds: float = 0.0,
        versions: Mapping[str, str] | None = None,
        video_id: str = "",
    ) -> ItemRecord:
        """Write a whole item at once."""
        rows = np.asarray(rows)
        about: dict[str, Any] = {"source": source, "versions": versions, "video_id": video_id}
        with self.writer(recording, spec, frames=len(rows), row_shape=rows.shape[1:], **about) as item:
            item.append(rows)
            return item.commit(seconds=seconds)

    def fail(
        self,
        recording: str,
        spec: FeatureSpec,
        reason: str,
        *,
        source: SourceIdentity | None = None,
        seconds: float = 0.0,
    ) -> ItemRecord:
        """Record a failure."""
        self._specs[spec.id] = spec
        reason = " ".join(reason.split())
        return self._acknowledge(
            ItemRecord(recording, spec.id, "failed", source=source, seconds=seconds, reason=reason, time_utc=now_utc())
        )

    def delete(self, recording: str, feature: str) -> None:
        """Remove an item."""
        self.published(recording, feature)
        self._acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))
        del self._arrays[recording, feature]

    def _acknowledge(self, record: ItemRecord) -> ItemRecord:
        self._catalogue.apply(Line((self._catalogue.last_seq + 1, ""), record))
        return record

    def record(self, recording: str, feature: str) -> ItemRecord | None:
        """The newest record of an item."""
        return self._catalogue.newest(recording, feature)

    def records(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The newest record of every item, deleted ones left out."""
        return self._catalogue.records(feature)

    def published(self, recording: str, feature: str) -> ItemRecord:
        """The record of the data `read` reads. Raises KeyError."""
        record = self._catalogue.published(recording, feature)
        if record is None:
            raise KeyError(f"no item {recording!r} of feature {feature!r} in {self.path}")
        return record

    def read(self, recording: str, feature: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows [start, stop), read-only."""
        self.published(recording, feature)
        rows = self._arrays[recording, feature]
        stop = len(rows) if stop is None else stop
        if not 0 <= start <= stop <= len(rows):
            raise range_error(recording, feature, start, stop, len(rows))
        return rows[start:stop]

    def read_into(self, out: NDArray[Any], recording: str, feature: str, start: int = 0) -> None:
        """Copy rows [start, start + len(out)) into ``out``."""
        out[...] = self.read(recording, feature, start, start + len(out))

    def spec(self, feature: str) -> FeatureSpec:
        """The spec of a feature id. Raises KeyError."""
        if feature not in self._specs:
            raise KeyError(f"no feature {feature!r} in {self.path}")
        return self._specs[feature]

    def features(self) -> list[FeatureSpec]:
        """Every feature anything was published of, by id."""
        return [self._specs[feature] for feature in sorted(self._specs)]

    def verify(self, *, quick: bool = False) -> list[str]:
        """One line per item whose bytes have changed."""
        return [
            f"{record.feature}, recording {record.recording!r}: checksum differs"
            for record in self._catalogue.all_published()
            if not quick and _crc(self._arrays[record.recording, record.feature]) != record.crc32c
        ]

    def refresh(self) -> None:
        """Nothing: nobody else can publish here."""

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _crc(rows: NDArray[Any]) -> int:
    crc: int = google_crc32c.value(rows.reshape(-1).view(np.uint8))
    return crc
