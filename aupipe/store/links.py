"""Symbolic links inside a store: what lies behind one is not the store's, so nothing is written or removed through it.

The store's own path may be a link, and reading follows links; only below the root is every folder looked at before a
change.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from aupipe.errors import DamageError
from aupipe.store.log.journal import FEATURE_ID

if TYPE_CHECKING:
    from aupipe.store.local import LocalStore

FOLDERS = ("journal", "catalogue", "tmp", "quarantine")


def refuse_link(root: str, path: str) -> str:
    """``path``, none of whose folders below ``root`` is a link. Raises DamageError naming the first that is."""
    at = root
    for part in os.path.relpath(os.path.dirname(path), root).split(os.sep):
        at = os.path.join(at, part)
        try:
            mode = os.lstat(at).st_mode
        except FileNotFoundError:
            return path
        if stat.S_ISLNK(mode):
            raise DamageError(_message(at))
    return path


def find_links(store: LocalStore) -> list[str]:
    """Links in the place of the store's own files and folders, down to those that items lie in."""
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


def links_in(path: str) -> list[str]:
    """``path`` if it is a link, else the links among what a folder holds."""
    if os.path.islink(path):
        return [path]
    return sorted(entry.path for entry in os.scandir(path) if entry.is_symlink()) if os.path.isdir(path) else []


def refuse_links(store: LocalStore) -> None:
    """Raises DamageError where `find_links` finds one."""
    for path in find_links(store):
        raise DamageError(_message(path))


def refuse_linked_items(paths: list[str]) -> None:
    """Raises DamageError where an item, or a file of one, is a link: removing it would leave what it stands for."""
    for path in paths:
        for link in links_in(path):
            raise DamageError(_message(link))


def _message(path: str) -> str:
    return f"{path} is a symlink in the store (to {os.readlink(path)}), which is not followed: remove the link first"
