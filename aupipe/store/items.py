"""What all backends share: the store protocol, made from an index of records and the rows of an item."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from aupipe.quantities import counted
from aupipe.store.aligned import wide_table
from aupipe.store.formats.protocol import Layout, Rows, Sink
from aupipe.store.log.index import Index
from aupipe.store.protocol import Store
from aupipe.store.reader import Prefer
from aupipe.store.records import ItemRecord, ItemState
from aupipe.store.view import FeatureView, derive_valid_in_blocks, feature_names, feature_view, has_feature
from aupipe.store.writer import StagedItem, now_utc
from aupipe.types import FeatureSpec, SourceIdentity

log = logging.getLogger(__name__)


class ItemStore(Store, ABC):
    """A store whose records are in an index; the docstrings of the public methods are those of `Store`."""

    backend = ""

    def __init__(self, path: str | os.PathLike[str], index: Index) -> None:
        self.path = Path(path)
        self.index = index
        self.prefer: Prefer | None = None
        self._specs: dict[str, FeatureSpec] = {}
        self._row_shapes: dict[str, tuple[int, ...]] = {}  # feature id -> shape of a row, where an item has one

    # What a backend adds ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _stage(self, spec: FeatureSpec, layout: Layout) -> Sink:
        """Begin an item under a temporary path."""

    @abstractmethod
    def _publish(self, spec: FeatureSpec, record: ItemRecord, sink: Sink) -> ItemRecord:
        """Move a finished item to its path, and acknowledge it."""

    @abstractmethod
    def _discard(self, sink: Sink) -> None:
        """Remove an item that was begun."""

    @abstractmethod
    def acknowledge(self, record: ItemRecord) -> ItemRecord:
        """Write a record durably and add it to the index. Returns it."""

    @abstractmethod
    def _make_feature(self, spec: FeatureSpec) -> None:
        """Store a feature's spec, if it is not stored yet."""

    @abstractmethod
    def _rows(self, recording: str, feature: str) -> Rows:
        """The rows of a published item. Raises KeyError, DamageError."""

    @abstractmethod
    def features(self) -> list[FeatureSpec]: ...

    @abstractmethod
    def spec(self, feature: str) -> FeatureSpec: ...

    @abstractmethod
    def delete(self, recording: str, feature: str) -> None: ...

    @abstractmethod
    def check_writable(self) -> None: ...

    @abstractmethod
    def refresh(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    # Publishing ------------------------------------------------------------------------------------------------------

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
        self._refuse_other_shape(recording, spec, tuple(row_shape))
        return StagedItem(
            recording,
            spec,
            frames=frames,
            row_shape=row_shape,
            source=source,
            versions=versions,
            video_id=video_id,
            read_times=partial(self._times, spec, video_id or recording, frames),
            open_sink=partial(self._stage, spec),
            publish=partial(self._publish, spec),
            discard=self._discard,
        )

    def _refuse_other_shape(self, recording: str, spec: FeatureSpec, row_shape: tuple[int, ...]) -> None:
        """Raises ValueError unless rows have the shape of those of the feature's other items."""
        if self._row_shapes.get(spec.id) == row_shape:
            return
        others = (item for item in self.all_published(spec.id) if item.recording != recording)
        other = next(others, None)
        if other is not None and other.shape[1:] != row_shape:
            raise ValueError(
                f"{spec.id}, recording {recording!r}: rows of shape {row_shape}, but those of {other.recording!r} are "
                f"{other.shape[1:]}; a feature has one width: raise the encoder's version, or delete its other items"
            )
        if other is not None:
            self._row_shapes[spec.id] = row_shape

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
        self._make_feature(spec)
        reason = " ".join(reason.split())
        return self.acknowledge(
            ItemRecord(recording, spec.id, "failed", source=source, seconds=seconds, reason=reason, time_utc=now_utc())
        )

    def _say_renamed(self, stored: FeatureSpec, spec: FeatureSpec) -> None:
        """Warn where a feature's columns had other names than ``spec`` gives them."""
        if stored.columns:
            old, new = ", ".join(stored.columns), ", ".join(spec.columns)
            log.warning("%s: the columns were named %s; now they are named %s", spec.id, old, new)

    # Records ---------------------------------------------------------------------------------------------------------

    def record(self, recording: str, feature: str) -> ItemRecord | None:
        return self.index.newest(recording, feature)

    def records(self, feature: str | None = None) -> Iterator[ItemRecord]:
        return self.index.records(feature)

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        return self.index.states(features)

    def published(self, recording: str, feature: str) -> ItemRecord:
        record = self.index.published(recording, feature)
        if record is None:
            raise KeyError(f"no item {recording!r} of feature {feature!r} in {self.path}")
        return record

    def all_published(self, feature: str | None = None) -> Iterator[ItemRecord]:
        return self.index.all_published(feature)

    def damaged(self) -> Iterator[ItemRecord]:
        return self.index.damaged()

    # Reading ---------------------------------------------------------------------------------------------------------

    def read(self, recording: str, feature: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        rows = self._rows(recording, feature)
        stop = rows.frames if stop is None else stop
        if not 0 <= start <= stop <= rows.frames:
            raise _range_error(recording, feature, start, stop, rows.frames)
        return rows.view(start, stop)

    def read_valid(self, recording: str, feature: str) -> NDArray[np.bool_]:
        record = self.published(recording, feature)
        if record.valid_frames in (0, record.frames):  # nothing to read
            return np.full(record.frames, record.valid_frames > 0)
        stored = self._beside(record, "valid")
        return stored if stored is not None else derive_valid_in_blocks(self, record)

    def read_times(self, recording: str, feature: str) -> NDArray[np.float64] | None:
        record = self.published(recording, feature)
        stored = self._beside(record, "time")
        if stored is None:
            return self._times(self.spec(feature), record.video_id or recording, record.frames)
        return stored

    def _beside(self, record: ItemRecord, name: str) -> NDArray[Any] | None:
        """What lies beside the array of an item by this name, or None."""
        return None

    def _times(self, spec: FeatureSpec, video_id: str, frames: int) -> NDArray[np.float64] | None:
        """(T,) the stored clock that a feature was computed with, or None where there is none of so many rows."""
        try:
            rows = self.read(video_id, spec.inputs["clock"])
        except KeyError:
            return None
        return np.array(rows, "<f8").reshape(-1) if rows.size == len(rows) == frames else None

    def read_into(self, out: NDArray[Any], recording: str, feature: str, start: int = 0) -> None:
        rows = self._rows(recording, feature)
        if start < 0 or start + len(out) > rows.frames:
            raise _range_error(recording, feature, start, start + len(out), rows.frames)
        rows.copy(start, out)

    def recordings(self) -> list[str]:
        return sorted({record.recording for record in self.all_published()})

    def to_frame(self, features: Sequence[str], recordings: Iterable[str] = (), *, allow_missing: bool = False) -> Any:
        return wide_table(self, features, recordings, allow_missing)

    def __getitem__(self, feature: str) -> FeatureView:
        return feature_view(self, feature)

    def __iter__(self) -> Iterator[str]:
        return iter(feature_names(self))

    def keys(self) -> list[str]:
        return feature_names(self)

    def __contains__(self, feature: object) -> bool:
        return has_feature(self, feature)

    def __len__(self) -> int:
        return len(self.features())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.path)!r}: {counted(len(self), 'feature')}>"

    def __bool__(self) -> bool:
        return True  # also without features, when `__len__` is 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _range_error(recording: str, feature: str, start: int, stop: int, frames: int) -> IndexError:
    return IndexError(f"{feature}, recording {recording!r}: rows [{start}, {stop}) of [0, {frames})")
