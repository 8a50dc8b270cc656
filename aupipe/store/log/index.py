"""The index of a store, in memory: the newest index file, and the lines that all journals have gained since."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from aupipe.errors import DamageError
from aupipe.gc_pause import gc_paused
from aupipe.store.log.entry import Entry, entry_of
from aupipe.store.log.index_file import IndexFile, JournalPart, Revision, index_number, index_paths
from aupipe.store.log.index_writer import write_index
from aupipe.store.log.journal import Tail, read_tail
from aupipe.store.log.line import Key, Line, parse_state, parse_text
from aupipe.store.records import ItemRecord, ItemState

log = logging.getLogger(__name__)

_lock = threading.RLock()  # held while an index changes; also at a fork, so that a child finds none half changed
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Index:
    """The records of all items. `refresh` adds what other processes have written since the last call.

    ``journals`` and ``files`` are the folders of journals and index files; without them the index holds what is given
    to `apply`.
    """

    def __init__(self, journals: str = "", files: str = "") -> None:
        self.journals, self.files = journals, files
        self._entries: dict[Key, Entry] = {}
        self._unparsed: dict[Key, tuple[bytes, str]] = {}  # items of one line: its text, and its journal
        self._file: IndexFile | None = None
        self._newest: str | None = None  # path of the newest index file, whether or not it could be read; "": none
        self._read: dict[str, int] = {}  # journal -> bytes read
        self._ended: set[str] = set()  # journals that were read to their end and gain no more lines
        self.superseded: dict[Revision, str] = {}  # of lines after the file; journal of the line that replaced it
        self.tail = 0  # lines that are not in the file

    def apply(self, line: Line, start: int = 0, size: int = 0) -> None:
        """Add one line, which is the bytes from ``start`` to ``size`` of its journal where those are given.

        The journal counts as read up to there only where it was read up to the line: another thread may have written
        what is before it, and not have added that yet.
        """
        with _lock:
            key = (line.record.recording, line.record.feature)
            entry = self._entry(key) or Entry(line)
            before = entry.published()
            entry.apply(line)
            self._entries[key] = entry
            self.tail += 1
            if size > self._read.get(line.order[1], 0) >= start:
                self._read[line.order[1]] = size
            self._note_superseded(entry, before, line.record)

    def _note_superseded(self, entry: Entry, *records: ItemRecord | None) -> None:
        current = entry.published()
        for record in records:
            if record is None or record.state != "done":
                continue
            revision = (record.recording, record.feature, record.revision)
            if current is not None and current.revision == record.revision:
                self.superseded.pop(revision, None)
            else:
                self.superseded[revision] = max(line.order for line in (entry.done, entry.deleted) if line)[1]

    def refresh(self) -> set[Key] | None:
        """Read what other processes have written since the last call.

        Returns the items of new lines; None where any may have changed: the first time, and with a newer index file.
        """
        with _lock, gc_paused():
            reloaded, changed = False, []
            while True:
                paths = index_paths(self.files) if self.files else []
                newest = paths[0] if paths else ""
                if newest != self._newest:
                    self._load(paths)
                    reloaded = True
                changed += self._read_journals()
                # A collector may have removed journals between the two listings: their lines are in a newer file.
                if not self.files or index_paths(self.files)[:1] == paths[:1]:
                    return None if reloaded else set(changed)

    def _load(self, paths: list[str]) -> None:
        """Start again from the newest of some index files that is intact."""
        self._newest = paths[0] if paths else ""
        self._file = None
        for path in paths:
            try:
                self._file = IndexFile(path)
                break
            except DamageError as error:
                log.warning("%s; an older index and the journals are read instead", error)
            except FileNotFoundError:  # removed meanwhile: there is a newer one
                continue
        parts = self._file.journals if self._file else {}
        self._entries, self._unparsed, self.superseded, self.tail = {}, {}, {}, 0
        self._read = {name: part.bytes for name, part in parts.items()}
        self._ended = {name for name, part in parts.items() if part.merged}

    def _read_journals(self) -> list[Key]:
        changed: list[Key] = []
        for name in sorted(set(self.journal_names()) - self._ended):
            path, start = os.path.join(self.journals, name), self._read.get(name, 0)
            try:
                if start and os.stat(path).st_size <= start:
                    continue
                tail = read_tail(path, start)
            except FileNotFoundError:  # removed meanwhile: its lines are in a newer index file
                continue
            self._read[name] = tail.end
            self._add(tail, name)
            changed += tail.keys
            if tail.closed:
                self._ended.add(name)
        return changed

    def _add(self, tail: Tail, journal: str) -> None:
        """Add lines of a journal. The first one of an item is parsed when it is asked for: most never are."""
        texts = list(zip(tail.texts, itertools.repeat(journal), strict=False))
        if self._file is None and not self._entries:  # nearly always all are new, and then are added at once
            new = dict(zip(tail.keys, texts, strict=True))
            if len(new) == len(texts) and self._unparsed.keys().isdisjoint(new):
                self._unparsed.update(new)
                self.tail += len(new)
                return
        for key, text in zip(tail.keys, texts, strict=True):
            if key in self._unparsed or key in self._entries or (self._file is not None and key in self._file):
                if line := parse_text(*text):
                    self.apply(line)
            else:
                self._unparsed[key] = text
                self.tail += 1

    def journal_names(self) -> list[str]:
        """The names of all journals."""
        try:
            return [name for name in os.listdir(self.journals) if name.endswith(".jsonl") and name.isascii()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def last_seq(self, recording: str, feature: str) -> int:
        """The number of an item's newest line, 0 where there is none."""
        entry = self._entry((recording, feature))
        return entry.newest.order[0] if entry else 0

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
        for entry in self._all_entries(feature):
            if entry.newest.record.state != "deleted":
                yield entry.newest.record

    def all_published(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The records of all items that can be read, by feature and recording."""
        for entry in self._all_entries(feature):
            record = entry.published()
            if record is not None:
                yield record

    def damaged(self) -> Iterator[ItemRecord]:
        """The records of all readable items computed from damaged media, by feature and recording."""
        with _lock:
            keys = set(self._file.damaged) if self._file else set()
            keys |= {key for key, (text, _) in self._unparsed.items() if b'"damage"' in text}
            keys |= {key for key, entry in self._entries.items() if entry.done and entry.done.record.damage}
        for recording, feature in sorted(keys, key=lambda key: key[::-1]):
            record = self.published(recording, feature)
            if record is not None and record.damage:
                yield record

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """The newest state and source of every item of some features, by recording; None where there is no record."""
        new: dict[str, dict[str, ItemState]] = {feature: {} for feature in features}
        with _lock, gc_paused():
            states = self._file.states(features) if self._file else {}
            for (recording, feature), entry in self._entries.items():
                if feature in new:
                    new[feature][recording] = ItemState(entry.newest.record.state, entry.newest.record.source)
            for (recording, feature), (text, _) in self._unparsed.items():
                if feature in new and (state := parse_state(text)):
                    new[feature][recording] = state
            for recording in dict.fromkeys(itertools.chain.from_iterable(new.values())):
                known = states.get(recording, (None,) * len(features))
                row = [new[feature].get(recording, state) for feature, state in zip(features, known, strict=True)]
                states[recording] = tuple(row)
        return states

    def _new_keys(self) -> list[Key]:
        """The items that have lines after the index file."""
        with _lock:
            return [*self._entries, *self._unparsed]

    def _all_entries(self, feature: str | None) -> Iterator[Entry]:
        """The entry of every item (of one feature), by feature and recording."""
        own: dict[str, set[str]] = {}
        with _lock:
            keys, file = self._new_keys(), self._file
        for recording, other in keys:
            own.setdefault(other, set()).add(recording)
        for name in sorted({*own, *(file.features if file else ())}):
            if feature not in (None, name):
                continue
            changed = own.get(name, set())
            stored = file.items(name) if file else iter(())
            for recording, lines in heapq.merge(((key, []) for key in sorted(changed)), stored, key=itemgetter(0)):
                entry = entry_of(lines) if lines else self._entry((recording, name))
                if entry is not None and (not lines or recording not in changed):
                    yield entry

    def _entry(self, key: Key) -> Entry | None:
        with _lock:  # `refresh` begins anew where there is a newer index file
            if key in self._unparsed and (line := parse_text(*self._unparsed.pop(key))):
                self._entries[key] = entry_of([line])
            entry = self._entries.get(key)
            if entry is None and self._file is not None:
                lines = self._file.lines(*key)
                entry = entry_of(lines) if lines else None
            return entry

    # The index file --------------------------------------------------------------------------------------------------

    def filed(self) -> dict[str, JournalPart]:
        """How much of each journal is in the index file."""
        return self._file.journals if self._file else {}

    def parts(self) -> dict[str, JournalPart]:
        """How much of each journal was read that exists or is missing without having been merged."""
        filed, there = self.filed(), set(self.journal_names())
        parts = {name: filed.get(name, JournalPart(0))._replace(bytes=size) for name, size in self._read.items()}
        parts |= {name: parts[name]._replace(merged=True) for name in self._ended if name in parts}
        return {name: part for name, part in parts.items() if name in there or not part.merged}

    def filed_garbage(self) -> dict[Revision, int]:
        """What `garbage` returned when the index file was written."""
        return self._file.garbage if self._file else {}

    def garbage(self, now_ns: int) -> dict[Revision, int]:
        """The revisions that were replaced or deleted, and since when at the latest, by the file system's clock.

        ``now_ns`` stands where that is not known otherwise. Those that are published (again) are left out.
        """
        found = self.filed_garbage()
        for revision, journal in list(self.superseded.items()):
            try:
                since_ns = os.stat(os.path.join(self.journals, journal)).st_mtime_ns  # its last line is not older
            except OSError:
                since_ns = now_ns
            found.setdefault(revision, since_ns)
        return {key: since_ns for key, since_ns in found.items() if not self._is_published(*key)}

    def _is_published(self, recording: str, feature: str, revision: str) -> bool:
        record = self.published(recording, feature)
        return record is not None and record.revision == revision

    def write_file(
        self,
        staged: str,
        garbage: Mapping[Revision, int],
        parts: Mapping[str, JournalPart],
        without: str | None = None,
    ) -> str:
        """Write everything but one recording into the next index file, by way of ``staged``. Returns its path.

        Its number is one more than that of the file which it was made from. So a process that is stopped for long here
        does not hide what others have written meanwhile.
        """
        with _lock, gc_paused():
            items = ((key, self._new_lines(key)) for key in sorted(self._new_keys(), key=itemgetter(1, 0)))
            number = index_number(self._newest or "") + 1
            return write_index(self.files, staged, number, self._file, items, parts, garbage, without=without)

    def _new_lines(self, key: Key) -> list[Line]:
        """The lines of an item that has lines after the index file; none of a line that cannot be parsed."""
        if key in self._entries:
            return self._entries[key].lines()
        line = parse_text(*self._unparsed[key])  # not kept: what is written is read from the file next
        return [line] if line is not None else []
