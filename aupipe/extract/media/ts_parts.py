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
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SYNC = 0x47
SIZES = (188, 192, 204)  # of a packet: plain, with a time in front (Blu-ray), with a checksum behind
BLOCK_PACKETS = 20_000  # read at a time
PAT_PID, PAT, PMT = 0, 0, 2
HEAD_BYTES = 1 << 16  # in which packets are looked for
Medium = Literal["video", "audio"]
# Types of streams (ISO/IEC 13818-1, table 2-34, and those in use beside it), and descriptors of private streams (DVB).
TYPES: dict[Medium, frozenset[int]] = {
    "video": frozenset([0x01, 0x02, 0x10, 0x1B, 0x20, 0x21, 0x24, 0x33, 0x42, 0xD1, 0xD2, 0xEA]),
    "audio": frozenset([0x03, 0x04, 0x0F, 0x11, 0x1C, *range(0x80, 0x88), 0xA1, 0xA2]),
}
PRIVATE = 0x06
AUDIO_DESCRIPTORS = {0x6A, 0x7A, 0x7B, 0x7C}  # AC-3, E-AC-3, DTS, AAC
REGISTRATION, AUDIO_FORMATS = 0x05, {b"AC-3", b"EAC3", b"Opus", b"DTS1", b"DTS2", b"DTS3"}


class Part(NamedTuple):
    """Bytes [start, stop) of a file."""

    start: int
    stop: int


WHOLE = Part(0, -1)


def parts_of(path: Path, kind: str, medium: Medium) -> tuple[Part, ...]:
    """The parts of a media file whose demuxer is ``kind``; one, `WHOLE`, unless the codec of a medium changes.

    The whole of a transport stream is read for that, as it is when it is decoded. Raises OSError.
    """
    if kind != "mpegts":
        return (WHOLE,)
    status = path.stat()
    return _parts(path, status.st_size, status.st_mtime_ns, medium)


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
def _parts(path: Path, size: int, changed_ns: int, medium: Medium) -> tuple[Part, ...]:
    starts, tables_at = [0], 0
    known: dict[int, dict[int, int]] = {}  # PID of a program's table -> its streams of the medium
    for at, pid, section in _sections(path):
        if pid == PAT_PID:
            tables_at = at
            continue
        streams, before = _streams(section, medium), known.get(pid, {})
        shared = before.keys() & streams.keys()
        is_other = not shared or any(before[one] != streams[one] for one in shared)
        if before and streams and is_other and tables_at > starts[-1]:
            starts.append(tables_at)
        known[pid] = streams or before
    if len(starts) == 1:
        return (WHOLE,)
    return tuple(Part(start, stop) for start, stop in zip(starts, [*starts[1:], size], strict=True))


def _sections(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Offset of the packet, its PID, and the section, of every program association and program map table.

    A table that is longer than a packet is passed over. Where packets do not follow each other, as at a joint behind a
    cut, they are looked for anew.
    """
    with path.open("rb") as file:
        found = _layout(file.read(HEAD_BYTES))
        at, programs = 0, set[int]()
        while found is not None:
            first, size = found
            file.seek(at + first)
            block = file.read(size * BLOCK_PACKETS)
            packets = np.frombuffer(block, np.uint8, len(block) // size * size).reshape(-1, size)
            lost = np.flatnonzero(packets[:, 0] != SYNC)
            packets = packets[: lost[0]] if len(lost) else packets
            for row in _beginnings(packets, programs):
                pid, section = _section(packets[row].tobytes())
                where = at + first + int(row) * size - (4 if size == 192 else 0)
                if pid == PAT_PID and section[:1] == bytes([PAT]):
                    programs |= _programs(section)
                    yield where, pid, section
                elif pid in programs and section[:1] == bytes([PMT]):
                    yield where, pid, section
            at += first + len(packets) * size
            found = (0, size)
            if len(packets) * size < len(block) - size:  # not the end of the file
                rest = block[len(packets) * size :][:HEAD_BYTES]
                found = _layout(rest) or (len(rest), size)
            elif len(block) < size * BLOCK_PACKETS:
                return


def _layout(head: bytes) -> tuple[int, int] | None:
    """Offset of the first sync byte, and the size of a packet."""
    for size in SIZES:
        for first in range(size):
            if first + 4 * size < len(head) and all(head[first + k * size] == SYNC for k in range(5)):
                return first, size
    return None


def _beginnings(packets: NDArray[np.uint8], programs: set[int]) -> NDArray[np.int64]:
    """Rows of the packets (n, size) of these PIDs, or that of the association table, in which a table may begin."""
    pids = (packets[:, 1].astype(np.uint16) & 0x1F) << 8 | packets[:, 2]
    # All that begin a payload may be of a table that is known only when the one before it has been read.
    tables = packets[:, 4] == 0  # a pointer of 0, or an adaptation field of no length: tables begin so
    return np.flatnonzero((packets[:, 1] & 0x40 > 0) & (np.isin(pids, [PAT_PID, *programs]) | tables))


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


def _streams(section: bytes, medium: Medium) -> dict[int, int]:
    """PID -> type of each stream of a medium in a program map table; of private streams, what they are said to be."""
    found = {}
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    while at + 5 <= len(section) - 4:
        length = (section[at + 3] & 0x0F) << 8 | section[at + 4]
        kind = section[at]
        if kind == PRIVATE and medium == "audio":
            kind = _private_audio(section[at + 5 : at + 5 + length])
        if kind in TYPES[medium] or kind > 0xFF:
            found[(section[at + 1] & 0x1F) << 8 | section[at + 2]] = kind
        at += 5 + length
    return found


def _private_audio(descriptors: bytes) -> int:
    """A number above 255 for a codec of sound that descriptors name, else 0."""
    at = 0
    while at + 2 <= len(descriptors):
        tag, length = descriptors[at], descriptors[at + 1]
        if tag in AUDIO_DESCRIPTORS:
            return 0x100 + tag
        if tag == REGISTRATION and (name := descriptors[at + 2 : at + 6]) in AUDIO_FORMATS:
            return 0x1000 + int.from_bytes(name, "big")
        at += 2 + length
    return 0
