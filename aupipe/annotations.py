"""Aff-Wild2 annotation files (ABAW, third edition onwards): one header line, then one row per frame."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aupipe.errors import UsageError
from aupipe.listing import list_folder
from aupipe.tasks import Task
from aupipe.types import Labels

if TYPE_CHECKING:
    import numpy as np

# Folder names differ by edition of the challenge; their beginning identifies the task.
TASK_FOLDERS: dict[str, re.Pattern[str]] = {
    "au": re.compile(r"AU_Detection_Challenge", re.IGNORECASE),
    "expr": re.compile(r"EXPR_(Classification|Recognition)_Challenge", re.IGNORECASE),
    "va": re.compile(r"VA_Estimation_Challenge", re.IGNORECASE),
}
log = logging.getLogger(__name__)
SPLIT_FOLDERS = {"train_set": "train", "validation_set": "validation", "test_set": "test"}


def read_annotation(path: Path, task: Task) -> Labels:
    """Read one annotation file: row k belongs to decoded frame k; invalid entries are 0 in targets and False in valid.

    Raises UsageError naming file and line for a wrong header, number of columns, or value.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    header = tuple(cell.strip() for cell in lines[0].split(",")) if lines else ()
    if tuple(cell.lower() for cell in header) != tuple(name.lower() for name in task.names):
        edition = "header of ABAW 3 and later" if task.official else "header"
        raise UsageError(
            f"{path}, line 1: header {','.join(header)!r} is not the {task} {edition}; "
            f"expected {','.join(task.names)!r}"
        )
    values = _parse_rows(lines[1:], task.columns, path)
    return Labels(task, task.names, *split_invalid(values, task, path))


def _parse_rows(lines: list[str], columns: int, path: Path) -> np.ndarray:
    """(T, columns) float32. Raises UsageError with the line that is not exactly ``columns`` numbers."""
    import numpy as np

    if not lines:
        return np.empty((0, columns), dtype=np.float32)
    try:
        values = np.loadtxt(lines, delimiter=",", dtype=np.float32, ndmin=2, comments=None)
        if values.shape == (len(lines), columns):  # loadtxt skips blank lines, which would shift the rows after them
            return values
    except ValueError:
        pass
    for number, line in enumerate(lines, 2):
        try:
            if len([float(cell) for cell in line.split(",")]) == columns:
                continue
        except ValueError:
            pass
        raise UsageError(f"{path}, line {number}: {line.strip()!r} is not {columns} comma-separated number(s)")
    raise UsageError(f"{path}: rows of different lengths")


def split_invalid(
    values: np.ndarray, task: Task, path: Path, lines: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and validity of raw rows; ``lines``: their lines in the file, where they do not begin in the second one.

    Raises UsageError for a value outside of the task's range.
    """
    import numpy as np

    valid = ~np.isnan(values) if np.isnan(task.invalid) else values != task.invalid
    legal = ~valid | ((values >= task.low) & (values <= task.high))
    if task.whole:
        legal &= ~valid | (values == np.floor(values))
    if not legal.all():
        row, column = np.argwhere(~legal)[0].tolist()
        name = "the class" if task.kind == "classes" else task.names[column]
        expected = f"expected {'a whole number of ' if task.whole else ''}{task.low:g} to {task.high:g}"
        remedy = f"or {'an empty cell' if np.isnan(task.invalid) else f'{task.invalid:g}'} where it is not annotated"
        line = row + 2 if lines is None else lines[row]
        raise UsageError(f"{path}, line {line}: {name} is {values[row, column]:g}: {expected}, {remedy}")
    if task.official and task.kind == "regression":
        valid[:] = valid.all(axis=1, keepdims=True)  # a row without one of the two values is invalid
    return np.where(valid, values, 0).astype(np.float32), valid


def find_annotations(root: Path, folders: Mapping[str, str] | None = None) -> dict[str, dict[str, tuple[str, Path]]]:
    """Every annotation file in ``root`` or one folder below it: task -> track -> (split, file).

    ``folders``: the names of the folders of further tasks.

    Raises UsageError for a track in two splits of a task, and for the folders of ABAW 1 (8 AUs, 7 expressions).
    """
    found: dict[str, dict[str, tuple[str, Path]]] = {}
    patterns = {task: re.compile(re.escape(name)) for task, name in (folders or {}).items()}
    places = [root, *(path for path in list_folder(root) if path.is_dir())] if root.is_dir() else []
    for folder in places:
        if (folder / "AU_Set").is_dir() or (folder / "EXPR_Set").is_dir():
            raise UsageError(f"{folder} holds ABAW 1 annotations (8 AUs, 7 expressions): aupipe reads ABAW 3 and later")
        for task, pattern in {**TASK_FOLDERS, **patterns}.items():
            for challenge in _entries(folder):
                if challenge.is_dir() and pattern.match(challenge.name):
                    _read_splits(challenge, found.setdefault(task, {}))
    return found


def _read_splits(challenge: Path, tracks: dict[str, tuple[str, Path]]) -> None:
    for folder in list_folder(challenge):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split is None or not folder.is_dir():
            continue
        for file in _lists_in(folder):
            known = tracks.get(file.stem)
            if known is not None and known[1] != file:
                raise UsageError(
                    f"{file}: track {file.stem!r} is annotated twice, also in {known[1]}; remove one of the files"
                )
            tracks[file.stem] = (split, file)


def find_test_tracks(root: Path) -> dict[str, list[str]]:
    """The tracks of the test set, per task, from `names_of_videos_in_each_test_set`; empty without such a folder."""
    tasks = {"action": "au", "expression": "expr", "valence": "va"}
    found: dict[str, list[str]] = {}
    folders = [path for path in list_folder(root) if "names_of_videos_in_each_test_set" in path.name and path.is_dir()]
    for file in [file for folder in folders for file in _lists_in(folder)]:
        task = tasks.get(file.name.split("_")[0].lower())
        if task:
            found[task] = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return found


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing of one that may not be listed, such as ``lost+found``, which is logged."""
    try:
        return list_folder(folder)
    except PermissionError as error:
        log.warning("cannot list %s (%s): annotations in it are left out", folder, error.strerror)
        return []


def _lists_in(folder: Path) -> list[Path]:
    return [path for path in list_folder(folder) if path.suffix == ".txt"]
