"""Is a media file as long as it says? FFmpeg reads what there is of a file that was cut, and does not mind."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

OGG_TAIL = 1 << 18  # pages are at most 64 KiB
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_HEAD = 1 << 16
LOOK_BYTES = 1 << 20  # beyond which zeros are taken for padding
FRAGMENTS = (b"moof", b"styp", b"sidx")


def missing_end(path: Path, demuxer: str) -> str:
    """In words, how the end of a file contradicts what it says of its length; empty where it does not.

    Where a container states no length nothing can be said. More bytes than stated are no damage: some cameras append
    their own.
    """
    check = {"mov": _boxes, "avi": _riff, "asf": _asf, "ogg": _ogg, "flv": _flv, "mpegts": _transport_packets}.get(
        demuxer
    )
    if check is None:
        return ""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return check(file, size)


def _short(size: int, declared: int) -> str:
    return f"{size:,} bytes of {declared:,}" if declared > size else ""


def _boxes(file: BinaryIO, size: int) -> str:
    """MP4 and MOV: the outermost boxes follow each other up to the end."""
    start, has_fragments = 0, False
    while start + 8 <= size:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:  # the length follows in 64 bits
            (length,) = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))
        has_fragments |= kind in FRAGMENTS
        if not (kind.isalnum() and length >= 8):  # the last box may be of length 0; some writers pad, or append
            file.seek(start)
            is_lost = has_fragments and not kind.isalnum() and any(file.read(LOOK_BYTES))
            return f"no box at byte {start:,}" if is_lost else ""
        start += length
    return _short(size, start)


def _riff(file: BinaryIO, size: int) -> str:
    """AVI: one RIFF chunk, or several. A length of 0 or of 4 GiB was never filled in."""
    start = 0
    while start + 8 <= size:
        file.seek(start)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
            return ""
        start += 8 + length
    return _short(size, start)


def _asf(file: BinaryIO, size: int) -> str:
    """WMV: the file properties state the size, unless it was broadcast."""
    head = file.read(ASF_HEAD)
    start = head.find(ASF_FILE_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return ""
    (declared,) = struct.unpack_from("<Q", head, start + 40)
    (flags,) = struct.unpack_from("<I", head, start + 88)
    return "" if flags & 1 else _short(size, declared)


def _ogg(file: BinaryIO, size: int) -> str:
    """Ogg: the last page of a stream says that it is. Streams that ended long before are not looked for."""
    file.seek(max(0, size - OGG_TAIL))
    tail = file.read()
    is_last: dict[bytes, bool] = {}  # stream -> of the last page seen
    start = tail.find(b"OggS\0")
    while 0 <= start <= len(tail) - 18:
        is_last[tail[start + 14 : start + 18]] = bool(tail[start + 5] & 0x04)
        start = tail.find(b"OggS\0", start + 1)
    return "" if is_last and all(is_last.values()) else "without the last page of a stream"


def _flv(file: BinaryIO, size: int) -> str:
    """FLV: a file ends with the size of its last tag, whose head states it too."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    if not 11 <= length <= size - 13:
        return "in the middle of a tag"
    file.seek(size - 4 - length)
    head = file.read(4)
    return "" if int.from_bytes(head[1:], "big") + 11 == length else "in the middle of a tag"


def _transport_packets(file: BinaryIO, size: int) -> str:
    """MPEG-TS: packets of 188 bytes, of 192 with a time code (M2TS)."""
    head = file.read(192 * 4)
    step = 192 if len(head) == 192 * 4 and all(head[4 + k * 192] == 0x47 for k in range(4)) else 188
    return "in the middle of a packet" if size % step else ""
