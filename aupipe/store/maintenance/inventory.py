"""What there is on disk in a store, whether or not it was published."""

from __future__ import annotations

import os
from collections.abc import Callable

from aupipe.errors import BusyError
from aupipe.store.folders import FOLDERS
from aupipe.store.keys import FEATURE_ID
from aupipe.store.links import link_error, links_in
from aupipe.store.local import LocalStore
from aupipe.store.processes import writer_runs
from aupipe.store.run_log import run_logs, running_pid


def feature_folders(store: LocalStore) -> list[str]:
    """The ids of the features that have a folder in the store; a link to a folder is not one."""
    names = [name for name in names_in(store.root) if FEATURE_ID.fullmatch(name)]
    return [name for name in names if not os.path.islink(os.path.join(store.root, name))]


def group_folders(feature_folder: str) -> list[str]:
    """A feature's folder, its ``items`` and the folders in that which hold the items; no links."""
    items = os.path.join(feature_folder, "items")
    folders = [os.path.join(items, name) for name in names_in(items) if not os.path.islink(items)]
    shards = [folder for folder in folders if os.path.isdir(folder) and not os.path.islink(folder)]
    return [feature_folder, items, *shards]


def items_on_disk(store: LocalStore) -> list[str]:
    """Every path in the folders of items, but for the documents of the format."""
    paths = []
    for feature in feature_folders(store):
        for folder in group_folders(os.path.join(store.root, feature))[2:]:
            names = [name for name in names_in(folder) if name not in dict(store.format.documents)]
            paths += [os.path.join(folder, name) for name in names]
    return paths


def find_links(store: LocalStore) -> list[str]:
    """Links among the store's own folders, down to those of items, and the items themselves."""
    found = []
    names = [name for name in os.listdir(store.root) if name in FOLDERS or FEATURE_ID.fullmatch(name)]
    for name in sorted(names):
        path = os.path.join(store.root, name)
        if os.path.islink(path):
            found.append(path)
            continue
        items = os.path.join(path, "items")
        if os.path.islink(items):
            found.append(items)
        elif os.path.isdir(items):
            found += links_in(items)
    return found


def refuse_links(store: LocalStore) -> None:
    """Raises DamageError where `find_links` finds one."""
    for path in find_links(store):
        raise link_error(path)


def names_in(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def paths_in(folder: str) -> list[str]:
    """The paths of what is in a folder, sorted; none where there is no folder."""
    return [os.path.join(folder, name) for name in names_in(folder)]


def refuse_writers(store: LocalStore, then: str) -> None:
    """Raises BusyError where another process of this machine writes to the store; ``then``: what to do afterwards."""
    writers = [writer_runs(name) for name in names_in(store.folder.staging)]
    for pid in (*writers, *map(running_pid, run_logs(store.root))):
        if pid:
            raise BusyError(f"process {pid} is writing to {store.path}: stop it, then {then}")


def find_unpublished(store: LocalStore) -> tuple[list[str], list[str]]:
    """The paths of items on disk that are not published: orphans, which no journal line is of, and replaced ones."""
    on_disk = items_on_disk(store)
    store.refresh()  # after looking: the line of an item is written after the item
    published, replaced = recorded_paths(store)
    orphans = [path for path in on_disk if path not in published and path not in replaced]
    return orphans, [path for path in on_disk if path in replaced]


def recorded_paths(store: LocalStore) -> tuple[set[str], set[str]]:
    """The paths of the items that are published, and of those that were replaced or deleted and may be there still."""
    published = {store.item_path(record) for record in store.all_published()}
    return published, {store.folder.revision_path(*revision) for revision in store.index.garbage(0)} - published


def size_on_disk(path: str, beat: Callable[[], None] = lambda: None) -> int:
    """The bytes of a file, or of all files in a folder; 0 where there is nothing. ``beat``: called at each folder."""
    if not os.path.lexists(path):
        return 0
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_size
    total = 0
    for folder, _, names in os.walk(path):
        beat()
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return total
