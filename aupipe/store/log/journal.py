"""What was published, one line each: an append-only JSON-lines file per writer, never written by anybody else.

A line is ``{"crc32c":"<8 hex>","record":{...}}``; the checksum is of the record's text. A line is acknowledged once it
is fsynced, newline included. A torn last line was never acknowledged and says nothing.

Lines of different writers are ordered by ``seq``, a hybrid clock: nanoseconds of the wall clock, but always more than
any ``seq`` the writer has seen, so a clock that jumps back never makes a newer line the older one.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, NamedTuple

import google_crc32c

from aupipe.store import fs
from aupipe.store.protocol import ItemRecord
from aupipe.types import SourceIdentity

FEATURE_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}@[0-9a-f]{12}")
_EDITION = re.compile(r"([0-9a-f]{8})?")
_HEAD = b'{"crc32c":"'
_MIDDLE = b'","record":'
_PREFIX = len(_HEAD) + 8 + len(_MIDDLE)
_DEFAULTS = {f.name: f.default for f in fields(ItemRecord)}


class Line(NamedTuple):
    """A record and its place among all others: ``order`` is (seq, journal file)."""

    order: tuple[int, str]
    record: ItemRecord


def record_to_json(record: ItemRecord) -> dict[str, Any]:
    """The fields of a record that differ from their defaults, as JSON values."""
    content: dict[str, Any] = {"recording": record.recording, "feature": record.feature, "state": record.state}
    content |= {name: value for name, value in vars(record).items() if value and value != _DEFAULTS[name]}
    if record.source:
        content["source"] = list(record.source[:3])
        if record.source.folder:
            content["source_folder"] = record.source.folder
    if record.versions:
        content["versions"] = dict(record.versions)
    if record.media:
        content["media"] = dict(record.media)
    return content


def record_from_json(content: dict[str, Any]) -> ItemRecord:
    """The inverse of `record_to_json`; fields of a later version are passed over."""
    known = {name: value for name, value in content.items() if name in _DEFAULTS}
    known["feature"] = sys.intern(known["feature"])
    if "source" in known:
        known["source"] = _source(*known["source"][:3], content.get("source_folder", ""))
    if "shape" in known:
        known["shape"] = tuple(known["shape"])
    known["versions"] = _versions(tuple(known.get("versions", {}).items()))
    known.setdefault("media", {})
    return bare_record(known)


def bare_record(known: dict[str, Any]) -> ItemRecord:
    """A record with these fields, the others at their defaults; three times faster than the dataclass's own way."""
    record = object.__new__(ItemRecord)
    record.__dict__.update(
        known
    )  # a field that is not there is found as the class's default; `versions` and `media` have none
    return record


@lru_cache(maxsize=65536)
def _source(size: int, mtime_ns: int, digest: str, folder: str) -> SourceIdentity:
    return SourceIdentity(size, mtime_ns, digest, sys.intern(folder))  # one object for all features of a file


