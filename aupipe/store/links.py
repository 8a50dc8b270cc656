"""Symbolic links inside a store: nothing is written or removed through one.

The store's own path may be a link, and reading follows links; only the folders below the root are checked, before
each change.
"""

from __future__ import annotations

import os
import stat

from aupipe.errors import DamageError


def refuse_link(root: str, path: str) -> str:
    """Returns ``path``. Raises DamageError, naming it, where a folder on the way from ``root`` to it is a link.

    ``path`` begins with ``root``, which does not end with a slash.
    """
    folder = root
    for part in os.path.dirname(path)[len(root) + 1 :].split(os.sep):
        folder = os.path.join(folder, part)
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            return path
        if stat.S_ISLNK(mode):
            raise link_error(folder)
    return path


def links_in(path: str) -> list[str]:
    """``path`` if it is a link, else the links directly inside of it if it is a folder."""
    if os.path.islink(path):
        return [path]
    return sorted(entry.path for entry in os.scandir(path) if entry.is_symlink()) if os.path.isdir(path) else []


def refuse_linked_items(paths: list[str]) -> None:
    """Raises DamageError where an item, or a file of one, is a link: removing it would leave its target behind."""
    for path in paths:
        below = (os.path.join(at, name) for at, folders, files in os.walk(path) for name in (*folders, *files))
        for link in filter(os.path.islink, (path, *below)):
            raise link_error(link)


def link_error(path: str) -> DamageError:
    """The error for a link in a store."""
    target = os.readlink(path)
    return DamageError(f"{path} is a symlink in the store (to {target}), which is not followed: remove the link first")
