"""Items in memory: for tests, and for work that nobody wants to keep."""

from __future__ import annotations

import os
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.store.items import ItemStore, PlainRows
from aupipe.store.log.index import Catalogue
from aupipe.store.log.journal import Line
from aupipe.store.protocol import ItemRecord
from aupipe.store.writer import Layout, Sink, now_utc
from aupipe.types import FeatureSpec


class ArraySink:
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


class MemoryStore(ItemStore):
    """The store protocol over a dict; gone with the process. ``path`` is a name, nothing is written there."""

    backend = "memory"

    def __init__(self, path: str | os.PathLike[str] = "memory") -> None:
        super().__init__(path, Catalogue(""))
        self._arrays: dict[tuple[str, str], PlainRows] = {}

    def _stage(self, spec: FeatureSpec, layout: Layout) -> ArraySink:
        return ArraySink(layout)

    def _publish(self, spec: FeatureSpec, record: ItemRecord, sink: Sink) -> ItemRecord:
        assert isinstance(sink, ArraySink)
        self._make_feature(spec)
        self._arrays[record.recording, record.feature] = PlainRows(sink.rows)
        return self._acknowledge(record)

    def _discard(self, sink: Sink) -> None:
        pass

    def _make_feature(self, spec: FeatureSpec) -> None:
        self._specs.setdefault(spec.id, spec)

    def _acknowledge(self, record: ItemRecord) -> ItemRecord:
        self._catalogue.apply(Line((self._catalogue.last_seq + 1, ""), record))
        return record

    def _rows(self, recording: str, feature: str) -> PlainRows:
        self.published(recording, feature)
        return self._arrays[recording, feature]

    def delete(self, recording: str, feature: str) -> None:
        """Remove an item."""
        self.published(recording, feature)
        self._acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))
        del self._arrays[recording, feature]

    def spec(self, feature: str) -> FeatureSpec:
        """The spec of a feature id. Raises KeyError."""
        if feature not in self._specs:
            raise KeyError(f"no feature {feature!r} in {self.path}")
        return self._specs[feature]

    def features(self) -> list[FeatureSpec]:
        """Every feature anything was said of, by id."""
        return [self._specs[feature] for feature in sorted(self._specs)]

    def verify(self, *, quick: bool = False) -> list[str]:
        """One line per item whose bytes have changed."""
        return [
            f"{record.feature}, recording {record.recording!r}: checksum differs"
            for record in self.all_published()
            if not quick and _crc(self.read(record.recording, record.feature)) != record.crc32c
        ]

    def refresh(self) -> None:
        """Nothing: nobody else can publish here."""

    def close(self) -> None:
        """Nothing to let go of."""


def _crc(rows: NDArray[Any]) -> int:
    crc: int = google_crc32c.value(rows.reshape(-1).view(np.uint8))
    return crc
