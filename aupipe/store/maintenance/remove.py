"""Remove what is no longer wanted: features, items of recordings that are gone, old files in quarantine.

What is removed is recorded as deleted first, so a process that is killed leaves a store that is whole, and bytes that
the collector removes. Unlike the collector, this waits for no grace period.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from aupipe.errors import BusyError
from aupipe.store import fs
from aupipe.store.local import LocalStore
from aupipe.store.maintenance.inventory import paths_in, refuse_links, refuse_writers, size_on_disk
from aupipe.store.maintenance.lease import Lease, hold_lease
from aupipe.store.records import ItemRecord
from aupipe.store.writer import now_utc

Key = tuple[str, str]  # recording and feature


def feature_size(store: LocalStore, feature: str) -> tuple[int, int]:
    """How many items and failures a feature has on record, and the bytes of its folder, all revisions included."""
    return sum(1 for _ in store.records(feature)), size_on_disk(os.path.join(store.root, feature))


def items_size(store: LocalStore, items: Iterable[Key]) -> int:
    """The bytes of these items, all revisions included."""
    return sum(size_on_disk(path) for key in items for path in store.revision_paths(*key))


def remove_feature(store: LocalStore, feature: str) -> int:
    """Remove a feature: its items, its failures, and its folder with the spec. Returns the bytes that were freed.

    Raises BusyError, and removes nothing, where another process of this machine writes to the store or collects, and at
    the end where one of another machine has published items of the feature meanwhile. Raises DamageError, and removes
    nothing, where there is a link in the store.
    """
    with _alone(store) as lease:
        for record in list(store.records(feature)):
            lease.beat()
            _record_deletion(store, record.recording, feature)
        path = os.path.join(store.root, feature)
        freed = size_on_disk(path, lease.beat)
        store.folder.remove_item(path, lease.beat)
        store.reload()
        if any(store.records(feature)):
            raise BusyError(f"{store.path}: items of {feature} were published meanwhile: stop that run, and try again")
    return freed


def remove_items(store: LocalStore, items: Iterable[Key]) -> int:
    """Remove items, or the failures on record in their place. Returns the bytes freed. Raises as `remove_feature`."""
    freed = 0
    with _alone(store) as lease:
        for recording, feature in items:
            lease.beat()
            paths = store.revision_paths(recording, feature)
            _record_deletion(store, recording, feature)
            for path in paths:
                freed += size_on_disk(path)
                store.folder.remove_item(path)
    return freed


def old_quarantine(store: LocalStore, age_s: float) -> dict[str, int]:
    """Path -> bytes of what was moved to ``quarantine/`` at least ``age_s`` ago, by the file system's clock."""
    now_ns = store.folder.now_ns()
    # A rename changes the inode, and leaves the time at which the content was changed.
    old = [path for path in paths_in(store.folder.quarantine) if now_ns - os.lstat(path).st_ctime_ns >= age_s * 1e9]
    return {path: size_on_disk(path) for path in old}


def remove_quarantined(store: LocalStore, paths: Iterable[str]) -> None:
    """Remove files and folders of ``quarantine/``. Raises DamageError where a folder on the way is a link."""
    for path in paths:
        fs.remove(store.folder.checked(path))


def _record_deletion(store: LocalStore, recording: str, feature: str) -> None:
    store.acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))


@contextmanager
def _alone(store: LocalStore) -> Iterator[Lease]:
    """Inside, no process of this machine writes to the store, and none collects."""
    refuse_links(store)
    refuse_writers(store, "try again")
    with hold_lease(store) as lease:
        if lease is None:
            raise BusyError(f"{store.path}: `aupipe store gc` is running: try again when it has ended")
        yield lease
