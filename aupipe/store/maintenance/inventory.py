"""What there is on disk in a store, whether or not it was published."""

from __future__ import annotations

import os

from aupipe.store.folders import FOLDERS
from aupipe.store.keys import FEATURE_ID
from aupipe.store.links import link_error, links_in
from aupipe.store.local import LocalStore


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
