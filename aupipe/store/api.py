"""Create and open stores."""

from __future__ import annotations

import os
from functools import cache

from aupipe.errors import UsageError
from aupipe.registry import Registry
from aupipe.store import fs
from aupipe.store.documents import STAGED_PREFIX, STORE_FILE, read_backend, refuse_other_content, store_document
from aupipe.store.folders import FOLDERS
from aupipe.store.memory import MemoryStore
from aupipe.store.permissions import folder_mode, warn_of_mode
from aupipe.store.processes import writer_name
from aupipe.store.protocol import Store

STORES = Registry(
    "backend",
    {
        "zarr": "aupipe.store.local:ZarrStore",
        "hdf5": "aupipe.store.local:Hdf5Store",
    },
)


def create_store(path: str | os.PathLike[str], backend: str = "zarr", readable_by: str = "owner") -> Store:
    """The store at ``path``, made if there is none yet. ``readable_by``: ``owner``, ``group`` or ``all``.

    A folder that is there keeps its mode: a warning says where that lets in others, or keeps out these. The backend
    ``memory`` is for programs: it keeps nothing on disk, and no command knows it. Raises UsageError for an unknown
    backend, for a path that holds something else, and for a store of another backend.
    """
    if backend == MemoryStore.backend:
        return MemoryStore(path)
    STORES.get(backend)
    root = os.path.abspath(path)
    if not os.path.lexists(os.path.join(root, STORE_FILE)):
        refuse_other_content(root)
        os.makedirs(os.path.dirname(root), exist_ok=True)
        mode = folder_mode(readable_by)
        if not os.path.isdir(root):
            fs.make_folder(root, mode)
        staged = os.path.join(root, STAGED_PREFIX + writer_name())
        try:
            fs.write_file(staged, [store_document(backend)])
            os.chmod(staged, mode & 0o666)
            fs.link(staged, os.path.join(root, STORE_FILE))
        finally:
            fs.try_remove(staged)
        for name in FOLDERS[:4]:  # not those of older versions. Items are made in tmp/, and are as open as it is
            if not os.path.isdir(os.path.join(root, name)):
                fs.make_folder(os.path.join(root, name), mode)
    warn_of_mode(root, readable_by)
    store = open_store(path)
    if store.backend != backend:
        store.close()
        raise UsageError(
            f"{path} is a {store.backend} store, {backend} was asked for: set [store] backend = {store.backend!r}, "
            f"or copy it into another one with `aupipe store migrate NEW --backend {backend}`"
        )
    return store


def open_store(path: str | os.PathLike[str]) -> Store:
    """The store at ``path``, whatever its backend.

    Raises NoStoreError when there is none, UsageError when the path holds something else, StoreVersionError when a
    newer aupipe wrote it, DamageError when its ``store.json`` cannot be read.
    """
    store: Store = STORES.get(read_backend(path))(path)
    return store


def open_once(store: Store | str) -> Store:
    """A store; one that is given by its path is opened once in a process."""
    return _open(store) if isinstance(store, str) else store


@cache
def _open(path: str) -> Store:
    return open_store(path)
