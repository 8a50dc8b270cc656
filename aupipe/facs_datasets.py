"""DISFA and BP4D in their published layouts: where recordings and labels are, and how labels are read.

DISFA: Mavadati et al., "DISFA: a spontaneous facial action intensity database", IEEE TAC 2013. BP4D: Zhang et al.,
"BP4D-Spontaneous", Image and Vision Computing 2014; BP4D+ has the same layout. Neither has an official split or score.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aupipe.errors import UsageError
from aupipe.tasks import Task
from aupipe.types import Labels, Recording

if TYPE_CHECKING:
    import numpy as np

DISFA_AUS = tuple(f"AU{number}" for number in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26))
BP4D_AUS = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))
PRESENT = 2  # the least intensity of DISFA, 0 to 5, that counts as occurrence; usual in papers
UNSCORED = 9.0  # the mark of BP4D for an AU that was not coded
BP4D_FPS = 25.0


@dataclass(frozen=True)
class Published:
    """A published layout. ``labels``: a description of its label files, by which the folder is recognised."""

    labels: str
    tasks: Mapping[str, Task]
    label_files: Callable[[Path], dict[str, Path]]  # root -> recording id -> file or folder
    recording: Callable[[Path, str, float | None], Recording]  # root, id, frame rate of images
    read: Callable[[Path, Task, Recording], Labels]


def disfa_labels(root: Path) -> dict[str, Path]:
    """Subject -> ``ActionUnit_Labels/SN001``, a folder with a file ``SN001_au1.txt`` for each AU."""
    return {path.name: path for path in (root / "ActionUnit_Labels").glob("SN*") if path.is_dir()}


def disfa_recording(root: Path, subject: str, fps: float | None) -> Recording:
    """``Video_LeftCamera/LeftVideoSN001_comp.avi``; a missing video fails by name when it is read."""
    found = sorted(root.glob(f"Video*_LeftCamera/LeftVideo{subject}_comp.*"))
    video = found[0] if found else root / "Video_LeftCamera" / f"LeftVideo{subject}_comp.avi"
    return Recording(subject, video=video)


def read_disfa(folder: Path, task: Task, recording: Recording) -> Labels:
    """Rows ``frame,intensity`` with frames from 1. Raises UsageError naming file and line of anything else."""
    import numpy as np

    columns = []
    for name in task.names:
        file = folder / f"{folder.name}_{name.lower()}.txt"
        columns.append(_rows(file, file.read_text(encoding="utf-8-sig").splitlines(), 2, 1, first=1))
        given = columns[-1][:, 1]
        if wrong := np.flatnonzero((given < 0) | (given > 5)).tolist():
            frame = columns[-1][wrong[0], 0]
            raise UsageError(f"{file}, frame {frame:g}: {name} is {given[wrong[0]]:g}: expected 0 to 5")
    frames = int(max(column[:, 0].max(initial=0) for column in columns))
    targets, valid = np.zeros((frames, len(columns)), np.float32), np.zeros((frames, len(columns)), bool)
    for k, column in enumerate(columns):
        at = column[:, 0].astype(np.int64) - 1
        targets[at, k], valid[at, k] = column[:, 1], True
    if task.kind == "multi_label":
        targets = (targets >= PRESENT).astype(np.float32)
    return Labels(task, task.names, targets, valid)


def bp4d_labels(root: Path) -> dict[str, Path]:
    """``F001_T1`` -> ``AUCoding/AU_OCC/F001_T1.csv``; in some copies the folder AU_OCC is missing."""
    files = [file for pattern in ("AUCoding/[FM]*.csv", "AUCoding/AU_OCC/[FM]*.csv") for file in root.glob(pattern)]
    return {file.stem: file for file in files if re.fullmatch(r"[FM]\d{3}_T\d+", file.stem)}


def bp4d_recording(root: Path, name: str, fps: float | None) -> Recording:
    """``F001/T1``, a folder of numbered images, in the root or in ``2D+3D``; a missing one fails by name.

    A video ``videos/F001_T1.*`` goes before it: one made of the images, from the first to the last.
    """
    subject, session = name.split("_")
    if videos := sorted(root.glob(f"videos/{name}.*")):
        return Recording(name, video=videos[0], group=subject)
    places = [root / part / subject / session for part in (".", "2D+3D", "2D")]
    images = next((place for place in places if place.is_dir()), places[0])
    return Recording(name, images=images, group=subject, fps=fps or BP4D_FPS)


def read_bp4d(file: Path, task: Task, recording: Recording) -> Labels:
    """A header with the numbers of AUs, then rows ``frame,<code of each AU>``: 0, 1, or 9 where it was not coded.

    Frames are numbers of images. Those without a row are invalid: only part of a recording is coded. Raises UsageError
    naming file and line of anything else.
    """
    import numpy as np

    lines = file.read_text(encoding="utf-8-sig").splitlines()
    header = [cell.strip().upper().removeprefix("AU").lstrip("0") for cell in (lines[0] if lines else "").split(",")]
    numbers = [name.removeprefix("AU") for name in task.names]
    if missing := [number for number in numbers if number not in header[1:]]:
        raise UsageError(f"{file}, line 1: no column for AU{missing[0]}")
    images = _image_numbers(recording.images) if recording.images is not None else []
    first = 0 if 0 in images else 1
    table = _rows(file, lines[1:], len(header), 2, first=first)
    at = table[:, 0].astype(np.int64) - first
    codes = table[:, [header.index(number, 1) for number in numbers]]
    if wrong := np.argwhere((codes != 0) & (codes != 1) & (codes != task.invalid)).tolist():
        row, k = wrong[0]
        raise UsageError(
            f"{file}, line {row + 2}: {task.names[k]} is {codes[row, k]:g}: expected 0, 1 or {task.invalid:g}"
        )
    frames = max(int(at.max(initial=-1)), *(number - first for number in images), -1) + 1
    shape = (frames, len(numbers))
    targets, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
    valid[at] = codes != task.invalid
    targets[at] = np.where(codes != task.invalid, codes, 0)
    return Labels(task, task.names, targets, valid)


def _image_numbers(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.*") if path.stem.isdigit()]


def _rows(file: Path, lines: list[str], columns: int, line: int, first: int) -> np.ndarray:
    """(N, columns) numbers, of which the first is a frame, each once; ``line``: number of the first line."""
    import numpy as np

    rows, seen = [], set()
    for number, text in enumerate(lines, line):
        if not text.strip():
            continue
        try:
            row = [float(cell) for cell in text.split(",")]
        except ValueError:
            row = []
        if len(row) != columns or not row[0].is_integer() or row[0] < first or row[0] in seen:
            raise UsageError(f"{file}, line {number}: {text.strip()!r}: expected a new frame and {columns - 1} numbers")
        seen.add(row[0])
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


PUBLISHED = {
    "disfa": Published(
        "ActionUnit_Labels/SN...",
        {
            "au": Task("au", "multi_label", DISFA_AUS),
            "intensity": Task("intensity", "intensity", DISFA_AUS, metric="ICC", high=5.0),
        },
        disfa_labels,
        disfa_recording,
        read_disfa,
    ),
    "bp4d": Published(
        "AUCoding/AU_OCC/F..._T....csv",
        {"au": Task("au", "multi_label", BP4D_AUS, invalid=UNSCORED)},
        bp4d_labels,
        bp4d_recording,
        read_bp4d,
    ),
}
