"""The merged index: what matters of the lines of all journals, up to some byte of each, in one SQLite file.

The files are ``index/index-<n>-<crc32c of the file>.sqlite``. One is written to a temporary path, then renamed, and
never changed. It is read into memory whole: no lock is needed, and it may be removed while processes use it.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import google_crc32c

from aupipe.errors import DamageError
from aupipe.store.log.journal import Line
from aupipe.store.record_json import bare_record
from aupipe.store.records import ItemState
from aupipe.types import SourceIdentity

NAME = re.compile(r"index-(\d{8})-([0-9a-f]{8})\.sqlite")
STATES: tuple[Literal["done", "failed", "deleted"], ...] = ("done", "failed", "deleted")
# Columns of an item's lines beside those that are joined; NULL is the default of the field.
PLAIN = ("frames", "valid_frames", "nbytes", "offset", "crc32c", "metadata_crc32c", "revision", "seconds", "time_utc")
SHARED = ("shape", "dtype", "video_id", "reason", "damage", "media", "versions")  # numbers of JSON texts
COLUMNS = ("seq", "journal", "state", "source", *PLAIN, *SHARED)
_NAMES = ", ".join(map('"{}"'.format, COLUMNS))
SCHEMA = f"""
CREATE TABLE journals (id INTEGER PRIMARY KEY, name TEXT UNIQUE, bytes INTEGER, merged INTEGER, ended_ns INTEGER);
CREATE TABLE features (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE recordings (id INTEGER PRIMARY KEY, name BLOB UNIQUE);
CREATE TABLE texts (id INTEGER PRIMARY KEY, json TEXT UNIQUE);
CREATE TABLE sources (id INTEGER PRIMARY KEY, size INTEGER, mtime_ns INTEGER, digest TEXT, folder INTEGER);
CREATE TABLE lines (feature INTEGER, recording INTEGER, rank INTEGER, {_NAMES},
    PRIMARY KEY (feature, recording, rank)) WITHOUT ROWID;
CREATE TABLE garbage (recording BLOB, feature TEXT, revision TEXT, since_ns INTEGER,
    PRIMARY KEY (recording, feature, revision)) WITHOUT ROWID;
"""
_SELECT = f"SELECT {_NAMES}, size, mtime_ns, digest, folder FROM lines LEFT JOIN sources ON sources.id = source "
Key = tuple[str, str]  # recording, feature
Revision = tuple[str, str, str]  # recording, feature, revision

# Held by whoever uses a connection, so that no thread is inside of SQLite when the process forks.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class JournalPart(NamedTuple):
    """How much of a journal an index file holds."""

    bytes: int
    merged: bool = False  # all of it, for good: its writer has ended
    ended_ns: int = 0  # when a collector first found that its writer had ended, by the file system's clock


def index_paths(folder: str) -> list[str]:
    """The paths of all index files, newest first."""
    try:
        names = [name for name in os.listdir(folder) if NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in sorted(names, reverse=True)]


def index_number(path: str) -> int:
    """The number of an index file."""
    match = NAME.fullmatch(os.path.basename(path))
    return int(match[1]) if match else 0


def read_checked(path: str) -> bytes:
    """The content of an index file. Raises DamageError where it has not the checksum in its name, OSError."""
    with open(path, "rb") as file:
        content = file.read()
    match = NAME.fullmatch(os.path.basename(path))
    if match is None or int(match[2], 16) != google_crc32c.value(content):
        raise DamageError(f"{path} is damaged: `aupipe store verify --repair`")
    return content


def is_intact(path: str) -> bool:
    """Whether an index file is what was written; also when it was removed meanwhile, for a newer one."""
    try:
        read_checked(path)
    except FileNotFoundError:
        return True
    except DamageError:
        return False
    return True


class _States(dict[int, ItemState]):
    """The states by 3 * number of the source + number of the state: one object for all features of a file."""

    def __init__(self, sources: list[SourceIdentity | None]) -> None:
        super().__init__()
        self.sources = sources

    def __missing__(self, code: int) -> ItemState:
        state = self[code] = ItemState(STATES[code % 3], self.sources[code // 3])
        return state


class IndexFile:
    """A loaded index file. Records are made when asked for: 400,000 of them at once would take time and memory."""

    def __init__(self, path: str) -> None:
        """Load a file. Raises DamageError when it is not what was written, OSError."""
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.deserialize(read_checked(path))
        self._texts: dict[int, Any] = {}
        self._features = {name: number for number, name in self._rows("SELECT id, name FROM features")}
        self._journals: dict[int, str] = {}
        self.journals: dict[str, JournalPart] = {}
        for number, name, size, merged, ended_ns in self._rows("SELECT * FROM journals"):
            self._journals[number] = name
            if size is not None:  # else a journal that was removed, whose name orders its lines
                self.journals[name] = JournalPart(size, bool(merged), ended_ns)

    @property
    def features(self) -> list[str]:
        return list(self._features)

    @property
    def garbage(self) -> dict[Revision, int]:
        """Revisions that were replaced, deleted or never published, and since when (ns of the file system's clock)."""
        rows = self._rows("SELECT * FROM garbage")
        return {(decode_name(recording), feature, revision): since for recording, feature, revision, since in rows}

    @property
    def damaged(self) -> list[Key]:
        """(recording, feature) of every line with damaged media."""
        found = self._rows(
            "SELECT recordings.name, features.name FROM lines JOIN recordings ON recordings.id = recording "
            "JOIN features ON features.id = feature WHERE damage IS NOT NULL"
        )
        return [(decode_name(recording), feature) for recording, feature in found]

    def lines(self, recording: str, feature: str) -> list[Line]:
        """The lines of an item: the newest, the last publication and the last deletion, the newest first."""
        number = self._features.get(feature)
        where = "WHERE feature = ? AND recording = (SELECT id FROM recordings WHERE name = ?) ORDER BY rank"
        return [
            self._line(row, recording, feature) for row in self._rows(_SELECT + where, number, encode_name(recording))
        ]

    def items(self, feature: str) -> Iterator[tuple[str, list[Line]]]:
        """Each recording of a feature with the lines of its item, by recording."""
        number = self._features.get(feature)
        names = self._rows(
            "SELECT name, id FROM recordings WHERE id IN (SELECT recording FROM lines WHERE feature = ?) ORDER BY name",
            number,
        )
        for content, recording in names:
            name = decode_name(content)
            rows = self._rows(_SELECT + "WHERE feature = ? AND recording = ? ORDER BY rank", number, recording)
            yield name, [self._line(row, name, feature) for row in rows]

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """The newest state and source of every item of some features, by recording."""
        names: list[str | None] = [None] * self._end_of("recordings")
        for number, name in self._rows("SELECT id, name FROM recordings"):
            names[number] = decode_name(name)
        made = _States([None] * self._end_of("sources"))
        for number, *source in self._rows("SELECT id, size, mtime_ns, digest, folder FROM sources"):
            made.sources[number] = self._source(source)
        columns = []
        for feature in features:
            # one text of all numbers is parsed several times faster than as many rows are fetched
            ((recordings, codes),) = self._rows(
                "SELECT json_group_array(recording), json_group_array(coalesce(source, 0) * 3 + state) FROM lines "
                "WHERE feature = ? AND rank = 0",
                self._features.get(feature),
            )
            column: list[ItemState | None] = [None] * len(names)
            for number, state in zip(json.loads(recordings), map(made.__getitem__, json.loads(codes)), strict=True):
                column[number] = state
            columns.append(column)
        rows = zip(names, zip(*columns, strict=True), strict=False)
        return {name: row for name, row in rows if name is not None and any(row)}

    def _end_of(self, table: str) -> int:
        """One more than the largest number of a table."""
        ((last,),) = self._rows(f"SELECT coalesce(max(id), 0) FROM {table}")
        return int(last) + 1

    def copy_into(self, db: sqlite3.Connection) -> None:
        """Copy everything into an empty database."""
        with _lock:
            self._db.backup(db)

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with _lock:
            return self._db.execute(query, values).fetchall()

    def _text(self, number: int) -> Any:
        if number not in self._texts:
            ((text,),) = self._rows("SELECT json FROM texts WHERE id = ?", number)
            self._texts[number] = json.loads(text)
        return self._texts[number]

    def _source(self, row: Sequence[Any] | None) -> SourceIdentity | None:
        if not row:
            return None
        size, mtime_ns, digest, folder = row
        return SourceIdentity(size, mtime_ns, digest, self._text(folder))

    def _line(self, row: Sequence[Any], recording: str, feature: str) -> Line:
        *row, size, mtime_ns, digest, folder = row
        known = {name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None}
        seq, journal = known.pop("seq"), self._journals[known.pop("journal")]
        known["state"] = STATES[known["state"]]
        for name in SHARED:
            if name in known:
                known[name] = self._text(known[name])
        if "shape" in known:
            known["shape"] = tuple(known["shape"])
        if "source" in known:
            known["source"] = self._source((size, mtime_ns, digest, folder))
        defaults: dict[str, Any] = {"versions": {}, "media": {}}
        return Line((seq, journal), bare_record(defaults | known | {"recording": recording, "feature": feature}))


def encode_name(name: str) -> bytes:
    """Any string as bytes in the same order; one with half a surrogate pair is no text to SQLite."""
    return name.encode("utf-8", "surrogatepass")


def decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
