"""Writing index files: see `aupipe.store.log.index_file`."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np

from aupipe.store import fs
from aupipe.store.log.index_file import (
    COLUMNS,
    PLAIN,
    SCHEMA,
    SHARED,
    STATES,
    IndexFile,
    JournalPart,
    Key,
    Revision,
    decode_name,
    encode_name,
    pack_state,
)
from aupipe.store.log.journal import Line


class _Numbers:
    """Numbers of the values in a table, which are added to it when they are first asked for."""

    def __init__(self, db: sqlite3.Connection, table: str, *columns: str) -> None:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        self._db, self._insert = db, f"INSERT INTO {table} ({names}) VALUES ({marks})"
        self._known = {row[1:]: row[0] for row in db.execute(f"SELECT id, {names} FROM {table}")}

    def of(self, *value: Any) -> int:
        number = self._known.get(value)
        if number is None:
            number = self._known[value] = int(self._db.execute(self._insert, value).lastrowid or 0)
        return number


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
    db.execute("UPDATE journals SET bytes = NULL")
    rows = [(*part, numbers.of(name)) for name, part in journals.items()]
    db.executemany("UPDATE journals SET bytes = ?, merged = ?, ended_ns = ? WHERE id = ?", rows)


def _put_lines(db: sqlite3.Connection, items: Iterable[tuple[Key, Sequence[Line]]], new: bool) -> None:
    journals, features = _Numbers(db, "journals", "name"), _Numbers(db, "features", "name")
    recordings, texts = _Numbers(db, "recordings", "name"), _Numbers(db, "texts", "json")
    sources = _Numbers(db, "sources", "size", "mtime_ns", "digest", "folder")
    insert = f"INSERT INTO lines VALUES ({', '.join('?' * (len(COLUMNS) + 3))})"
    for (recording, feature), lines in items:
        key = (features.of(feature), recordings.of(encode_name(recording)))
        if not new:
            db.execute("DELETE FROM lines WHERE feature = ? AND recording = ?", key)
        for rank, ((seq, journal), record) in enumerate(lines):
            source = record.source and sources.of(*record.source[:3], texts.of(json.dumps(record.source.folder)))
            plain = (getattr(record, name) or None for name in PLAIN)
            shared = (_json(getattr(record, name)) for name in SHARED)
            numbers = (text and texts.of(text) for text in shared)
            state = STATES.index(record.state)
            db.execute(insert, (*key, rank, seq, journals.of(journal), state, source, *plain, *numbers))


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


def _json(value: Any) -> str | None:
    """A value that lines share as JSON, None for a default."""
    if not value:
        return None
    return json.dumps(dict(value), separators=(",", ":")) if isinstance(value, Mapping) else _dumps(value)


@lru_cache(maxsize=1 << 16)
def _dumps(value: Any) -> str:
    return json.dumps(value)
