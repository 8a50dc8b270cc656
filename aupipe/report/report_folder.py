"""The folder of a report: made beside its place and put there by renaming, so that a reader sees a whole report."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from aupipe.documents import read_json
from aupipe.errors import UsageError
from aupipe.report.page import FOLDER_MODE, write_page
from aupipe.video_folders import REPORT_FILE, REPORT_FORMAT

NAMED = 60  # characters of a recording's name in that of its folder


def listed_files(document: Path, kind: str) -> frozenset[str]:
    """The files of a report as its document names them, relative to its folder; none where it is no such document.

    ``kind``: the "format" of the document. Files that are not named are somebody's own.
    """
    try:
        content = read_json(document)
        names = [str(PurePosixPath(name)) for name in content["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    if content.get("format") != kind:
        return frozenset()
    return frozenset(name for name in names if not name.startswith("/") and ".." not in name.split("/"))


def refuse_other_content(path: Path) -> None:
    """Raises UsageError where ``path`` is a file, or a folder with a file that the report in it has not written."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UsageError(f"{path} is no folder: choose another one for the report")
    if path.is_mount():
        raise UsageError(f"{path} is a mount point, which a report cannot replace: choose a folder in it")
    own = listed_files(path / REPORT_FILE, REPORT_FORMAT)
    names = (each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_symlink() or not each.is_dir())
    others = sorted(name for name in names if name not in own)
    if others:
        raise UsageError(f"{path} holds {others[0]!r}, which no report has written: choose another folder")


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A new empty folder for its owner alone, which takes the place of ``path`` when the block ends without an error.

    Its files are named in its ``report.json``. Nothing of an older report is left: what was shown then may be hidden
    now. Raises UsageError as `refuse_other_content` does.
    """
    refuse_other_content(path)
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:12]
    staged, old = path.with_name(f".{path.name}-{mark}.part"), path.with_name(f".{path.name}-{mark}.old")
    staged.mkdir(FOLDER_MODE)
    try:
        yield staged
        names = [each.relative_to(staged).as_posix() for each in staged.rglob("*") if each.is_file()]
        document = {"format": REPORT_FORMAT, "files": sorted([*names, REPORT_FILE])}
        write_page(staged / REPORT_FILE, json.dumps(document, indent=1) + "\n")
        refuse_other_content(path)
        if path.exists():
            path.rename(old)
        try:
            staged.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if old.exists() and path.exists():
            shutil.rmtree(old, ignore_errors=True)


def folder_name(recording: str) -> str:
    """A name for the folder of a recording that no other one has, also where case is not told apart."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", recording).strip("._-")[:NAMED]
    return f"{readable or 'recording'}-{hashlib.sha256(recording.encode()).hexdigest()[:8]}"
