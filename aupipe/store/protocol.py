"""The contract of a feature store, which `tests/store/contract.py` checks for every backend.

An item is one array ``(T, ...)``: one feature of one recording, one row per decoded frame, NaN where a row is invalid
(0 in a feature of whole numbers: `Store.read_valid` tells).
An item exists if and only if its publication was acknowledged (an `ItemRecord` in a journal); a file alone is not an
item. Items are immutable: to change one is to publish it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from aupipe.store.reader import ItemReader
from aupipe.store.records import ItemRecord, ItemState
from aupipe.store.view import FeatureView
from aupipe.types import FeatureSpec, SourceIdentity


class ItemWriter(Protocol):
    """One item being written, which no reader sees before `commit`.

    A context manager: leaving it without `commit` discards what was written and leaves the item as it was before.
    """

    crc32c: int  # of the rows appended so far

    def append(self, rows: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """Add rows (n, ...), float or of the feature's dtype, NaN in every element of an invalid row.

        ``valid`` (n,): which rows of whole numbers, that have no NaN, carry data; None: all.

        Raises ValueError, naming feature, recording and row, for rows of another shape, for rows that are NaN in part
        or infinite, and for values the feature's dtype cannot hold (float16 ends at 65504, uint8 has 0 to 255).
        """
        ...

    def commit(self, *, seconds: float = 0.0, damage: str = "", media: Mapping[str, Any] | None = None) -> ItemRecord:
        """Publish atomically. ``damage`` and ``media`` are of the source: see `ItemRecord`.

        Raises ValueError unless exactly the announced number of rows was appended.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Store(ItemReader, Protocol):
    """Publish, read, list and delete items by (recording, feature).

    Safe for any number of processes on any number of machines over one POSIX file system, without locks on files: each
    file has one writer, and two processes that publish the same item publish it once. Threads of a process may publish
    at once, each items of its own.
    """

    path: Any
    backend: str

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
    ) -> ItemWriter:
        """Begin an item of ``frames`` rows of shape ``row_shape``; memory stays bounded while rows are appended.

        Raises ValueError, naming both, where the feature has an item of another recording with rows of another shape.

        ``video_id`` is `Recording.video_id`, needed only where it differs from ``recording``: the clock is found by it.
        """
        ...

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
        """Write a whole item at once. Errors are those of `ItemWriter`."""
        ...

    def fail(
        self,
        recording: str,
        spec: FeatureSpec,
        reason: str,
        *,
        source: SourceIdentity | None = None,
        seconds: float = 0.0,
    ) -> ItemRecord:
        """Record that this item could not be made and why. An item published before stays readable."""
        ...

    def record(self, recording: str, feature: str) -> ItemRecord | None:
        """The newest acknowledged record of an item, or None when there is none."""
        ...

    def records(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The newest record of every item (of one feature), deleted ones left out, without reading any data."""
        ...

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """State and source of every item of some features: one call to plan a whole corpus with.

        Recording -> one entry for each feature, None where the item has no record.
        """
        ...

    def damaged(self) -> Iterator[ItemRecord]:
        """The records of all items that can be read and were computed from damaged media."""
        ...

    def read_into(self, out: NDArray[Any], recording: str, feature: str, start: int = 0) -> None:
        """Copy rows [start, start + len(out)) into ``out`` (n, ...), without an array in between; errors as `read`."""
        ...

    def spec(self, feature: str) -> FeatureSpec:
        """The spec of a feature id. Raises KeyError when the store does not know it."""
        ...

    def name_columns(self, spec: FeatureSpec) -> None:
        """Give a stored feature the names of columns that ``spec`` has, if any; names it had before are logged.

        They are not part of its key. Publishing does the same.
        """
        ...

    def delete(self, recording: str, feature: str) -> None:
        """Remove an item and its bytes. Raises KeyError when there is none."""
        ...

    def check_writable(self) -> None:
        """Raises OSError unless items could be published now; cheap, to be called before hours of work."""
        ...

    def refresh(self) -> None:
        """Read what other processes have published since the store was opened or last refreshed."""
        ...

    def close(self) -> None:
        """Close files and drop memory maps. The store can be used again afterwards."""
        ...

    def recordings(self) -> list[str]:
        """The ids under which anything can be read, sorted: recordings, and videos for what their recordings share."""
        ...

    def to_frame(self, features: Sequence[str], recordings: Iterable[str] = (), *, allow_missing: bool = False) -> Any:
        """One wide `pandas.DataFrame`: a row per frame, of several features of all recordings, or of these.

        Columns: ``recording``; ``frame``, counted from 0 as rows are; ``time_s``, NaN where the store does not know it;
        then a column ``<feature>.<name>`` for each value, ``hog.0`` where they have no names. Files of `aupipe predict`
        and `analyse` count frames from 1, as ABAW does: join by the time, or by ``frame + 1``.

        An invalid row is NaN; features of whole numbers have a column ``<feature>.valid``. float16 becomes
        float32. Everything is in memory: for a corpus, `aupipe store export --format parquet`.

        Raises UsageError for a recording that lacks one of the features, or where their numbers of frames differ;
        ``allow_missing`` leaves such recordings out. KeyError for an unknown feature, UsageError without pandas.
        """
        ...

    def __getitem__(self, feature: str) -> FeatureView:
        """The items of a feature by recording, asked for by its id or by its name: ``store["hog"]["a.mp4"][10:20]``.

        A name that several features have is that of the project, where the store was opened by `aupipe.open_store`.
        """
        ...

    def __iter__(self) -> Iterator[str]:
        """What ``store[...]`` takes for each feature: its name, or its id where several features have that name."""
        ...

    def keys(self) -> list[str]:
        """As `__iter__`: so that ``dict(store)`` has the items of every feature."""
        ...

    def __contains__(self, feature: object) -> bool:
        """Whether at least one feature has this id or name."""
        ...

    def __len__(self) -> int:
        """How many features there are."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
