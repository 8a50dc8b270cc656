"""Stored features as arrays: ``store["swin_t"]["clip.mp4"][100:400]``."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aupipe.quantities import counted, describe_bytes
from aupipe.registry import nearest
from aupipe.store import adapters
from aupipe.store.reader import ItemReader
from aupipe.store.records import ItemRecord
from aupipe.types import Features, FeatureSpec

if TYPE_CHECKING:
    import dask.array
    import torch
    import xarray

BLOCK_ROWS = 256  # read at a time by an iteration over the rows
BLOCK_BYTES = 16 << 20  # read at a time to find out which rows are valid
GAP_ROWS = 16  # rows at most this far apart are read in one piece, with those between them


def derive_valid_in_blocks(store: ItemReader, record: ItemRecord) -> NDArray[np.bool_]:
    """(T,) `derive_valid` of a stored item, of which no more than `BLOCK_BYTES` are read at a time."""
    step = max(1, BLOCK_BYTES // max(1, record.nbytes // max(1, record.frames)))
    starts = range(0, record.frames, step)
    parts = [store.read(record.recording, record.feature, at, min(at + step, record.frames)) for at in starts]
    return np.concatenate([np.empty(0, bool), *map(derive_valid, parts)])


def derive_valid(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """(T,) True for rows that carry data. A row is invalid when it is NaN, and it is then NaN in every element.

    Raises ValueError for whole numbers, which have no NaN: the store knows which of them are valid (`read_valid`).
    """
    if rows.dtype.kind != "f":
        raise ValueError(f"rows of {rows.dtype} do not say which of them are valid: ask the store (read_valid)")
    first = rows.reshape(len(rows), math.prod(rows.shape[1:]))[:, :1]  # (T, 1); without elements, no row is valid
    return ~np.isnan(first[:, 0]) if first.size else np.zeros(len(rows), dtype=bool)


def feature_view(store: ItemReader, feature: str) -> FeatureView:
    """The items of a feature, by id or name; of a name that several have, or none, of what `ItemReader.prefer` says.

    Raises KeyError.
    """
    specs = store.features()
    found = [spec for spec in specs if feature in (spec.id, spec.name)]
    if len(found) != 1 and store.prefer is not None:
        chosen = store.prefer(feature, specs)
        found = [spec for spec in specs if spec.id == chosen] or found
    if not found:
        known = sorted({spec.name for spec in specs})
        raise KeyError(f"no feature {feature!r}.{nearest(feature, known)} There are: {', '.join(known) or 'none'}")
    if len(found) > 1:
        ids = ", ".join(spec.id for spec in found)
        raise KeyError(f"several features are named {feature!r}; ask for one by its id: {ids}")
    return FeatureView(store, found[0])


def feature_names(store: ItemReader) -> list[str]:
    """What `feature_view` takes for each feature: its name, or its id where several features have that name."""
    specs = store.features()
    names = [spec.name for spec in specs]
    return [spec.name if names.count(spec.name) == 1 else spec.id for spec in specs]


def has_feature(store: ItemReader, feature: object) -> bool:
    """Whether at least one feature has this id or this name."""
    return any(feature in (spec.id, spec.name) for spec in store.features())


class FeatureView(Mapping[str, "ItemView"]):
    """The published items of one feature, by recording."""

    def __init__(self, store: ItemReader, spec: FeatureSpec) -> None:
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

    def to_xarray(self) -> xarray.DataArray:
        """All items one after another, read when they are computed with: the dimension ``row``.

        Its coordinates are ``recording`` (a number: the id is ``array.recording.names[number]``), ``frame`` (from 0),
        ``valid`` and ``time`` in s (NaN where it is not known). Raises UsageError without xarray.
        """
        return adapters.join_to_xarray(list(self.values()), self.spec.name, self.spec.id, self.spec.columns)

    def __repr__(self) -> str:
        sizes = [record.nbytes for record in self.store.all_published(self.spec.id)]
        return f"<{self.spec.id}: {counted(len(sizes), 'recording')}, {describe_bytes(sum(sizes))}>"


class ItemView:
    """One feature of one recording: an array (T, ...) to numpy, torch, pandas and xarray, with the time of each row."""

    def __init__(self, store: ItemReader, spec: FeatureSpec, record: ItemRecord) -> None:
        self.store, self.spec, self.record = store, spec, record
        self.shape, self.dtype, self.ndim = record.shape, np.dtype(record.dtype), len(record.shape)

    @property
    def columns(self) -> list[str]:
        """The names of the values of a row, flattened; their numbers where the encoder names none."""
        names = adapters.flat_names(self.shape[1:], self.spec.columns)
        return names or [str(number) for number in range(math.prod(self.shape[1:]))]

    def __len__(self) -> int:
        return self.record.frames

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """The rows, read `BLOCK_ROWS` at a time."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield from self._read(start, min(start + BLOCK_ROWS, len(self)))

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Rows, indexed as numpy arrays are; only those asked for are read.

        Raises IndexError for a row beyond the end, as numpy does.
        """
        first, *rest = index if isinstance(index, tuple) else (index,)
        if first is None or first is Ellipsis or isinstance(first, bool | np.bool_):
            return self._read(0, len(self))[index]
        if isinstance(first, slice):
            return self._slice(first, rest)
        try:
            row = operator.index(first)
        except TypeError:
            return self._take(np.asarray(first), rest)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {self!r}: it has rows 0 to {len(self) - 1}")
        row %= len(self)
        return self._read(row, row + 1)[(0, *rest)]

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        return self.store.read(self.record.recording, self.record.feature, start, stop)

    def _slice(self, rows: slice, rest: list[Any]) -> NDArray[Any]:
        wanted = range(*rows.indices(len(self)))
        if not wanted:
            return self._read(0, 0)[(slice(None), *rest)]
        if abs(wanted.step) > GAP_ROWS:
            return self._take(np.array(wanted), rest)
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        return self._read(low, high + 1)[(slice(None, None, wanted.step), *rest)]

    def _take(self, rows: NDArray[Any], rest: list[Any]) -> NDArray[Any]:
        """Rows by their numbers, in any order and with repetitions, or by a mask."""
        if rows.dtype == bool:
            if rows.ndim != 1:  # a mask of elements
                return self._read(0, len(self))[(rows, *rest)]
            if len(rows) != len(self):
                raise IndexError(f"a mask of {len(rows)} rows for {self!r}")
            rows = np.flatnonzero(rows)
        if not rows.size:
            rows = rows.astype(np.intp)
        if rows.dtype.kind not in "iu":
            raise IndexError(f"rows of {self!r} are indexed by integers, slices, and arrays of integers or booleans")
        if rows.size and not -len(self) <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self!r}: it has rows 0 to {len(self) - 1}")
        wanted, positions = np.unique(rows % max(len(self), 1), return_inverse=True)
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > GAP_ROWS) + 1):
            if len(run):
                first = int(wanted[run[0]])
                found[run] = self._read(first, int(wanted[run[-1]]) + 1)[wanted[run] - first]
        return found[(positions.reshape(rows.shape), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows; a read-only view of the mapped file where no copy and no other dtype is asked for."""
        return np.array(self._read(0, len(self)), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        """A copy of all rows, for torch, which would convert them one by one without this method."""
        return np.array(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(T,) True for rows that carry data."""
        return self.store.read_valid(self.record.recording, self.record.feature)

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """(T,) the time of each row in s, from the clock the feature was computed with.

        Raises KeyError when the feature names no clock, or the store does not hold it.
        """
        if self.spec.modality == "clock":
            return np.asarray(self[:], np.float64).reshape(-1)
        if "clock" not in self.spec.inputs:
            raise KeyError(f"{self.spec.id} names no clock among its inputs, so its rows have no times")
        times = self.store.read_times(self.record.recording, self.record.feature)
        if times is None:
            video = self.record.video_id or self.record.recording
            raise KeyError(f"no clock of {len(self)} rows ({self.spec.inputs['clock']}) of {video!r}: extract it again")
        return times

    def features(self) -> Features:
        """All rows with their times and their validity."""
        return Features(self[:], self.pts_s, self.valid, {"recording": self.record.recording, "spec": self.spec})

    def to_numpy(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows (T, ...), as `numpy.asarray` gives them: without a copy they are a read-only view of the file."""
        return self.__array__(dtype, copy)

    def to_torch(self, dtype: Any = None) -> torch.Tensor:
        """All rows as a tensor (T, ...) of its own memory. Raises UsageError without torch."""
        return adapters.to_torch(np.array(self), dtype)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row per frame and a column per value, named as `columns` where they have names.

        The index is the time in s where the store knows it, else the frame's number, from 0. Raises UsageError without
        pandas.
        """
        return adapters.to_pandas(
            np.array(self), self.known_times(), adapters.flat_names(self.shape[1:], self.spec.columns)
        )

    def to_xarray(self) -> xarray.DataArray:
        """The rows as a view of the file, with the coordinates ``valid`` and, if known, ``time``.

        Raises UsageError without xarray.
        """
        about = {"recording": self.record.recording, "feature": self.record.feature}
        return adapters.to_xarray(
            self.to_numpy(), self.known_times(), self.valid, self.spec.name, about, self.spec.columns
        )

    def known_times(self) -> NDArray[np.float64] | None:
        """`pts_s`, None where the times are not known."""
        try:
            return self.pts_s
        except KeyError:
            return None

    def dask(self, chunk_rows: int = 4096) -> dask.array.Array:
        """A dask array (T, ...) in chunks of ``chunk_rows`` rows; each worker opens the store itself.

        Raises UsageError without dask.
        """
        dask_array = adapters.optional_package("dask.array", "dask")
        name = f"aupipe-{self.record.feature}-{self.record.revision}-{self.record.crc32c:08x}-{chunk_rows}"
        chunks = (chunk_rows, *self.shape[1:])
        array: dask.array.Array = dask_array.from_array(self, chunks=chunks, name=name, asarray=False, fancy=False)
        return array

    def __repr__(self) -> str:
        size = describe_bytes(math.prod(self.shape) * self.dtype.itemsize)
        return f"<{self.record.recording!r}, {self.spec.id}: {self.shape} {self.dtype}, {size}>"
