"""A store the way a person would guess it: ``store["swin_t"]["clip.mp4"][100:400]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aupipe.registry import nearest
from aupipe.store.base import ItemRecord, Store, derive_valid
from aupipe.types import Features, FeatureSpec

if TYPE_CHECKING:
    import dask.array


def feature_view(store: Store, feature: str) -> FeatureView:
    """The items of a feature, by id or by a name that only one feature has. Raises KeyError."""
    specs = store.features()
    found = [spec for spec in specs if feature in (spec.id, spec.name)]
    if not found:
        known = sorted({spec.name for spec in specs})
        raise KeyError(f"no feature {feature!r}.{nearest(feature, known)} There are: {', '.join(known) or 'none'}")
    if len(found) > 1:
        raise KeyError(f"several features are named {feature!r}; say which: {', '.join(spec.id for spec in found)}")
    return FeatureView(store, found[0])


class FeatureView(Mapping[str, "ItemView"]):
    """The published items of one feature, by recording."""

    def __init__(self, store: Store, spec: FeatureSpec) -> None:
        self.store, self.spec = store, spec

    def __getitem__(self, recording: str) -> ItemView:
        return ItemView(self.store, self.spec, self.store.published(recording, self.spec.id))

    def __iter__(self) -> Iterator[str]:
        return (record.recording for record in self.store.all_published(self.spec.id))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, recording: object) -> bool:
        try:
            return isinstance(recording, str) and bool(self[recording])
        except KeyError:
            return False

    def __repr__(self) -> str:
        return f"<{self.spec.id}: {len(self)} recordings>"


class ItemView:
    """One feature of one recording: slices like an array (T, ...), and knows its clock."""

    def __init__(self, store: Store, spec: FeatureSpec, record: ItemRecord) -> None:
        self.store, self.spec, self.record = store, spec, record
        self.shape, self.dtype, self.ndim = record.shape, np.dtype(record.dtype), len(record.shape)

    def __len__(self) -> int:
        return self.record.frames

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Rows, as numpy indexes: only the rows between the first and the last asked for are touched."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice) and (first.step or 1) > 0:
            start, stop, step = first.indices(len(self))
            rows = self.store.read(self.record.recording, self.record.feature, start, max(start, stop))[::step]
            return rows[(slice(None), *rest)] if rest else rows
        rows = self.store.read(self.record.recording, self.record.feature)
        return np.asarray(rows[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        rows = self[:]
        return np.array(rows, dtype=dtype, copy=copy)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(T,) True for rows that carry data."""
        return derive_valid(self[:])

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """(T,) the time of each row, from the stored clock the feature was computed with.

        Raises KeyError when the feature names no clock, or the store does not hold it.
        """
        if self.spec.modality == "clock":
            return np.asarray(self[:], np.float64)
        clock = self.spec.inputs.get("clock")
        if clock is None:
            raise KeyError(f"{self.spec.id} names no clock among its inputs, so its rows have no times")
        return np.asarray(self.store.read(self.record.video_id or self.record.recording, clock), np.float64)

    def features(self) -> Features:
        """Everything at once."""
        rows = self[:]
        return Features(rows, self.pts_s, derive_valid(rows), {"recording": self.record.recording, "spec": self.spec})

    def dask(self, chunk_rows: int = 4096) -> dask.array.Array:
        """A dask array (T, ...) in chunks of ``chunk_rows`` rows; workers open the store for themselves."""
        import dask.array

        name = f"aupipe-{self.record.feature}-{self.record.edition}-{self.record.crc32c:08x}-{chunk_rows}"
        chunks = (chunk_rows, *self.shape[1:])
        return dask.array.from_array(self, chunks=chunks, name=name, asarray=False, fancy=False)

    def __repr__(self) -> str:
        return f"<{self.record.recording!r}, {self.spec.id}: {self.shape} {self.dtype}>"
