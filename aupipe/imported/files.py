"""Files of features of other programs: arrays (.npy, .npz), tables (.csv), and those of OpenFace and py-feat.

OpenFace (Baltrusaitis et al. 2018) numbers frames from 1 and states ``timestamp``, ``confidence`` and ``success``;
py-feat (Cheong et al. 2023) numbers them from 0 and writes a row for each face.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError, UsageError
from aupipe.table_rows import NO_VALUE

Format = Literal["array", "csv", "openface", "pyfeat"]
ARRAYS, TABLES = (".npy", ".npz"), (".csv",)
PICKLES = (".pkl", ".pickle", ".p", ".joblib")
UNREADABLE = (OSError, EOFError, ValueError, csv.Error, zipfile.BadZipFile, zlib.error)  # a damaged file's
TIMES = ("timestamp", "time_s", "pts_s", "time")  # columns that are the clock of a table
OPENFACE = ("frame", "face_id", "timestamp", "confidence", "success")  # beside its features
WHY_NO_PICKLE = (
    "a pickle runs code when it is read, and such files hold a row for each picture in which a face was found, without "
    "the frames between them: load it where you trust it, and write an .npz per video with a row for every frame, NaN "
    'where there is none; or let aupipe compute it: [[encoder]] kind = "hsemotion"'
)


@dataclass(frozen=True)
class ForeignRows:
    """What a file holds: ``rows`` float32 (n, D), NaN in invalid rows, and ``columns`` (D,), empty where it has none.

    ``first_frame``: what the program calls the first frame. ``frames`` (n,) int64 are its own numbers, ``times_s`` (n,)
    its own times; None where it states none. ``dropped``: columns that are no numbers.
    """

    rows: NDArray[np.float32]
    format: Format
    columns: tuple[str, ...] = ()
    frames: NDArray[np.int64] | None = None
    first_frame: int | None = None
    times_s: NDArray[np.float64] | None = None
    dropped: tuple[str, ...] = ()


def read_file(path: Path, key: str = "") -> ForeignRows:
    """Read a file of features by its suffix and header. ``key``: the array of an .npz.

    Raises UsageError for pickles and for a ``key`` that an .npz does not have or needs; RecordingError for damage and
    for what is no table of numbers with one row per frame.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise UsageError(f"{path}: {WHY_NO_PICKLE}")
    try:
        return _read_table(path) if suffix in TABLES else _read_array(path, key)
    except UNREADABLE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise RecordingError(f"{path}: cannot be read: {why}") from None


def _read_array(path: Path, key: str) -> ForeignRows:
    loaded = np.load(path, allow_pickle=False)
    columns: tuple[str, ...] = ()
    if isinstance(loaded, np.ndarray):
        found = loaded
    else:
        with loaded:
            names = [name for name in loaded.files if loaded[name].dtype.kind in "fiub" and loaded[name].ndim]
            if key not in names and (key or len(names) != 1):
                asked = f"no array {key!r}" if key else f"{len(names)} arrays of numbers"
                raise UsageError(f"{path}: {asked}; it has {', '.join(names) or 'none'}: name one by --key")
            key = key or names[0]
            found = loaded[key]
            if f"{key}.columns" in loaded.files:
                columns = tuple(map(str, loaded[f"{key}.columns"]))
    if found.dtype.kind not in "fiub" or not found.ndim:
        raise RecordingError(f"{path}: {found.dtype} of shape {found.shape}: expected numbers, a row per frame")
    rows = found.reshape(len(found), -1).astype(np.float32)
    return ForeignRows(_whole(rows), "array", columns if len(columns) == rows.shape[1] else ())


def _read_table(path: Path) -> ForeignRows:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        cells = [row for row in reader if row]
    if not header or len(set(header)) < len(header):
        raise RecordingError(f"{path}: expected a header of column names that differ")
    if wrong := next((n for n, row in enumerate(cells, 2) if len(row) != len(header)), None):
        raise RecordingError(f"{path}: line {wrong} has {len(cells[wrong - 2])} fields, the header {len(header)}")
    values = {name: _numbers([row[k] for row in cells]) for k, name in enumerate(header) if name}
    numbers = {name: column for name, column in values.items() if column is not None}
    dropped = tuple(name for name in values if name not in numbers)
    form: Format = "csv"
    if {"frame", "timestamp", "success"} <= numbers.keys():
        form = "openface"
    elif "frame" in numbers and {"FaceScore", "FaceRectX"} & numbers.keys():
        form = "pyfeat"
    frames = _frame_numbers(numbers.pop("frame", None), path)
    times = next((numbers.pop(name) for name in TIMES if name in numbers), None)
    if form == "openface":
        _refuse_several(frames, numbers.get("face_id"), path)
    elif form == "pyfeat":
        _refuse_several(frames, None, path)
    kept = {name: column for name, column in numbers.items() if form != "openface" or name not in OPENFACE}
    if not kept:
        raise RecordingError(f"{path}: no column of numbers beside the clock")
    rows = np.stack(list(kept.values()), axis=1).astype(np.float32)
    if form == "openface":
        rows[~(numbers["success"] > 0)] = np.nan  # no face was found
    first = {"openface": 1, "pyfeat": 0}.get(form)
    return ForeignRows(_whole(rows), form, tuple(kept), frames, first, times, dropped)


def _numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """A column as numbers, NaN for a field without a value; None where it is text."""
    try:
        return np.array([np.nan if cell.strip().lower() in NO_VALUE else float(cell) for cell in cells])
    except ValueError:
        return None


def _frame_numbers(column: NDArray[np.float64] | None, path: Path) -> NDArray[np.int64] | None:
    if column is None:
        return None
    if not np.isfinite(column).all() or (column != np.round(column)).any():
        raise RecordingError(f"{path}: column frame: expected whole numbers")
    return column.astype(np.int64)


def _refuse_several(frames: NDArray[np.int64] | None, faces: NDArray[np.float64] | None, path: Path) -> None:
    """Raises RecordingError where a frame has rows of several faces: which is the subject's, nobody can tell."""
    if frames is not None and len(np.unique(frames)) < len(frames):
        values, counts = np.unique(frames, return_counts=True)
        several = f"frame {values[counts > 1][0]} has {counts.max()} rows"
        ids = f" of {len(np.unique(faces))} faces" if faces is not None else ""
        raise RecordingError(f"{path}: {several}{ids}: keep the rows of one face, and import that")


def _whole(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows with a value that is no finite number are invalid as a whole, as the store has them."""
    return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, np.float32(np.nan))
