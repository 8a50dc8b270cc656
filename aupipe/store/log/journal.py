"""The journal: one append-only JSON-lines file per writing process, one line per record.

A record is acknowledged once its line (`aupipe.store.log.line`) is fsynced, newline included. A last line without its
newline was never acknowledged and is ignored. A process that closes its journal writes ``{"closed":true}`` as its last
line: no line follows.

The lines of one item are ordered by ``seq``: one more than the largest that its writer knew for the item (Lamport,
"Time, Clocks, and the Ordering of Events", 1978). Writers that did not see each other may give the same number; the
names of their journals decide then, so that all readers agree. Journals of earlier versions hold wall clock times.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from aupipe.store import fs
from aupipe.store.log.line import (
    CLOSED_LINE,
    PLAIN_BYTES,
    PLAIN_LINE,
    PREFIX,
    Key,
    Line,
    all_intact,
    checked_text,
    decode_line,
    encode_line,
    is_damaged,
    parse_text,
)
from aupipe.store.processes import writer_name
from aupipe.store.records import ItemRecord

IDLE_S = 12 * 3600.0  # a journal without a line for this long gets none: a collector takes its writer for ended later
_BLOCK_BYTES = 1 << 20  # of a journal, read at once


class Tail(NamedTuple):
    """What a journal holds from some byte on: the intact lines, the byte after the last whole line, whether it ends.

    Of each line the item and the record's text, which `parse_text` makes a record of.
    """

    keys: list[Key]
    texts: list[bytes]
    end: int
    closed: bool


class Journal:
    """The journal of this process, created with its first line; a forked child starts another one."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = ""
        self._fd = -1
        self._pid = 0
        self._size = 0
        self._used_s = 0.0
        self._lock = threading.Lock()

    def append(self, seq: int, record: ItemRecord) -> tuple[Line, int, int]:
        """Acknowledge a record: its line is on the disk when this returns. Returns it, and where it begins and ends.

        Raises OSError when that is not certain.
        """
        if self._pid not in (0, os.getpid()):
            self._lock = threading.Lock()  # forked: a thread of the parent may have held the lock
        content = encode_line(seq, record)
        with self._lock:
            while not self._write(content):  # a collector took this process for ended and removed the journal
                self._close()
            line = Line((seq, os.path.basename(self.path)), record)
            return line, self._size - len(content), self._size

    def _write(self, content: bytes) -> bool:
        """Append a line. Returns False where it went into a file that was removed."""
        now_s = _running_s()
        if self._pid != os.getpid() or now_s - self._used_s > IDLE_S:
            self._start()
        try:
            fs.write(self._fd, [content], self.path)
            fs.fsync(self._fd, self.path)
            removed = os.fstat(self._fd).st_nlink == 0
        except OSError as error:
            self._close()  # the file may end in half a line: the next line starts a new journal
            if error.errno not in (errno.ESTALE, errno.ENOENT):  # of a network file system: removed
                raise
            return False
        except BaseException:
            self._close()
            raise
        self._size, self._used_s = self._size + len(content), now_s
        return not removed

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
        self._fd, self._pid, self._size = fd, os.getpid(), 0

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)  # a forked child closes only its own copy
        self._fd, self._pid = -1, 0

    def close(self) -> None:
        """Write the last line and close the file; a later line starts a new one."""
        with self._lock:
            if self._pid == os.getpid():
                with contextlib.suppress(OSError):  # without it the journal only counts as open for longer
                    fs.write(self._fd, [CLOSED_LINE], self.path)
            self._close()


def _running_s() -> float:
    """A clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def read_tail(path: str, start: int = 0) -> Tail:
    """The lines from byte ``start`` on, their checksums compared; damaged ones are skipped."""
    all_keys: list[Key] = []
    all_texts: list[bytes] = []
    end, closed = start, False
    for block in _blocks(path, start):
        lines = block.removesuffix(CLOSED_LINE)
        end, closed = end + len(block), len(lines) < len(block) and lines[-1:] in (b"", b"\n")
        keys, texts = _read_plain_lines(lines) or _read_lines_singly(block)
        all_keys += keys
        all_texts += texts
    return Tail(all_keys, all_texts, end, closed)


def _read_plain_lines(lines: bytes) -> tuple[list[Key], list[bytes]] | None:
    """The items and texts of lines that are all intact and as `encode_line` writes them; None where one is not."""
    found = PLAIN_LINE.findall(lines)
    checksums, texts, recordings, features = zip(*found, strict=True) if found else ((), (), (), ())
    if len(texts) * PLAIN_BYTES + sum(map(len, texts)) != len(lines) or not all_intact(checksums, texts):
        return None
    names = {quoted: _name(quoted) for quoted in {*recordings, *features}}
    return list(zip(map(names.__getitem__, recordings), map(names.__getitem__, features), strict=True)), list(texts)


def _read_lines_singly(lines: bytes) -> tuple[list[Key], list[bytes]]:
    """The items and texts of the intact lines among any."""
    intact = [line for line in lines.split(b"\n") if decode_line(line, "")]
    texts = [line[PREFIX:-1] for line in intact]
    records = [line.record for line in (parse_text(text, "") for text in texts) if line]
    return [(record.recording, record.feature) for record in records], texts


@lru_cache(maxsize=1 << 16)
def _name(quoted: bytes) -> str:
    """The string in a pair of quotes of JSON; one object for all lines with it."""
    return str(json.loads(b'"%s"' % quoted)) if b"\\" in quoted else quoted.decode()


def read_lines(path: str, start: int = 0) -> list[Line]:
    """The records of the intact lines from byte ``start`` on."""
    lines = (parse_text(text, os.path.basename(path)) for text in read_tail(path, start).texts)
    return [line for line in lines if line is not None]


def damaged_lines(path: str) -> Iterator[int]:
    """The numbers, from 1, of the damaged lines. A blank line was purged and is not damaged."""
    number, end = 0, 0
    for content, stop in _split(path, 0):
        number, end = number + 1, stop
        if is_damaged(content):
            yield number
    with open(path, "rb") as file:
        file.seek(end)
        tail = file.read()
    if tail[-1:] not in (b"", b"\n") and checked_text(tail[:-1]) is not None:  # only its newline is damaged
        yield number + 1


def restore_last_newline(path: str) -> bool:
    """Restore the last newline if that is the only damage of a journal. Returns whether it was."""
    *_, end = (0, *(stop for _, stop in _split(path, 0)))
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        tail = os.pread(fd, os.fstat(fd).st_size - end, end)
        if tail[-1:] in (b"", b"\n") or checked_text(tail[:-1]) is None:
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
    for block in _blocks(path, start):
        for line in block[:-1].split(b"\n"):
            start += len(line) + 1
            yield line, start


def _blocks(path: str, start: int) -> Iterator[bytes]:
    """All whole lines from byte ``start`` on, a megabyte at a time."""
    fd, rest = os.open(path, os.O_RDONLY | os.O_CLOEXEC), b""  # a file object takes twice the time of a short journal
    try:
        while content := os.pread(fd, _BLOCK_BYTES, start):
            start += (size := len(content))
            lines, newline, rest = (rest + content).rpartition(b"\n")
            if newline:
                yield lines + newline
            if size < _BLOCK_BYTES:  # the end: a journal is mostly short, and asking again costs as much as reading it
                break
    finally:
        os.close(fd)
