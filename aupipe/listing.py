"""What counts in a folder of somebody's data: not what systems leave there beside it."""

from __future__ import annotations

from pathlib import Path

LEFT_BY_SYSTEMS = {"thumbs.db", "desktop.ini"}  # of Windows; those of macOS begin with a dot (._00003.jpg, .DS_Store)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of the data: dot-files, ``Thumbs.db``, ``desktop.ini``."""
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def list_folder(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, sorted by name. Raises OSError."""
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
