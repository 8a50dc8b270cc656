"""Writing output files atomically, and replacing existing ones only on request."""

from __future__ import annotations

import csv
import io
import os
import shlex
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aupipe.errors import UsageError

PRIVATE = 0o600  # the mode of files about the people of a video: for their owner alone


def as_argument(path: Path | str) -> str:
    """A path as a command line takes it: quoted, and never taken for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV file, whose lines end with a line feed."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def refuse_existing(path: Path, overwrite: bool = False, also: str = "") -> None:
    """Raises UsageError where a file at ``path`` would replace something; ``also``: what else may be done.

    A folder is never replaced, anything else only with ``overwrite``.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file to write")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} is there already: choose another name, or --overwrite to replace it{also}")


@contextmanager
def staged_file(path: Path, overwrite: bool = False, mode: int | None = None) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; the file is renamed to ``path`` when the block ends without an error.

    With ``mode`` an empty file of that mode is there, to be written over. A killed process leaves ``path`` as it was.
    Raises UsageError as `refuse_existing` does, also where another process has written the file meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        if mode is not None:
            staged.touch(mode)
        yield staged
        with open(staged, "rb") as file:
            os.fsync(file.fileno())
        _rename(staged, path, overwrite)
    except OSError as error:
        if error.filename in (None, str(staged), staged):
            error.filename = str(path)  # the path that the user knows
        raise
    finally:
        staged.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str, overwrite: bool = False, mode: int | None = None) -> None:
    """Write a file atomically, text as UTF-8. Raises UsageError as `staged_file` does."""
    refuse_existing(path, overwrite)
    with staged_file(path, overwrite, mode) as staged:
        staged.write_bytes(content.encode() if isinstance(content, str) else content)


def _rename(staged: Path, path: Path, overwrite: bool) -> None:
    """Rename a written file to its final path, without replacing another one unless ``overwrite``."""
    refuse_existing(path, overwrite)
    if not overwrite:
        with suppress(OSError):  # the path exists by now, as checked below, or the file system has no hard links
            os.link(staged, path)
            return
        refuse_existing(path)
    os.replace(staged, path)
