"""The merged index: what matters of the lines of all journals, up to some byte of each, in one SQLite file.

The files are ``index/index-<n>-<crc32c of the file>.sqlite``. One is written to a temporary path, then renamed, and
never changed. It is read into memory whole: no lock is needed, and it may be removed while processes use it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.store.log.line import Key, Line
from aupipe.store.record_json import bare_record
from aupipe.store.records import ItemState
from aupipe.types import SourceIdentity

NAME = re.compile(r"index-(\d{8})-([0-9a-f]{8})\.sqlite")
STATES: tuple[Literal["done", "failed", "deleted"], ...] = ("done", "failed", "deleted")
# Columns of an item's lines beside those that are joined; NULL is the default of the field.
PLAIN = ("frames", "valid_frames", "nbytes", "offset", "crc32c", "metadata_crc32c", "seconds")
SHORT = ("revision", "time_utc")  # numbers: `shorten_revision`, `shorten_time`; texts where these return none
SHARED = ("shape", "dtype", "video_id", "reason", "damage", "media", "versions")  # numbers of JSON texts
COLUMNS = ("seq", "journal", "state", "source", *PLAIN, *SHORT, *SHARED)
NAMES = ", ".join(map('"{}"'.format, COLUMNS))
SCHEMA = f"""
CREATE TABLE journals (id INTEGER PRIMARY KEY, name TEXT UNIQUE, bytes INTEGER, merged INTEGER, ended_ns INTEGER);
CREATE TABLE features (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE recordings (name BLOB PRIMARY KEY, id INTEGER) WITHOUT ROWID;
CREATE TABLE texts (id INTEGER PRIMARY KEY, json TEXT UNIQUE);
CREATE TABLE sources (id INTEGER PRIMARY KEY, size INTEGER, mtime_ns INTEGER, digest TEXT, folder INTEGER);
CREATE TABLE lines (feature INTEGER, recording INTEGER, rank INTEGER, {NAMES},
    PRIMARY KEY (feature, recording, rank)) WITHOUT ROWID;
CREATE TABLE states (feature INTEGER PRIMARY KEY, packed BLOB);
CREATE TABLE names (json TEXT);
CREATE TABLE garbage (recording BLOB, feature TEXT, revision TEXT, since_ns INTEGER,
    PRIMARY KEY (recording, feature, revision)) WITHOUT ROWID;
"""
_JOINED, _SOURCES = f"{NAMES}, size, mtime_ns, digest, folder", "LEFT JOIN sources ON sources.id = source"
_SELECT = f"SELECT {_JOINED} FROM lines {_SOURCES} "
Revision = tuple[str, str, str]  # recording, feature, revision

_RANDOM = re.compile("[0-9a-f]{8}")
_TIME = re.compile("([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z")
_TIME_PARTS = re.compile("(.{4})" + "(..)" * 5)

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
            "SELECT recording, features.name FROM lines JOIN features ON features.id = feature WHERE damage IS NOT NULL"
        )
        names = self._names() if found else []  # the table of recordings has no index of their numbers
        return [(name, feature) for number, feature in found if (name := names[number]) is not None]

    def __contains__(self, key: Key) -> bool:
        """Whether there are lines of an item."""
        recording, feature = key
        where = "WHERE feature = ? AND recording = (SELECT id FROM recordings WHERE name = ?)"
        return bool(self._rows(f"SELECT 1 FROM lines {where}", self._features.get(feature), encode_name(recording)))

    def lines(self, recording: str, feature: str) -> list[Line]:
        """The lines of an item: the newest, the last publication and the last deletion, the newest first."""
        number = self._features.get(feature)
        where = "WHERE feature = ? AND recording = (SELECT id FROM recordings WHERE name = ?) ORDER BY rank"
        return [
            self._line(row, recording, feature) for row in self._rows(_SELECT + where, number, encode_name(recording))
        ]

    def items(self, feature: str) -> Iterator[tuple[str, list[Line]]]:
        """Each recording of a feature with the lines of its item, by recording."""
        with _lock:
            found = self._db.execute(
                f"SELECT name, {_JOINED} FROM recordings JOIN lines ON recording = recordings.id {_SOURCES} "
                "WHERE feature = ? ORDER BY name, rank",
                (self._features.get(feature),),
            )
        for content, rows in itertools.groupby(self._blocks(found), key=itemgetter(0)):
            name = decode_name(content)
            yield name, [self._line(row[1:], name, feature) for row in rows]

    def _blocks(self, found: sqlite3.Cursor) -> Iterator[Any]:
        while True:
            with _lock:
                rows = found.fetchmany(1000)
            if not rows:
                return
            yield from rows

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """The newest state and source of every item of some features, by recording."""
        names, sources = self._names(), self._sources()
        table: list[ItemState | None] = [None] * (1 + 3 * len(sources))  # by the numbers of `pack_state`
        columns: list[list[ItemState | None]] = []
        for feature in features:
            packed = self._rows("SELECT packed FROM states WHERE feature = ?", self._features.get(feature))
            codes = np.frombuffer(packed[0][0], "<i4") if packed else np.zeros(len(names), "<i4")
            for state in np.unique((codes[codes > 0] - 1) % 3).tolist():
                if table[1 + state] is None:
                    rows = zip(itertools.repeat(STATES[state]), sources, strict=False)
                    table[1 + state :: 3] = map(partial(tuple.__new__, ItemState), rows)
            columns.append(list(map(table.__getitem__, codes.tolist())))
        named = zip(names, zip(*columns, strict=True), strict=False)
        return {name: row for name, row in named if name is not None and any(row)}

    def _names(self) -> list[str | None]:
        """The recordings by their numbers; None where a number has none."""
        ((text,),) = self._rows("SELECT json FROM names")
        names: list[str | None] = json.loads(text)
        return names

    def _sources(self) -> list[SourceIdentity | None]:
        """The sources by their numbers; none is number 0."""
        # one text of a whole column is parsed several times faster than as many rows are fetched
        columns = ", ".join(f"json_group_array({name})" for name in ("id", "size", "mtime_ns", "digest", "folder"))
        (lists,) = self._rows(f"SELECT {columns} FROM sources")
        numbers, *values, folders = map(json.loads, lists)
        texts = {number: self._text(number) for number in set(folders)}
        rows = zip(*values, map(texts.__getitem__, folders), strict=True)
        # `tuple.__new__` takes two thirds of the time of a named tuple's own class
        found: list[SourceIdentity | None] = [None] * (1 + max(numbers, default=0))
        for number, source in zip(numbers, map(partial(tuple.__new__, SourceIdentity), rows), strict=True):
            found[number] = source
        return found

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
        if isinstance(known.get("revision"), int):
            known["revision"] = f"{_writer(seq, journal)}{known['revision']:08x}"
        if isinstance(known.get("time_utc"), int):
            known["time_utc"] = _TIME_PARTS.sub(r"\1-\2-\3T\4:\5:\6Z", f"{known['time_utc']:014}")
        for name in SHARED:
            if name in known:
                known[name] = self._text(known[name])
        if "shape" in known:
            known["shape"] = tuple(known["shape"])
        if "source" in known:
            known["source"] = self._source((size, mtime_ns, digest, folder))
        defaults: dict[str, Any] = {"versions": {}, "media": {}}
        return Line((seq, journal), bare_record(defaults | known | {"recording": recording, "feature": feature}))


def pack_state(state: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of states with sources in the table ``states``, where 0 is no state."""
    return 1 + state + 3 * source


def shorten_revision(revision: str, seq: int, journal: str) -> int | str:
    """The random number that ends a revision, where the rest is known of its line; else the revision."""
    random = revision[-8:]
    return int(random, 16) if revision == _writer(seq, journal) + random and _RANDOM.fullmatch(random) else revision


def _writer(seq: int, journal: str) -> str:
    """What the revision begins with that the process of a journal publishes with the line ``seq``."""
    return f"{seq}-{journal.rpartition('-')[0]}-"


def shorten_time(time_utc: str) -> int | str:
    """``2026-11-28T19:56:29Z`` as 20261128195629; anything else as it is."""
    match = _TIME.fullmatch(time_utc)
    return int("".join(match.groups())) if match else time_utc


def encode_name(name: str) -> bytes:
    """Any string as bytes in the same order; one with half a surrogate pair is no text to SQLite."""
    return name.encode("utf-8", "surrogatepass")


def decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
