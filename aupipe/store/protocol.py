"""The contract of a feature store.

An item is one array ``(T, ...)``: one feature of one recording, one row per decoded frame, NaN where a row is invalid.
An item exists if and only if its publication was acknowledged (`ItemRecord` in the journal); a file that lies around
is not an item. Items are immutable: to change one is to publish it anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from aupipe.types import FeatureSpec, SourceIdentity

if TYPE_CHECKING:
    from aupipe.store.view import FeatureView


class ItemState(NamedTuple):
    """What planning needs to know of an item."""

    state: Literal["done", "failed", "deleted"]
    source: SourceIdentity | None


@dataclass(frozen=True)
class ItemRecord:
    """What is known of one (recording, feature): the acknowledged fact of its publication, or of its failure."""

    recording: str  # the id, as given
    feature: str  # the feature id, name@key
    state: Literal["done", "failed", "deleted"]
    frames: int = 0
    valid_frames: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = ""
    nbytes: int = 0  # of the data file, exactly
    offset: int = 0  # of the array's first byte in the data file
    crc32c: int = 0  # of the array's bytes, C order, little endian
    rest_crc32c: int = 0  # of every other byte of the item's files
    edition: str = ""  # 8 hex that tell this publication of the item from others
    video_id: str = ""  # what the clock is stored under, where that is not the recording itself
    source: SourceIdentity | None = None
    seconds: float = 0.0  # spent computing
    reason: str = ""  # of a failure, one line
    damage: str = ""  # what is wrong with the media it was computed from, one line; empty for a whole file
    media: Mapping[str, Any] = field(default_factory=dict)  # stream -> counts of what decoding it found
    versions: Mapping[str, str] = field(default_factory=dict)  # libraries that made it
    time_utc: str = ""


class ItemWriter(Protocol):
    """One item being written, invisible to everybody until `commit`.

    A context manager: leaving it without `commit` discards what was written and leaves the item as it was before.
    """

    crc32c: int  # of the rows appended so far

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n, ...), float, NaN in every element of an invalid row.

        Raises ValueError, naming feature, recording and row, for rows of another shape, for rows that are NaN in part
        or infinite, and for values the feature's dtype cannot hold (float16 ends at 65504).
        """
        ...

    def commit(self, *, seconds: float = 0.0, damage: str = "", media: Mapping[str, Any] | None = None) -> ItemRecord:
        """Publish atomically. ``damage`` and ``media`` are of the source: see `ItemRecord`.

        Raises ValueError unless exactly the announced number of rows was appended.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Store(Protocol):
    """Publish, read, status and delete by (recording, feature).

    Safe for any number of processes on any number of machines over one POSIX file system: nobody writes a file that
    somebody else writes, nothing is locked, double work is harmless and double publication impossible.
    """

    path: Any
    backend: str
    persistent: bool  # can be opened again by its path

    def published(self, recording: str, feature: str) -> ItemRecord:
        """The record of the data `read` reads, which a failure since has not changed. Raises KeyError."""
        ...

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
        """The newest acknowledged record of an item, or None when nothing was ever said of it."""
        ...

    def read(self, recording: str, feature: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows [start, stop) in the feature's dtype; a read-only view of the mapped file where the backend can.

        Raises KeyError when there is no such item, IndexError when the range leaves it, DamageError when the file is
        not the one that was published.
        """
        ...

    def read_into(self, out: NDArray[Any], recording: str, feature: str, start: int = 0) -> None:
        """Copy rows [start, start + len(out)) into ``out`` (n, ...), without an array in between; errors as `read`."""
        ...

    def spec(self, feature: str) -> FeatureSpec:
        """The spec of a feature id. Raises KeyError when the store does not know it."""
        ...

    def features(self) -> list[FeatureSpec]:
        """Every feature that has a `spec.json`, by id."""
        ...

    def records(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The newest record of every item (of one feature), deleted ones left out, without reading any data."""
        ...

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """State and source of every item of some features: one call to plan a whole corpus with.

        Recording -> one for each feature, None where nothing was ever said of the item.
        """
        ...

    def all_published(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The record of everything `read` can read, by feature and recording."""
        ...

    def damaged(self) -> Iterator[ItemRecord]:
        """The record of everything that can be read and was computed from damaged media, without looking at others."""
        ...

    def __getitem__(self, feature: str) -> FeatureView:
        """The items of a feature by recording, asked for by its id or by its name: ``store["hog"]["a.mp4"][10:20]``."""
        ...

    def __iter__(self) -> Iterator[str]:
        """What ``store[...]`` accepts for each feature: its name, or its id where several features have one name."""
        ...

    def __contains__(self, feature: object) -> bool:
        """Whether there is a feature of this id or name."""
        ...

    def __len__(self) -> int:
        """How many features there are."""
        ...

    def delete(self, recording: str, feature: str) -> None:
        """Remove an item and its bytes. Raises KeyError when there is none."""
        ...

    def verify(self, *, quick: bool = False) -> list[str]:
        """One line per damage found, naming recording and feature; quick compares sizes, full compares checksums."""
        ...

    def check_writable(self) -> None:
        """Raises OSError unless items could be published now; cheap, and asked before hours of work."""
        ...

    def refresh(self) -> None:
        """See what other processes have published since this store was opened."""
        ...

    def close(self) -> None:
        """Let go of maps and files. The store can be opened again at any time."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def derive_valid(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """(T,) True for rows that carry data. A row is invalid when it is NaN, and it is then NaN in every element."""
    first = rows.reshape(len(rows), math.prod(rows.shape[1:]))[:, :1]  # (T, 1); without elements, no row is valid
    return ~np.isnan(first[:, 0]) if first.size else np.zeros(len(rows), dtype=bool)
