"""Features on disk: published atomically, never silently wrong, read at the speed of memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from aupipe.documents import read_json
from aupipe.errors import DamageError, NoStoreError, StoreVersionError, UsageError
from aupipe.registry import Registry
from aupipe.store import fs
from aupipe.store.log.journal import writer_name
from aupipe.store.protocol import ItemRecord, ItemWriter, Store, derive_valid

FORMAT = "aupipe-store"
VERSION = 1
STORE_FILE = "store.json"
STAGED = ".store.json."  # prefix of a store.json being written

STORES = Registry(
    "backend",
    {
        "zarr": "aupipe.store.formats.zarr3:ZarrStore",
        "hdf5": "aupipe.store.formats.hdf5:Hdf5Store",
        "memory": "aupipe.store.memory:MemoryStore",
    },
)

__all__ = [
    "STORES",
    "ItemRecord",
    "ItemWriter",
    "Store",
    "create_store",
    "derive_valid",
    "open_store",
    "store_document",
]


def store_document(backend: str) -> bytes:
    """The content of ``store.json``."""
    return json.dumps({"format": FORMAT, "version": VERSION, "backend": backend}, indent=1).encode()


def store_line(backend: str) -> str:
    """The same on one line."""
    return json.dumps(json.loads(store_document(backend)))


def create_store(path: str | os.PathLike[str], backend: str = "zarr") -> Store:
    """The store at ``path``, made if there is none yet.

    Raises UsageError for an unknown backend, for a path that holds something else, and for a store of another backend.
    """
    kind = STORES.get(backend)
    if not kind.persistent:
        store: Store = kind(path)
        return store
    root = os.path.abspath(path)
    if not os.path.lexists(os.path.join(root, STORE_FILE)):
        _refuse_foreign(root)
        fs.make_folders(root, 0o700)  # features of faces are personal data: open it to others knowingly, with chmod
        staged = os.path.join(root, STAGED + writer_name())
        try:
            fs.write_file(staged, [store_document(backend)])
            fs.link(staged, os.path.join(root, STORE_FILE))
        finally:
            fs.try_remove(staged)
    store = open_store(path)
    if store.backend != backend:
        store.close()
        raise UsageError(
            f"{path} is a {store.backend} store, {backend} was asked for: set [store] backend = {store.backend!r}, "
            f"or convert it with `aupipe store migrate`"
        )
    return store


def open_store(path: str | os.PathLike[str]) -> Store:
    """The store at ``path``, whatever its backend.

    Raises NoStoreError when there is none, UsageError when the path holds something else, StoreVersionError when a
    newer aupipe wrote it, DamageError when its ``store.json`` cannot be read.
    """
    file = Path(path) / STORE_FILE
    try:
        content = read_json(file)
        is_store = content["format"] == FORMAT
        version, backend = int(content["version"]), str(content["backend"])
    except (FileNotFoundError, NotADirectoryError):
        _refuse_foreign(os.path.abspath(path))
        raise NoStoreError(f"no feature store at {path}: `aupipe extract` makes one") from None
    except (ValueError, KeyError, TypeError):
        raise DamageError(f"{file} is damaged: restore it, or write {store_line('<backend>')} into it") from None
    if not is_store:
        raise UsageError(f"{path} belongs to another program (format {content['format']!r}): choose another folder")
    if version > VERSION:
        raise StoreVersionError(
            f"{path} has format version {version}, this aupipe reads up to {VERSION}: install a newer aupipe"
        )
    store: Store = STORES.get(backend)(path)
    return store


def _refuse_foreign(root: str) -> None:
    """Raises UsageError when a path holds something that is not a store, which is then left untouched."""
    if not os.path.lexists(root):
        return
    if not os.path.isdir(root):
        raise UsageError(f"{root} is a file, not a folder for a feature store: choose another path")
    if any(not name.startswith(STAGED) for name in os.listdir(root)):
        raise UsageError(f"{root} is not empty and not a feature store: name a store, or an empty or new folder")
