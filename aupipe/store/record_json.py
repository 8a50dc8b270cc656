"""Records as JSON: in a journal line, and as the metadata in an item's own files.

The keys are the names of the record's fields, but for the two in `KEYS`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any

from aupipe.documents import parse_json
from aupipe.store.records import ItemRecord
from aupipe.types import SourceIdentity

LAYOUT = 2  # of an item's files: `valid` and `time` lie beside the rows; metadata of earlier versions has no layout
KEYS = {"metadata_crc32c": "rest_crc32c", "revision": "edition"}  # field -> key on disk, where they differ
_DEFAULTS = {field.name: field.default for field in fields(ItemRecord)}
_FIELDS = {KEYS.get(name, name): name for name in _DEFAULTS}  # key -> field


def record_to_json(record: ItemRecord) -> dict[str, Any]:
    """The fields of a record that differ from their defaults, as JSON values by key."""
    content: dict[str, Any] = {"recording": record.recording, "feature": record.feature, "state": record.state}
    content |= {
        KEYS.get(name, name): value for name, value in vars(record).items() if value and value != _DEFAULTS[name]
    }
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
    """The inverse of `record_to_json`, which ``content`` is used up for; keys of a later version are ignored."""
    source = source_from_json(content)
    known = content
    if not content.keys() <= _FIELDS.keys():
        known = {key: value for key, value in content.items() if key in _FIELDS}
    for name, key in KEYS.items():
        if key in known:
            known[name] = known.pop(key)
    known["feature"] = sys.intern(known["feature"])
    if source is not None:
        known["source"] = source
    if "shape" in known:
        known["shape"] = tuple(known["shape"])
    known["versions"] = _versions(tuple(known.get("versions", {}).items()))
    known.setdefault("media", {})
    return bare_record(known)


def source_from_json(content: dict[str, Any]) -> SourceIdentity | None:
    """The source in what `record_to_json` returned; takes its folder out of that."""
    folder = content.pop("source_folder", "")
    return _source(*content["source"][:3], folder) if "source" in content else None


def bare_record(known: dict[str, Any]) -> ItemRecord:
    """A record with these fields and the defaults of all others, made three times faster than by its constructor.

    A field that is not given is found as the class's default; `versions` and `media` have none and must be given.
    """
    record = object.__new__(ItemRecord)
    record.__dict__.update(known)
    return record


def record_row(record: ItemRecord) -> dict[str, Any]:
    """Every field of a record by its key on disk."""
    return {KEYS.get(name, name): value for name, value in asdict(record).items()}


@lru_cache(maxsize=65536)
def _source(size: int, mtime_ns: int, digest: str, folder: str) -> SourceIdentity:
    return SourceIdentity(size, mtime_ns, digest, sys.intern(folder))  # one object for all features of a file


@lru_cache(maxsize=1024)
def _versions(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(items)  # one object for all records with the same versions


def item_metadata(record: ItemRecord, time_crc32c: int | None = None) -> str:
    """The JSON that an item carries in its own files: everything needed to rebuild the index from the items alone.

    ``time_crc32c``: of the times that lie beside the rows. Nothing says when, where or for how long an item was made,
    so equal rows of an equal source are equal bytes; `LAYOUT` says how they lie in the files.
    """
    source = record.source._replace(folder="") if record.source else None
    bare = replace(record, nbytes=0, offset=0, metadata_crc32c=0, revision="", seconds=0.0, time_utc="", source=source)
    content = record_to_json(bare) | {"layout": LAYOUT}
    if time_crc32c is not None:
        content["time_crc32c"] = time_crc32c
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def parse_metadata(text: str) -> ItemRecord:
    """The inverse of `item_metadata`; the revision is in the item's path, not in the item."""
    return record_from_json(parse_json(text))
