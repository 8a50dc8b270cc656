"""What is known of one item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aupipe.store.log.line import Line
from aupipe.store.records import ItemRecord


@dataclass(slots=True)
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


def entry_of(lines: Sequence[Line]) -> Entry:
    """The entry of an item with these lines, at least one."""
    entry = Entry(lines[0])
    for line in lines:
        entry.apply(line)
    return entry
