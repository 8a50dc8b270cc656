"""The index of a store, in memory: the newest snapshot, and the lines that all journals have gained since."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aupipe.errors import DamageError
from aupipe.gc_pause import gc_paused
from aupipe.store import fs
from aupipe.store.log.journal import Line, read_lines
from aupipe.store.log.snapshot import NAME, Snapshot, is_intact, snapshot_paths, write_snapshot
from aupipe.store.records import ItemRecord, ItemState

Key = tuple[str, str]  # recording, feature
log = logging.getLogger(__name__)


@dataclass
class Entry:
    """The lines of one item that matter, in whatever order they are read."""

    newest: Line
    done: Line | None = None  # the newest publication
    deleted: Line | None = None  # the newest deletion

    def published(self) -> ItemRecord | None:
        """The record of the data that can be read: the newest publication, unless it was deleted since."""
        if self.done is None or (self.deleted is not None and self.deleted.order > self.done.order):
            return None
        return self.done.record

    def apply(self, line: Line) -> None:
        """Add one line; the order of calls does not matter."""
        if line.order > self.newest.order:
            self.newest = line
        if line.record.state == "done" and (self.done is None or line.order > self.done.order):
            self.done = line
        if line.record.state == "deleted" and (self.deleted is None or line.order > self.deleted.order):
            self.deleted = line

    def lines(self) -> list[Line]:
        """The lines that matter, the newest first."""
        lines = {line.order: line for line in (self.newest, self.done, self.deleted) if line is not None}
        return [lines[order] for order in sorted(lines, reverse=True)]


class Index:
    """The records of all items. `refresh` adds the lines that the journals have gained since the last call.

    ``journals`` and ``snapshots`` are folders; without them the index holds what is given to `apply`.
    """

    def __init__(self, journals: str = "", snapshots: str = "") -> None:
        self.journals = journals
        self._entries: dict[Key, Entry] = {}
        self._snapshot = _load_newest(snapshots) if snapshots else None
        self._read = dict(self._snapshot.consumed) if self._snapshot else {}  # journal file -> bytes read
        self.last_seq = self._snapshot.last_seq if self._snapshot else 0
        self.tail = 0  # lines that are not in the snapshot

    def apply(self, line: Line) -> None:
        """Add one line."""
        key = (line.record.recording, line.record.feature)
        entry = self._entry(key)
        if entry is None:
            entry = Entry(line)
        entry.apply(line)
        self._entries[key] = entry
        self.last_seq = max(self.last_seq, line.order[0])
        self.tail += 1

    def refresh(self) -> set[Key]:
        """Add the lines that the journals have gained since the last call. Returns the items they are of."""
        changed = set()
        for name in self._journal_names():
            path, start = os.path.join(self.journals, name), self._read.get(name, 0)
            if os.path.getsize(path) <= start:
                continue
            lines, self._read[name] = read_lines(path, start)
            for line in lines:
                self.apply(line)
                changed.add((line.record.recording, line.record.feature))
        return changed

    def newest(self, recording: str, feature: str) -> ItemRecord | None:
        """The newest record of an item, failures and deletions included."""
        entry = self._entry((recording, feature))
        return entry.newest.record if entry else None

    def published(self, recording: str, feature: str) -> ItemRecord | None:
        """The record of an item's readable data, or None."""
        entry = self._entry((recording, feature))
        return entry.published() if entry else None

    def records(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The newest record of every item, deleted ones left out, by feature and recording."""
        for entry in self.entries(feature):
            if entry.newest.record.state != "deleted":
                yield entry.newest.record

    def all_published(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The records of all items that can be read, by feature and recording."""
        for entry in self.entries(feature):
            record = entry.published()
            if record is not None:
                yield record

    def damaged(self) -> Iterator[ItemRecord]:
        """The records of all readable items computed from damaged media, by feature and recording."""
        keys = set(self._snapshot.damaged) if self._snapshot else set()
        keys |= {key for key, entry in list(self._entries.items()) if entry.done and entry.done.record.damage}
        for recording, feature in sorted(keys, key=lambda key: key[::-1]):
            record = self.published(recording, feature)
            if record is not None and record.damage:
                yield record

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """The newest state and source of every item of some features, by recording; None where there is no record."""
        with gc_paused():
            states = self._snapshot.states(features) if self._snapshot else {}
            unknown = (None,) * len(features)
            for (recording, feature), entry in list(self._entries.items()):  # another thread may publish meanwhile
                if feature in features:
                    record, row = entry.newest.record, states.get(recording, unknown)
                    state = ItemState(record.state, record.source)
                    states[recording] = tuple(
                        state if name == feature else known for name, known in zip(features, row, strict=True)
                    )
        return states

    def entries(self, feature: str | None = None) -> Iterator[Entry]:
        """The entry of every item, by feature and recording."""
        tail: dict[str, set[str]] = {}
        for recording, other in list(self._entries):
            tail.setdefault(other, set()).add(recording)
        for name in sorted({*tail, *(self._snapshot.features if self._snapshot else ())}):
            if feature not in (None, name):
                continue
            recordings = set(self._snapshot.recordings_of(name)) if self._snapshot else set()
            for recording in sorted(recordings | tail.get(name, set())):
                entry = self._entry((recording, name))
                if entry is not None:
                    yield entry

    def consumed(self) -> dict[str, int]:
        """How many bytes of each journal were read."""
        return dict(self._read)

    def _entry(self, key: Key) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None and self._snapshot is not None:
            for line in self._snapshot.lines(*key):
                entry = entry or Entry(line)
                entry.apply(line)
        return entry

    def _journal_names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.journals) if name.endswith(".jsonl"))
        except FileNotFoundError:
            return []


def _load_newest(folder: str) -> Snapshot | None:
    """The newest intact snapshot; None means that the journals are read from their beginning."""
    for path in snapshot_paths(folder):
        try:
            return Snapshot(path)
        except DamageError as error:
            log.warning("%s; the journals are read instead", error)
        except FileNotFoundError:  # replaced by a newer one meanwhile
            return _load_newest(folder)
    return None


def compact(journals: str, snapshots: str, staged: str) -> str:
    """Write the lines of all journals into a new snapshot, by way of the file ``staged``. Returns its path.

    Any process may do this at any time, while others write: the journals stay, and each snapshot holds how many bytes
    of them it was made from.
    """
    older = snapshot_paths(snapshots)
    match = NAME.fullmatch(os.path.basename(older[0])) if older else None
    number = int(match[1]) + 1 if match else 1
    index = Index(journals, snapshots)
    index.refresh()
    lines = (line for entry in index.entries() for line in entry.lines())
    path = write_snapshot(snapshots, staged, lines, index.consumed(), number)
    for old in older:
        if is_intact(old):  # a damaged one stays, for `verify` to report
            fs.try_remove(old)
    return path
