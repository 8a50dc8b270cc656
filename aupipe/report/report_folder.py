"""The folder of a report: made beside its place and put there by renaming, so that a reader sees a whole report."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from aupipe.errors import UsageError
from aupipe.report.page import FOLDER_MODE

NAMED = 60  # characters of a recording's name in that of its folder


def refuse_other_content(path: Path, own: Container[str]) -> None:
    """Raises UsageError where ``path`` is a file, or a folder with anything but what a report consists of."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UsageError(f"{path} is no folder: choose another one for the report")
    if not path.is_dir():
        return
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in own)
    if others:
        raise UsageError(f"{path} holds {others[0]!r}, which is no part of a report: choose another folder")


@contextmanager
def replaced_folder(path: Path, own: Container[str]) -> Iterator[Path]:
    """A new empty folder for its owner alone, which takes the place of ``path`` when the block ends without an error.

    Nothing of an older report is left: what was shown then may be hidden now. Raises UsageError as
    `refuse_other_content` does.
    """
    refuse_other_content(path, own)
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:12]
    staged, old = path.with_name(f".{path.name}-{mark}.part"), path.with_name(f".{path.name}-{mark}.old")
    staged.mkdir(FOLDER_MODE)
    try:
        yield staged
        refuse_other_content(path, own)
        if path.exists():
            path.rename(old)
        staged.rename(path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if old.exists() and path.exists():
            shutil.rmtree(old, ignore_errors=True)


def folder_name(recording: str) -> str:
    """A name for the folder of a recording that no other one has, also where case is not told apart."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", recording).strip("._-")[:NAMED]
    return f"{readable or 'recording'}-{hashlib.sha256(recording.encode()).hexdigest()[:8]}"
