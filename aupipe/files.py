"""Files that commands hand over: written whole or not at all, and never over what is there unless told to."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aupipe.errors import UsageError


def refuse_existing(path: Path, overwrite: bool = False) -> None:
    """Raises UsageError where writing a file to ``path`` would lose what is there.

    A folder is never replaced, anything else only with ``overwrite``.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file to write")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} is there already: choose another name, or --overwrite to replace it")


@contextmanager
def staged_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write to; what was written there becomes ``path`` when the block ends without an error.

    A process that is killed leaves ``path`` as it was. Raises UsageError as `refuse_existing`, also where somebody else
    has written the file meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        yield staged
        with open(staged, "rb") as file:
            os.fsync(file.fileno())
        _place(staged, path, overwrite)
    except OSError as error:
        if error.filename in (None, str(staged), staged):
            error.filename = str(path)  # what the user has named
        raise
    finally:
        staged.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str, overwrite: bool = False) -> None:
    """Write a file whole, text as UTF-8. Raises UsageError as `staged_file` does."""
    refuse_existing(path, overwrite)
    with staged_file(path, overwrite) as staged:
        staged.write_bytes(content.encode() if isinstance(content, str) else content)


def _place(staged: Path, path: Path, overwrite: bool) -> None:
    """Give a written file its name."""
    refuse_existing(path, overwrite)
    if not overwrite:
        with suppress(OSError):  # somebody was faster, which is looked at below, or no hard links on this file system
            os.link(staged, path)
            return
        refuse_existing(path)
    os.replace(staged, path)
