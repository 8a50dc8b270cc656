"""Remove what processes that were killed have left: temporary files, and revisions that were replaced or deleted."""

from __future__ import annotations

import contextlib
import os
import time

from aupipe.store import fs
from aupipe.store.documents import STAGED_PREFIX
from aupipe.store.local import LocalStore
from aupipe.store.log.journal import read_lines
from aupipe.store.maintenance.inventory import names_in
from aupipe.store.processes import writer_has_ended
from aupipe.store.record_json import parse_metadata

ABANDONED_AFTER_S = 24 * 3600.0  # without a change, for files of a process of another machine


def sweep(store: LocalStore) -> int:
    """Remove the temporary files of processes that have ended. Returns how many entries.

    An item among them that a killed process was moving, and that is the published revision, is moved back.
    """
    folder = store.folder.staging
    paths = [os.path.join(folder, name) for name in names_in(folder) if _is_abandoned(folder, name)]
    staged = [name for name in names_in(store.root) if name.startswith(STAGED_PREFIX)]
    paths += [os.path.join(store.root, name) for name in staged if writer_has_ended(name.removeprefix(STAGED_PREFIX))]
    for path in map(store.folder.checked, paths):
        if not _restore_item(store, path):
            fs.try_remove(path)
    return len(paths)


def _is_abandoned(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    inside = [os.path.join(path, other) for other in names_in(path)]
    try:
        changed = max(os.lstat(entry).st_mtime for entry in (path, *inside))
    except FileNotFoundError:  # removed meanwhile by its process, which therefore runs
        return False
    return writer_has_ended(name) or time.time() - changed > ABANDONED_AFTER_S


def _restore_item(store: LocalStore, path: str) -> bool:
    """Move an item back to its path if it is intact, published and missing there. Returns whether it was.

    A process leaves such an item when it is killed in `LocalStore.remove_revision` while another publishes the item.
    """
    try:
        item = parse_metadata(store.format.read_metadata(path))
        record = store.published(item.recording, item.feature)
        target = store.folder.checked(store.item_path(record))
        if record.revision != item.revision or os.path.lexists(target) or not store.is_intact(path, record):
            return False
        fs.rename(path, target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def remove_replaced(store: LocalStore, orphans: list[str]) -> int:
    """Remove those of some orphans that were published once and then replaced or deleted. Returns how many.

    A process leaves one when it is killed after it has published the new revision and before it removes the old one.
    """
    removed = 0
    candidates = set(orphans)
    for name in names_in(store.folder.journals):
        for line in read_lines(os.path.join(store.folder.journals, name))[0]:
            path = store.item_path(line.record)
            if line.record.state == "done" and path in candidates and os.path.lexists(path):
                with contextlib.suppress(OSError):  # `verify` also checks a store that is read-only
                    store.remove_revision(line.record.recording, line.record.feature, path)
                removed += not os.path.lexists(path)
    return removed
