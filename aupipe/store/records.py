"""What a store records of each item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from aupipe.types import SourceIdentity


class ItemState(NamedTuple):
    """What planning needs of an item."""

    state: Literal["done", "failed", "deleted"]
    source: SourceIdentity | None


@dataclass(frozen=True)
class ItemRecord:
    """The record of one (recording, feature): that it was published, that it failed, or that it was deleted.

    The order of the fields is that of the keys in a journal line (`aupipe.store.record_json`).
    """

    recording: str  # the recording's id, as given
    feature: str  # the feature's id, name@key
    state: Literal["done", "failed", "deleted"]
    frames: int = 0
    valid_frames: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = ""
    nbytes: int = 0  # size of the data file
    offset: int = 0  # of the array's first byte in the data file
    crc32c: int = 0  # of the array's bytes, C order, little endian
    metadata_crc32c: int = 0  # of every other byte of the item's files
    revision: str = ""  # of this publication, unique; part of the item's path
    video_id: str = ""  # the id the clock is stored under, where it is not that of the recording
    source: SourceIdentity | None = None
    seconds: float = 0.0  # spent computing
    reason: str = ""  # of a failure, one line
    damage: str = ""  # of the media it was computed from, one line; empty for an intact file
    media: Mapping[str, Any] = field(default_factory=dict)  # stream -> counts that decoding it gave
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries that computed it
    time_utc: str = ""
