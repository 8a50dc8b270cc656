"""Who may read what a store and an export create: by default its owner alone, because features are personal data."""

from __future__ import annotations

import logging
import os
import stat

from aupipe.errors import UsageError
from aupipe.registry import nearest

log = logging.getLogger(__name__)

FOLDER_MODES = {"owner": 0o700, "group": 0o750, "all": 0o755}


def folder_mode(readable_by: str) -> int:
    """The mode of a folder that these may read: ``owner``, ``group`` or ``all``. Raises UsageError for another word."""
    if readable_by not in FOLDER_MODES:
        close = nearest(readable_by, FOLDER_MODES)
        raise UsageError(f"readable_by is {readable_by!r}.{close} Accepted: {', '.join(FOLDER_MODES)}")
    return FOLDER_MODES[readable_by]


def warn_of_mode(path: str | os.PathLike[str], readable_by: str) -> None:
    """Log a warning where a folder lets in others than ``readable_by`` says, or not all of these: its mode stays."""
    mode, asked = stat.S_IMODE(os.stat(path).st_mode), folder_mode(readable_by)
    if mode & 0o077 & ~asked:
        log.warning(
            "%s is open to others (mode %04o): `chmod 700 %s`, or say that it is meant: --readable-by all",
            path,
            mode,
            path,
        )
    elif asked & 0o077 & ~mode:  # its owner knows why a folder is read-only
        who = "g" if readable_by == "group" else "go"
        log.warning(
            "%s was made for fewer readers (mode %04o) than --readable-by %s says, and stays so: `chmod -R %s+rX %s` "
            "opens it",
            path,
            mode,
            readable_by,
            who,
            path,
        )


def set_modes(path: str, readable_by: str) -> None:
    """Give a file, or a folder and everything in it, the modes of what an export creates."""
    mode = folder_mode(readable_by)
    for folder, _, files in os.walk(path):
        for name in files:
            os.chmod(os.path.join(folder, name), mode & 0o666)
    os.chmod(path, mode if os.path.isdir(path) else mode & 0o666)
