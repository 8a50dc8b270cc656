"""A store in memory, for tests and for work whose features are not kept."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.store.formats.protocol import Beside, Layout, PlainRows, Sink
from aupipe.store.items import ItemStore
from aupipe.store.log.index import Index
from aupipe.store.log.line import Line
from aupipe.store.records import ItemRecord
from aupipe.store.writer import now_utc
from aupipe.types import FeatureSpec


class ArraySink:
    """A sink that collects the rows in one array."""

    def __init__(self, layout: Layout) -> None:
        self.path, self.offset, self.nbytes = "", 0, layout.nbytes
        self.rows: NDArray[Any] = np.empty(layout.shape, layout.dtype)
        self.beside: Beside = {}
        self._filled = 0

    def write(self, rows: NDArray[Any]) -> None:
        self.rows[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def finish(self, item: ItemRecord, metadata: str, beside: Beside) -> int:
        self.rows.flags.writeable = False
        self.beside = beside
        return 0

    def close(self) -> None:
        pass


class MemoryStore(ItemStore):
    """The store protocol over a dict, lost with the process. ``path`` is only a name."""

    backend = "memory"

    def __init__(self, path: str | os.PathLike[str] = "memory") -> None:
        super().__init__(path, Index())
        self._arrays: dict[tuple[str, str], tuple[PlainRows, Beside]] = {}

    def _stage(self, spec: FeatureSpec, layout: Layout) -> ArraySink:
        return ArraySink(layout)

    def _publish(self, spec: FeatureSpec, record: ItemRecord, sink: Sink) -> ItemRecord:
        assert isinstance(sink, ArraySink)
        self._make_feature(spec)
        self._arrays[record.recording, record.feature] = PlainRows(sink.rows), sink.beside
        return self.acknowledge(record)

    def _discard(self, sink: Sink) -> None:
        pass

    def _make_feature(self, spec: FeatureSpec) -> None:
        self._specs.setdefault(spec.id, spec)
        self.name_columns(spec)

    def name_columns(self, spec: FeatureSpec) -> None:
        stored = self._specs[spec.id]
        if spec.columns and spec.columns != stored.columns:
            self._say_renamed(stored, spec)
            self._specs[spec.id] = spec

    def acknowledge(self, record: ItemRecord) -> ItemRecord:
        self.index.apply(Line((self.index.last_seq(record.recording, record.feature) + 1, ""), record))
        return record

    def _rows(self, recording: str, feature: str) -> PlainRows:
        self.published(recording, feature)
        return self._arrays[recording, feature][0]

    def _beside(self, record: ItemRecord, name: str) -> NDArray[Any] | None:
        return self._arrays[record.recording, record.feature][1].get(name) if name == "valid" else None

    def delete(self, recording: str, feature: str) -> None:
        self.published(recording, feature)
        self.acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))
        del self._arrays[recording, feature]

    def spec(self, feature: str) -> FeatureSpec:
        if feature not in self._specs:
            raise KeyError(f"no feature {feature!r} in {self.path}")
        return self._specs[feature]

    def features(self) -> list[FeatureSpec]:
        return [self._specs[feature] for feature in sorted(self._specs)]

    def check_writable(self) -> None:
        pass

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass
