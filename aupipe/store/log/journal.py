"""The journal: one append-only JSON-lines file per writing process, one line per record.

A line is ``{"crc32c":"<8 hex>","record":{...}}``; the checksum is of the record's text. A record is acknowledged once
its line is fsynced, newline included. A last line without its newline was never acknowledged and is ignored.

Lines of different writers are ordered by ``seq``, a hybrid clock: nanoseconds of the wall clock, but always more than
any ``seq`` the writer has observed, so a later line has the greater ``seq`` even when the wall clock jumps back.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import google_crc32c

from aupipe.store import fs
from aupipe.store.keys import FEATURE_ID
from aupipe.store.processes import writer_name
from aupipe.store.record_json import record_from_json, record_to_json
from aupipe.store.records import ItemRecord

_REVISION = re.compile(r"([0-9a-f]{8})?")
_HEAD = b'{"crc32c":"'
_MIDDLE = b'","record":'
_PREFIX = len(_HEAD) + 8 + len(_MIDDLE)


class Line(NamedTuple):
    """A record and ``order``, (seq, journal file), by which all lines of a store are sorted."""

    order: tuple[int, str]
    record: ItemRecord


def encode_line(seq: int, record: ItemRecord) -> bytes:
    """One journal line, newline included; ASCII: bytes that are not UTF-8 become ``\\udcXX`` escapes."""
    text = json.dumps(record_to_json(record) | {"seq": seq}, separators=(",", ":")).encode()
    return b"%s%08x%s%s}\n" % (_HEAD, google_crc32c.value(text), _MIDDLE, text)


def decode_line(line: bytes, journal: str) -> Line | None:
    """The record of a line (without its newline), or None where the line is damaged."""
    text = line[_PREFIX:-1]
    if not line.startswith(_HEAD) or line[len(_HEAD) : len(_HEAD) + 8] != b"%08x" % google_crc32c.value(text):
        return None
    if line[len(_HEAD) + 8 : _PREFIX] != _MIDDLE or line[-1:] != b"}":
        return None
    content = json.loads(text)
    seq = content.pop("seq")
    record = record_from_json(content)
    # both become part of a path: a line whose path would lead out of the store is refused
    safe = FEATURE_ID.fullmatch(record.feature) and _REVISION.fullmatch(record.revision)
    return Line((seq, journal), record) if safe else None


class Journal:
    """The journal of this process, created with its first line; a forked child starts another one."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = ""
        self._fd = -1
        self._pid = 0
        self._last_seq = 0
        self._lock = threading.Lock()

    def observe(self, seq: int) -> None:
        """Lines appended from now on sort after ``seq``."""
        self._last_seq = max(self._last_seq, seq)

    def append(self, record: ItemRecord) -> Line:
        """Acknowledge a record: its line is on the disk when this returns. Raises OSError when that is not certain."""
        if self._pid not in (0, os.getpid()):
            self._lock = threading.Lock()  # forked: a thread of the parent may have held the lock
        with self._lock:
            self._last_seq = max(self._last_seq + 1, time.time_ns())
            line = encode_line(self._last_seq, record)
            if self._pid != os.getpid():
                self._start()
            try:
                fs.write(self._fd, [line], self.path)
                fs.fsync(self._fd, self.path)
            except BaseException:
                self._close()  # the file may end in half a line: the next line starts a new journal
                raise
            return Line((self._last_seq, os.path.basename(self.path)), record)

    def _start(self) -> None:
        self._close()
        fs.make_folders(self.folder)
        self.path = os.path.join(self.folder, f"{writer_name()}.jsonl")
        fd = fs.create(self.path)
        try:
            fs.fsync_folder(self.folder)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._pid = fd, os.getpid()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)  # a forked child closes only its own copy
        self._fd, self._pid = -1, 0

    def close(self) -> None:
        """Close the file; a later line starts a new one."""
        with self._lock:
            self._close()


def read_lines(path: str, start: int = 0) -> tuple[list[Line], int]:
    """The intact lines from byte ``start`` on, and the byte after the last whole line; damaged lines are skipped."""
    lines, end = [], start
    for content, stop in _split(path, start):
        end = stop
        line = decode_line(content, os.path.basename(path)) if content.strip() else None
        if line is not None:
            lines.append(line)
    return lines, end


def damaged_lines(path: str) -> Iterator[int]:
    """The numbers, from 1, of the damaged lines. A blank line was purged and is not damaged."""
    number, end = 0, 0
    for content, stop in _split(path, 0):
        number, end = number + 1, stop
        if content.strip() and decode_line(content, "") is None:
            yield number
    with open(path, "rb") as file:
        file.seek(end)
        tail = file.read()
    if tail[-1:] not in (b"", b"\n") and decode_line(tail[:-1], "") is not None:  # only its newline is damaged
        yield number + 1


def restore_last_newline(path: str) -> bool:
    """Restore the last newline if that is the only damage of a journal. Returns whether it was."""
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
    """Overwrite lines of some journals with spaces, in place, so that a running writer can go on appending.

    Oldest first, so that a purge that is interrupted never leaves a publication without its deletion. Returns how many.
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
    """Each whole line from byte ``start`` on, without its newline, and the byte after it."""
    with open(path, "rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield line[:-1], start