@lru_cache(maxsize=1024)
def _versions(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(items)  # one for all records that say the same


def encode_line(seq: int, record: ItemRecord) -> bytes:
    """One journal line, newline included. Text is ASCII: bytes that are not UTF-8 travel as ``\\udcXX`` escapes."""
    text = json.dumps(record_to_json(record) | {"seq": seq}, separators=(",", ":")).encode()
    return b"%s%08x%s%s}\n" % (_HEAD, google_crc32c.value(text), _MIDDLE, text)


def decode_line(line: bytes, journal: str) -> Line | None:
    """The record of a line without its newline, or None where the line is not what was written."""
    text = line[_PREFIX:-1]
    if not line.startswith(_HEAD) or line[len(_HEAD) : len(_HEAD) + 8] != b"%08x" % google_crc32c.value(text):
        return None
    if line[len(_HEAD) + 8 : _PREFIX] != _MIDDLE or line[-1:] != b"}":
        return None
    content = json.loads(text)
    seq = content.pop("seq")
    record = record_from_json(content)
    # both become part of a path: a line that would lead out of the store is no line of ours
    sane = FEATURE_ID.fullmatch(record.feature) and _EDITION.fullmatch(record.edition)
    return Line((seq, journal), record) if sane else None


@lru_cache(maxsize=1)
def machine() -> str:
    """8 hex for this machine since its last start, within one process namespace: where a pid means one process."""
    parts = [os.uname().nodename]
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass
    return f"{google_crc32c.value(' '.join(parts).encode()):08x}"


def writer_name() -> str:
    """``<machine>-<pid>-<8 hex>``: names what a process leaves, so that others can tell whether it still lives."""
    return f"{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def writer_is_dead(name: str) -> bool:
    """True when the process that `writer_name` named is known to be gone; False when it lives or nobody can tell."""
    where, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    if where != machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class Journal:
    """The journal of this process, made at its first line; a forked child gets one of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = ""
        self._fd = -1
        self._pid = 0
        self._last_seq = 0
        self._lock = threading.Lock()

    def saw(self, seq: int) -> None:
        """Lines appended from now on are newer than ``seq``."""
        self._last_seq = max(self._last_seq, seq)

    def append(self, record: ItemRecord) -> Line:
        """Acknowledge a record: when this returns the line is on the disk. Raises OSError when that is not sure."""
        if self._pid not in (0, os.getpid()):
            self._lock = threading.Lock()  # forked: the parent's may be held by a thread that is not here
        with self._lock:
            self._last_seq = max(self._last_seq + 1, time.time_ns())
            line = encode_line(self._last_seq, record)
            if self._pid != os.getpid():
                self._start()
            try:
                fs.write(self._fd, [line], self.path)
                fs.fsync(self._fd, self.path)
            except BaseException:
                self._forget()  # the file may end in half a line: the next one goes to a fresh journal
                raise
            return Line((self._last_seq, os.path.basename(self.path)), record)

    def _start(self) -> None:
        self._forget()
        fs.make_folders(self.folder)
        self.path = os.path.join(self.folder, f"{writer_name()}.jsonl")
        fd = fs.create(self.path)
        try:
            fs.fsync_folder(self.folder)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._pid = fd, os.getpid()

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)  # in a forked child this closes the child's copy only
        self._fd, self._pid = -1, 0

    def close(self) -> None:
        """Let go of the file; a later line starts another."""
        with self._lock:
            self._forget()


def read_lines(path: str, start: int = 0) -> tuple[list[Line], int]:
    """The good lines from byte ``start`` on, and the byte after the last whole line; damaged lines are passed over."""
    lines, end = [], start
    for content, stop in _split(path, start):
        end = stop
        line = decode_line(content, os.path.basename(path)) if content.strip() else None
        if line is not None:
            lines.append(line)
    return lines, end


def damaged_lines(path: str) -> Iterator[int]:
    """The numbers, from 1, of acknowledged lines that are no longer what was written. A blank line was purged."""
    number, end = 0, 0
    for content, stop in _split(path, 0):
        number, end = number + 1, stop
        if content.strip() and decode_line(content, "") is None:
            yield number
    with open(path, "rb") as file:
        file.seek(end)
        tail = file.read()
    if (
        tail[-1:] not in (b"", b"\n") and decode_line(tail[:-1], "") is not None
    ):  # a whole line whose newline has become something else
        yield number + 1


def restore_last_newline(path: str) -> bool:
    """Put back the last newline where that is all that is wrong with a journal. Returns whether it was."""
    *_, end = (0, *(stop for _, stop in _split(path, 0)))
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        tail = os.pread(fd, os.fstat(fd).st_size - end, end)
        if tail[-1:] in (b"", b"\n") or decode_line(tail[:-1], "") is None:
            return False
        fs.overwrite(fd, b"\n", end + len(tail) - 1, path)
        fs.fsync(fd, path)
        return True
    finally:
        os.close(fd)


def blank_lines(paths: Iterable[str], unwanted: Callable[[bytes], bool]) -> int:
    """Overwrite lines of some journals with spaces, in place: a live writer goes on appending to the same file.

    Oldest first, so that a purge that is broken off never leaves a publication without its deletion. Returns how many.
    """
    found = []
    for path in paths:
        for content, stop in _split(path, 0):
            if content.strip() and unwanted(content):
                line = decode_line(content, path)
                found.append((line.order if line else (0, ""), path, stop - 1 - len(content), len(content)))
    for _, path, start, length in sorted(found):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            fs.overwrite(fd, b" " * length, start, path)
            fs.fsync(fd, path)
        finally:
            os.close(fd)
    return len(found)


def _split(path: str, start: int) -> Iterator[tuple[bytes, int]]:
    """Each whole line after byte ``start`` without its newline, and the byte after it."""
    with open(path, "rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield line[:-1], start
