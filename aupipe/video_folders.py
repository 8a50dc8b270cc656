"""The videos in a folder and below it."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from aupipe.config import FILE_NAME
from aupipe.file_kinds import VIDEO_SUFFIXES, is_video
from aupipe.listing import is_hidden

STORE_FILE = "store.json"  # marks a feature store, which may be in the folder of the videos
REPORT_FILE, REPORT_FORMAT = "report.json", "aupipe-data-report"  # mark a report of a data set
RUN_FILE = "run.json"  # marks a trained run
ABOUT_SUFFIX = ".columns.csv"  # beside a table of `aupipe analyse`: what its columns are
ABOUT_HEADER = ("column", "unit", "kind", "by", "trained_on")
OF_AUPIPE = {".png": b"Software\0aupipe", ".eaf": b'AUTHOR="aupipe"'}  # marks in the first bytes of an analysis
BATCH_SUFFIXES = (".sbatch", ".log")  # scripts of `aupipe cluster script`, and what their jobs print
MARKED = 4096  # first bytes of a document that say whose it is
OVERLAY = "-overlay.mp4"  # what `aupipe overlay` writes, perhaps among the videos
log = logging.getLogger(__name__)


def walk_videos(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Relative name -> path of every entry below ``folder`` with the suffix of a video, and the other files.

    Files with a suffix that says nothing (.mod, .dat, none) are videos where their first bytes are a video's. A folder
    with such a suffix is listed too: it fails by name later, instead of being skipped silently. Hidden entries and
    files of aupipe (configuration, stores, runs, reports, analyses, batch scripts and logs) are left out, and overlays
    are among the other files. Links to folders elsewhere are followed, each once; links to folders that are walked
    anyway are not, so that there are no loops. A folder that cannot be listed is logged as a warning.
    """
    found: dict[str, Path] = {}
    ignored = []
    walked = [folder.resolve()]
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_warn_unlisted):
        here = Path(root)
        if here != folder and is_own(here, files):
            folders.clear()
            continue
        folders[:] = [name for name in sorted(folders) if not is_hidden(name) and _is_followed(here / name, walked)]
        videos = [name for name in folders if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        videos = [name for name in videos if not is_own(here / name, (STORE_FILE, REPORT_FILE))]
        videos += [name for name in files if is_video(here / name) and not name.endswith(OVERLAY)]
        folders[:] = [name for name in folders if name not in videos]
        for name in videos:
            if not is_hidden(name):
                found[(here / name).relative_to(folder).as_posix()] = here / name
        batch = (name for name in files if name.endswith(BATCH_SUFFIXES))
        own = files if RUN_FILE in files else (FILE_NAME, *batch, *_analyses(here, files))
        ignored += [here / name for name in files if name not in (*videos, *own) and not is_hidden(name)]
    return dict(sorted(found.items())), ignored


def _is_followed(folder: Path, walked: list[Path]) -> bool:
    """False for a link to a folder that is walked anyway, or that contains one; others are added to ``walked``."""
    if not folder.is_symlink():
        return True
    target = folder.resolve()
    if any(target.is_relative_to(known) or known.is_relative_to(target) for known in walked):
        return False
    walked.append(target)
    return True


def _warn_unlisted(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        log.warning("cannot list %s (%s): its videos are left out", error.filename, error.strerror)


def is_own(folder: Path, files: Collection[str]) -> bool:
    """Whether a folder is a feature store or a report of a data set, whose pictures and videos are no recordings.

    ``files``: those that may be in it; only of these any is opened.
    """
    marks = {STORE_FILE: b"aupipe-store", REPORT_FILE: REPORT_FORMAT.encode()}
    return any(name in files and _says(folder / name, mark) for name, mark in marks.items())


def _analyses(folder: Path, files: Collection[str]) -> set[str]:
    """The files of `aupipe analyse`: a table with the file that explains it, and what is marked of the same name."""
    mark = ",".join(ABOUT_HEADER).encode()
    about = {name for name in files if name.endswith(ABOUT_SUFFIX) and _says(folder / name, mark)}
    tables = tuple(name.removesuffix(ABOUT_SUFFIX) for name in about)
    others = (name for name in files if name.startswith(tables) and Path(name).suffix in OF_AUPIPE)
    marked = {name for name in others if _says(folder / name, OF_AUPIPE[Path(name).suffix])}
    return about | marked | {f"{name}{suffix}" for name in tables for suffix in (".csv", ".parquet")}


def _says(file: Path, mark: bytes) -> bool:
    try:
        with open(file, "rb") as opened:
            return mark in opened.read(MARKED)
    except OSError:
        return False
