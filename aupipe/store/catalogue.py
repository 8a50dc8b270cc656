"""What the store holds, in memory: every item's newest record, folded from the journals of all writers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from aupipe.store.base import ItemRecord
from aupipe.store.journal import Line, read_lines

Key = tuple[str, str]  # recording, feature


@dataclass
class Entry:
    """All that lines say of one item, whatever order they are read in."""

    newest: Line
    done: Line | None = None
    deleted: tuple[int, str] = (0, "")

    def published(self) -> ItemRecord | None:
        """The record of the data that can be read: the newest publication, unless it was deleted since."""
        return self.done.record if self.done and self.done.order > self.deleted else None


class Catalogue:
    """The index of a store: `refresh` reads what the journals say since it was last asked."""

    def __init__(self, journals: str) -> None:
        self.journals = journals
        self._entries: dict[Key, Entry] = {}
        self._read: dict[str, int] = {}  # journal file -> bytes understood
        self.last_seq = 0

    def apply(self, line: Line) -> None:
        """Take in one line; the order of calls does not matter."""
        record = line.record
        key = (record.recording, record.feature)
        entry = self._entries.setdefault(key, Entry(line))
        if line.order > entry.newest.order:
            entry.newest = line
        if record.state == "done" and (entry.done is None or line.order > entry.done.order):
            entry.done = line
        if record.state == "deleted":
            entry.deleted = max(entry.deleted, line.order)
        self.last_seq = max(self.last_seq, line.order[0])

    def refresh(self) -> set[Key]:
        """Read what was journalled since the last call. Returns the items something new was said of."""
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
        """The newest record of an item, failures and deletions too."""
        entry = self._entries.get((recording, feature))
        return entry.newest.record if entry else None

    def published(self, recording: str, feature: str) -> ItemRecord | None:
        """The record of an item's readable data, or None."""
        entry = self._entries.get((recording, feature))
        return entry.published() if entry else None

    def records(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The newest record of every item, deleted ones left out, by feature and recording."""
        for key in sorted(self._entries, key=lambda key: (key[1], key[0])):
            newest = self._entries[key].newest.record
            if newest.state != "deleted" and feature in (None, key[1]):
                yield newest

    def all_published(self) -> Iterator[ItemRecord]:
        """The record of everything that can be read, by feature and recording."""
        for key in sorted(self._entries, key=lambda key: (key[1], key[0])):
            record = self._entries[key].published()
            if record is not None:
                yield record

    def _journal_names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.journals) if name.endswith(".jsonl"))
        except FileNotFoundError:
            return []
