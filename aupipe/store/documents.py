"""The JSON documents of a store: ``store.json``, and the ``spec.json`` of each feature."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import google_crc32c

from aupipe.documents import parse_json, read_json
from aupipe.errors import DamageError, NoStoreError, StoreVersionError, UsageError
from aupipe.store.keys import FEATURE_ID
from aupipe.types import FeatureSpec

FORMAT = "aupipe-store"
VERSION = 2  # 1: names of revisions are 8 hex, snapshots in `catalogue/`; no journal is ever removed
STORE_FILE = "store.json"
STAGED_PREFIX = ".store.json."  # of a store.json being written


def store_document(backend: str, version: int = VERSION) -> bytes:
    """The content of ``store.json``."""
    return json.dumps({"format": FORMAT, "version": version, "backend": backend}, indent=1).encode()


def read_backend(path: str | os.PathLike[str]) -> str:
    """The name of the backend of the store at ``path``.

    Raises NoStoreError when there is none, UsageError when the path holds something else, StoreVersionError when a
    newer aupipe wrote it, DamageError when its ``store.json`` cannot be read.
    """
    file = Path(path) / STORE_FILE
    try:
        content = read_json(file)
        is_store = content["format"] == FORMAT
        version, backend = int(content["version"]), str(content["backend"])
    except (FileNotFoundError, NotADirectoryError):
        refuse_other_content(os.path.abspath(path))
        raise NoStoreError(f"no feature store at {path}: `aupipe extract` makes one") from None
    except (ValueError, KeyError, TypeError):
        document = json.dumps(json.loads(store_document("<backend>")))
        raise DamageError(f"{file} is damaged: restore it, or write {document} into it") from None
    if not is_store:
        raise UsageError(f"{path} belongs to another program (format {content['format']!r}): choose another folder")
    if version > VERSION:
        raise StoreVersionError(
            f"{path} has format version {version}, this aupipe reads up to {VERSION}: install a newer aupipe"
        )
    return backend


def is_current(root: str) -> bool:
    """Whether the store has this format version. One of an earlier version can be read, and is marked before a change.

    Raises as `read_json` does.
    """
    return int(read_json(Path(root, STORE_FILE))["version"]) >= VERSION


def refuse_other_content(root: str) -> None:
    """Raises UsageError when there is a file at ``root``, or a folder with anything but a store being created."""
    if not os.path.lexists(root):
        above = next(str(one) for one in Path(root).parents if os.path.lexists(one))
        if not os.path.isdir(above):
            raise UsageError(f"{root} cannot be a feature store: {above} is a file: choose another path")
        return
    if not os.path.isdir(root):
        raise UsageError(f"{root} is a file, not a folder for a feature store: choose another path")
    others = [name for name in os.listdir(root) if not name.startswith(STAGED_PREFIX)]
    if others and not os.path.lexists(os.path.join(root, STORE_FILE)):  # else another process has just made the store
        raise UsageError(f"{root} is not empty and not a feature store: name a store, or an empty or new folder")


def spec_document(content: dict[str, Any]) -> bytes:
    """The content of ``spec.json`` for a spec as JSON values: those, and a checksum over them."""
    content = {name: value for name, value in content.items() if name != "crc32c"}
    crc = google_crc32c.value(json.dumps(content, sort_keys=True).encode())
    return json.dumps(content | {"crc32c": f"{crc:08x}"}, indent=1, sort_keys=True).encode()


def read_spec(root: str, feature: str) -> FeatureSpec:
    """The spec of a feature id. Raises KeyError when there is none, DamageError when it is not what was written."""
    path = os.path.join(root, feature, "spec.json")
    if not FEATURE_ID.fullmatch(feature) or not os.path.exists(path):
        raise KeyError(f"no feature {feature!r} in {root}")
    try:
        with open(path, "rb") as file:
            content = file.read()
        parsed = parse_json(content)
        spec = FeatureSpec.from_json(parsed)
        if spec.id == feature and spec_document(parsed) == content:
            return spec
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise DamageError(f"{feature}: {path} is not what was written: `aupipe store verify --repair`")
