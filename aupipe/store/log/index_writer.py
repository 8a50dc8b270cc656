"""Writing index files: see `aupipe.store.log.index_file`."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np

from aupipe.store import fs
from aupipe.store.log.index_file import (
    COLUMNS,
    NAMES,
    PLAIN,
    SCHEMA,
    SHARED,
    STATES,
    IndexFile,
    JournalPart,
    Revision,
    decode_name,
    encode_name,
    pack_state,
    shorten_revision,
    shorten_time,
)
from aupipe.store.log.line import Key, Line


class _Numbers:
    """Numbers of the values in a table; `save` adds those that are new."""

    def __init__(self, db: sqlite3.Connection, table: str, *columns: str) -> None:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        self._db, self._insert = db, f"INSERT INTO {table} ({names}, id) VALUES ({marks}, ?)"
        self._known = {row[1:]: row[0] for row in db.execute(f"SELECT id, {names} FROM {table}")}
        self._saved = len(self._known)
        self._last = max(self._known.values(), default=0)

    def of(self, *value: Any) -> int:
        number = self._known.get(value)
        if number is None:
            self._last = number = self._known[value] = self._last + 1
        return number

    def save(self) -> None:
        new = itertools.islice(self._known.items(), self._saved, None)
        self._db.executemany(self._insert, ((*value, number) for value, number in new))
        self._saved = len(self._known)


def write_index(
    folder: str,
    staged: str,
    number: int,
    base: IndexFile | None,
    items: Iterable[tuple[Key, Sequence[Line]]],
    journals: Mapping[str, JournalPart],
    garbage: Mapping[Revision, int],
    *,
    without: str | None = None,
) -> str:
    """Write index file ``number``: ``base`` with the lines of some items replaced, without a recording.

    It is written to ``staged`` and renamed into ``folder``. Returns its path.
    """
    db = sqlite3.connect(":memory:", isolation_level=None)
    if base:
        base.copy_into(db)
    else:
        db.executescript(SCHEMA)
    db.execute("PRAGMA secure_delete = ON")
    db.execute("BEGIN")
    _put_journals(db, journals)
    _put_lines(db, items, new=base is None)
    db.execute("DELETE FROM garbage")
    rows = ((encode_name(recording), *rest, since_ns) for (recording, *rest), since_ns in garbage.items())
    db.executemany("INSERT INTO garbage VALUES (?, ?, ?, ?)", rows)
    if without is not None:
        _forget(db, without)
    db.execute("DELETE FROM journals WHERE bytes IS NULL AND id NOT IN (SELECT journal FROM lines)")
    _pack_states(db)
    db.execute("COMMIT")
    if without is not None:
        db.execute("VACUUM")
    content = db.serialize()
    db.close()
    path = os.path.join(folder, f"index-{number:08d}-{google_crc32c.value(content):08x}.sqlite")
    fs.write_file(staged, [content])
    fs.make_folders(folder)
    fs.rename(staged, path)
    return path


def _put_journals(db: sqlite3.Connection, journals: Mapping[str, JournalPart]) -> None:
    numbers = _Numbers(db, "journals", "name")
    rows = [(*part, numbers.of(name)) for name, part in journals.items()]
    numbers.save()
    db.execute("UPDATE journals SET bytes = NULL")
    db.executemany("UPDATE journals SET bytes = ?, merged = ?, ended_ns = ? WHERE id = ?", rows)


def _put_lines(db: sqlite3.Connection, items: Iterable[tuple[Key, Sequence[Line]]], new: bool) -> None:
    journals, features = _Numbers(db, "journals", "name"), _Numbers(db, "features", "name")
    recordings, texts = _Numbers(db, "recordings", "name"), _Numbers(db, "texts", "json")
    sources = _Numbers(db, "sources", "size", "mtime_ns", "digest", "folder")

    def rows(key: Key, lines: Sequence[Line]) -> Iterator[tuple[Any, ...]]:
        item = features.of(key[1]), recordings.of(encode_name(key[0]))
        for rank, ((seq, journal), record) in enumerate(lines):
            source = record.source and sources.of(*record.source[:3], texts.of(_json(record.source.folder)))
            fields = vars(record)  # without those that have their default
            shared = [texts.of(_json(value)) if (value := fields.get(name)) else None for name in SHARED]
            place = (rank, seq, journals.of(journal), STATES.index(record.state), source)
            revision = shorten_revision(record.revision, seq, journal) if record.revision else None
            time_utc = shorten_time(record.time_utc) if record.time_utc else None
            yield *item, *place, *map(fields.get, PLAIN), revision, time_utc, *shared

    if not new:
        items = list(items)
        known = ((features.of(feature), recordings.of(encode_name(recording))) for (recording, feature), _ in items)
        db.executemany("DELETE FROM lines WHERE feature = ? AND recording = ?", known)
    marks = ", ".join("?" * (len(COLUMNS) + 3))
    insert = f"INSERT INTO lines (feature, recording, rank, {NAMES}) VALUES ({marks})"
    db.executemany(insert, itertools.chain.from_iterable(itertools.starmap(rows, items)))
    for numbers in (journals, features, recordings, texts, sources):
        numbers.save()


def _pack_states(db: sqlite3.Connection) -> None:
    """Write what planning reads of every item: all names, and states with sources as int32, by the recording's number.

    That is read in a fifth of the time in which as many rows are fetched.
    """
    ((last,),) = db.execute("SELECT coalesce(max(id), 0) FROM recordings")
    names: list[str | None] = [None] * (last + 1)
    for number, name in db.execute("SELECT id, name FROM recordings"):
        names[number] = decode_name(name)
    db.execute("DELETE FROM names")
    db.execute("INSERT INTO names VALUES (?)", (json.dumps(names, separators=(",", ":")),))
    db.execute("DELETE FROM states")
    for (feature,) in db.execute("SELECT id FROM features").fetchall():
        packed = np.zeros(last + 1, "<i4")
        query = "SELECT recording, state, coalesce(source, 0) FROM lines WHERE feature = ? AND rank = 0"
        rows = np.array(db.execute(query, (feature,)).fetchall(), np.int64).reshape(-1, 3)
        packed[rows[:, 0]] = pack_state(rows[:, 1], rows[:, 2])
        db.execute("INSERT INTO states VALUES (?, ?)", (feature, packed.tobytes()))


def _forget(db: sqlite3.Connection, recording: str) -> None:
    """Remove a recording, and every text that only its lines have."""
    name = (encode_name(recording),)
    db.execute("DELETE FROM lines WHERE recording = (SELECT id FROM recordings WHERE name = ?)", name)
    db.execute("DELETE FROM garbage WHERE recording = ?", name)
    used = " UNION ".join(f"SELECT {name} FROM lines WHERE {name} IS NOT NULL" for name in SHARED)
    db.execute("DELETE FROM recordings WHERE id NOT IN (SELECT recording FROM lines)")
    db.execute("DELETE FROM sources WHERE id NOT IN (SELECT source FROM lines WHERE source IS NOT NULL)")
    db.execute(f"DELETE FROM texts WHERE id NOT IN ({used} UNION SELECT folder FROM sources)")


def _json(value: Any) -> str:
    """A value that lines share as JSON."""
    return _encode_once(value) if isinstance(value, str | tuple) else _encode(dict(value))


_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_once = lru_cache(maxsize=1 << 16)(_encode)
