"""A line of a journal: ``{"crc32c":"<8 hex>","record":{...}}``; the checksum is of the record's text."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import google_crc32c

from aupipe.store.keys import FEATURE_ID
from aupipe.store.record_json import KEYS, record_from_json, record_to_json, source_from_json
from aupipe.store.records import ItemRecord, ItemState

_CLOSED = b'{"closed":true}'
_REVISION = re.compile(r"([0-9a-f]{8}|\d+(-[0-9a-f]+){3})?")  # of earlier versions, of this one; part of a path
_HEAD = b'{"crc32c":"'
_MIDDLE = b'","record":'
PREFIX = len(_HEAD) + 8 + len(_MIDDLE)
PLAIN_BYTES = PREFIX + len(b"}\n")  # of a line beside the record's text
# A line as `encode_line` writes it: the checksum, the record's text, and the item, which the text begins with.
PLAIN_LINE = re.compile(
    _HEAD + rb"([0-9a-f]{8})" + _MIDDLE + rb'(\{"recording":"([^"\n]*)","feature":"([^"\n]*)",[^\n]*)\}\n'
)
_parse = json.JSONDecoder().raw_decode
Key = tuple[str, str]  # recording, feature


class Line(NamedTuple):
    """A record and ``order``, (seq, journal file), by which all lines of a store are sorted."""

    order: tuple[int, str]
    record: ItemRecord


def encode_line(seq: int, record: ItemRecord) -> bytes:
    """One journal line, newline included; ASCII: bytes that are not UTF-8 become ``\\udcXX`` escapes."""
    return with_crc(json.dumps(record_to_json(record) | {"seq": seq}, separators=(",", ":")).encode())


def with_crc(text: bytes) -> bytes:
    """The line of a text, newline included."""
    return b"%s%08x%s%s}\n" % (_HEAD, google_crc32c.value(text), _MIDDLE, text)


CLOSED_LINE = with_crc(_CLOSED)  # the last line of a journal


def checked_text(line: bytes) -> bytes | None:
    """The record's text in a line (without its newline), or None where the line is damaged."""
    text = line[PREFIX:-1]
    intact = line == with_crc(text)[:-1]
    return text if intact else None


def all_intact(checksums: Sequence[bytes], texts: Sequence[bytes]) -> bool:
    """Whether the texts of some lines have their checksums."""
    found = struct.pack(f">{len(texts)}I", *map(google_crc32c.value, texts))
    return found.hex().encode() == b"".join(checksums)


def decode_line(line: bytes, journal: str) -> Line | None:
    """The record of a line (without its newline); None where the line is damaged or has none."""
    text = checked_text(line)
    return None if text is None or text == _CLOSED else parse_text(text, journal)


def parse_text(text: bytes, journal: str) -> Line | None:
    """The record of a line's text; None where its path would lead out of the store."""
    content = _parse_safe(text)
    return Line((content.pop("seq"), journal), record_from_json(content)) if content else None


def parse_state(text: bytes) -> ItemState | None:
    """The state and source in a line's text, found in half the time of `parse_text`; None where that returns None."""
    content = _parse_safe(text)
    return ItemState(content["state"], source_from_json(content)) if content else None


def _parse_safe(text: bytes) -> dict[str, Any] | None:
    """The content of a line's text. None where what becomes part of a path would lead that out of the store."""
    content: dict[str, Any] = _parse(text.decode())[0]
    safe = _is_feature_id(content["feature"]) and _REVISION.fullmatch(content.get(KEYS["revision"], ""))
    return content if safe else None


@lru_cache(maxsize=1024)
def _is_feature_id(text: str) -> bool:
    return bool(FEATURE_ID.fullmatch(text))


def is_damaged(line: bytes) -> bool:
    """Whether a line (without its newline) is not what was written; a blank one was purged."""
    text = checked_text(line)
    return bool(line.strip()) and text != _CLOSED and (text is None or _parse_safe(text) is None)
