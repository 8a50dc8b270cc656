"""Features on disk: published atomically, checked against corruption, read by mapping files (see ``docs/store.md``)."""

from aupipe.store.api import STORES, create_store, open_store
from aupipe.store.protocol import ItemWriter, Store
from aupipe.store.records import ItemRecord, ItemState
from aupipe.store.view import derive_valid

__all__ = [
    "STORES",
    "ItemRecord",
    "ItemState",
    "ItemWriter",
    "Store",
    "create_store",
    "derive_valid",
    "open_store",
]
