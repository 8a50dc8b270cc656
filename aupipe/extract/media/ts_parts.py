"""Where the codecs of an MPEG transport stream change: files joined byte by byte from others, which are read as parts.

FFmpeg decodes a stream by the codec that it found at the file's beginning. A transport stream says anew about ten times
a second what its streams are: in its program map tables (ISO/IEC 13818-1, 2.4.4.8).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SYNC = 0x47
SIZES = (188, 192, 204)  # of a packet: plain, with a time in front (Blu-ray), with a checksum behind
BLOCK_PACKETS = 20_000  # read at a time
PAT_PID, PAT, PMT = 0, 0, 2


class Part(NamedTuple):
    """Bytes [start, stop) of a file."""

    start: int
    stop: int


WHOLE = Part(0, -1)


def parts_of(path: Path, kind: str) -> tuple[Part, ...]:
    """The parts of a media file whose demuxer is ``kind``; one, `WHOLE`, unless the codecs change in between.

    The whole of a transport stream is read for that, as it is when it is decoded. Raises OSError.
    """
    if kind != "mpegts":
        return (WHOLE,)
    status = path.stat()
    return _parts(path, status.st_size, status.st_mtime_ns)


class PartFile(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, path: Path, part: Part) -> None:
        self._file, self._part, self._at = path.open("rb"), part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._part.stop - self._part.start}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        left = max(0, self._part.stop - self._part.start - self._at)
        self._file.seek(self._part.start + self._at)
        read = self._file.readinto(memoryview(buffer)[:left])
        self._at += read
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


@lru_cache(maxsize=8)
def _parts(path: Path, size: int, changed_ns: int) -> tuple[Part, ...]:
    starts, known, tables_at, programs = [0], dict[int, int](), 0, set[int]()
    for at, pid, section in _sections(path):
        if pid == PAT_PID and section[0] == PAT:
            tables_at, programs = at, _programs(section)
        elif pid in programs and section[0] == PMT:
            streams = _streams(section)
            shared = known.keys() & streams.keys()
            if known and streams and (not shared or any(known[one] != streams[one] for one in shared)):
                starts.append(tables_at)
            known = streams or known
    if len(starts) == 1:
        return (WHOLE,)
    return tuple(Part(start, stop) for start, stop in zip(starts, [*starts[1:], size], strict=True))


def _sections(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Offset of the packet, its PID, and the beginning of the section, of every packet in which a table begins."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
        found = _layout(head)
        if found is None:
            return
        first, size = found
        file.seek(first)
        at = first
        wanted = {PAT_PID}
        while len(block := file.read(size * BLOCK_PACKETS)) >= size:
            packets = np.frombuffer(block, np.uint8, len(block) // size * size).reshape(-1, size)
            for row in _beginnings(packets, wanted):
                pid, section = _section(packets[row].tobytes())
                if section:
                    if pid == PAT_PID and section[0] == PAT:
                        wanted = {PAT_PID, *_programs(section)}
                    yield at + int(row) * size - (4 if size == 192 else 0), pid, section
            at += len(block)


def _layout(head: bytes) -> tuple[int, int] | None:
    """Offset of the first sync byte, and the size of a packet."""
    for size in SIZES:
        for first in range(size):
            if first + 4 * size < len(head) and all(head[first + k * size] == SYNC for k in range(5)):
                return first, size
    return None


def _beginnings(packets: NDArray[np.uint8], wanted: set[int]) -> NDArray[np.int64]:
    """Rows of the packets (n, size) of these PIDs in which a table begins."""
    pids = (packets[:, 1].astype(np.uint16) & 0x1F) << 8 | packets[:, 2]
    # All that begin a payload may be of a PMT that is known only when its PAT in the same block has been read.
    begins = (packets[:, 0] == SYNC) & (packets[:, 1] & 0x40 > 0)
    tables = packets[:, 4] == 0  # a pointer of 0, or an adaptation field of no length: tables begin so
    return np.flatnonzero(begins & (np.isin(pids, list(wanted)) | tables))


def _section(packet: bytes) -> tuple[int, bytes]:
    """PID of a packet, and the section that begins in it; empty where none does, or it is not all there."""
    pid = (packet[1] & 0x1F) << 8 | packet[2]
    start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)  # behind the adaptation field
    if not packet[3] & 0x10 or start >= 188:
        return pid, b""
    section = packet[start + 1 + packet[start] : 188]
    if len(section) < 12 or len(section) < 3 + ((section[1] & 0x0F) << 8 | section[2]):
        return pid, b""
    return pid, section[: 3 + ((section[1] & 0x0F) << 8 | section[2])]


def _programs(section: bytes) -> set[int]:
    """PIDs of the program map tables in a program association table."""
    entries = (section[at : at + 4] for at in range(8, len(section) - 7, 4))
    return {(entry[2] & 0x1F) << 8 | entry[3] for entry in entries if entry[0] or entry[1]}


def _streams(section: bytes) -> dict[int, int]:
    """PID -> type of each stream in a program map table."""
    found = {}
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    while at + 5 <= len(section) - 4:
        found[(section[at + 1] & 0x1F) << 8 | section[at + 2]] = section[at]
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return found
