"""The files that predictions are written to: submissions, annotation-like files, tables of all scores. numpy only.

They are for their owner alone (mode 0600): what a face or a voice shows is personal data.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from aupipe.errors import UsageError
from aupipe.files import PRIVATE, csv_text, refuse_existing, staged_file, write_file
from aupipe.quantities import counted
from aupipe.tasks import Task, as_task
from aupipe.train.predictions import Predictions

log = logging.getLogger(__name__)


def _lines(predictions: Predictions) -> Iterator[str]:
    """The decision of each frame as a line of annotation and submission files."""
    form = "%d" if predictions.task.whole else "%.6f"
    return (",".join(form % value for value in row) for row in predictions.decisions)


def _check(predictions: Mapping[str, Predictions], task: Task) -> None:
    for item in predictions.values():
        if item.task != task:
            raise UsageError(f"{item.recording}: predictions are for task {item.task.name!r}, not {task.name!r}")
        if not np.isfinite(item.scores).all():
            raise UsageError(f"{item.recording}: scores hold NaN; nothing was written")


def write_abaw(
    predictions: Mapping[str, Predictions],
    path: Path,
    task: Task | str,
    sample: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write the submission file of the fifth ABAW edition and later: rows ``track/00001.jpg,<columns>``.

    ``sample``: the organisers' sample file; exactly its rows are written, in its order, because a missing row makes a
    submission invalid.

    Raises UsageError for a task that is not official, where a row of the sample was not predicted, where its header is
    of another task, for NaN, and where ``path`` exists, unless ``overwrite``.
    """
    task = as_task(task)
    _check(predictions, task)
    if not task.official:
        raise UsageError(f"the challenge has no submission for this task {task.name!r}: choose another format")
    rows = {
        f"{name}/{index:05d}.jpg": line
        for name, item in predictions.items()
        for index, line in enumerate(_lines(item), start=1)
    }
    order = list(rows) if sample is None else sample_rows(sample, task)
    header = _header(task)
    missing = [row for row in order if row not in rows]
    if missing:
        raise UsageError(
            f"{sample}: {len(missing)} of its {len(order)} rows were not predicted, first {', '.join(missing[:5])}: "
            "predict those recordings, or check that their ids are the sample's track names"
        )
    if surplus := len(rows) - len(order):
        log.warning("%s: %d predicted frames are not in the sample and were left out", path, surplus)
    lines = (header, *(f"{row},{rows[row]}" for row in order))
    write_file(path, "".join(f"{line}\n" for line in lines), overwrite, PRIVATE)


def _header(task: Task) -> str:
    return ",".join(("image_location", *task.names))


def sample_rows(sample: Path, task: Task) -> list[str]:
    """The ``track/00001.jpg`` of every line of a sample file; what follows the first comma is not read.

    Raises UsageError for the sample of another task, and for rows that occur twice.
    """
    header = _header(task)
    lines = sample.read_text(encoding="utf-8-sig").splitlines()
    found = lines[0].replace(" ", "").rstrip(",") if lines else ""
    if found.casefold() != header.casefold():
        raise UsageError(f"{sample}: its header is {found!r}, expected {header!r}: is it the sample of another task?")
    rows = [line.partition(",")[0].strip() for line in lines[1:] if line.strip()]
    if len(set(rows)) != len(rows):
        raise UsageError(f"{sample}: twice in it: {counted(len(rows) - len(set(rows)), 'row')}")
    return rows


def track_file(folder: Path, name: str, suffix: str = ".txt") -> Path:
    """The file that is written for a track."""
    return folder / f"{name}{suffix}"


def write_tracks(
    predictions: Mapping[str, Predictions],
    folder: Path,
    task: Task | str,
    overwrite: bool = False,
) -> None:
    """Write one ``<track>.txt`` each, with the header of the annotations and a row per frame (third ABAW edition).

    Raises UsageError as `write_each` does, and for NaN.
    """
    task = as_task(task)
    _check(predictions, task)
    header = ",".join(task.names)
    texts = {name: "".join(f"{line}\n" for line in (header, *_lines(item))) for name, item in predictions.items()}
    write_each(texts, folder, ".txt", overwrite)


def write_each(texts: Mapping[str, str], folder: Path, suffix: str, overwrite: bool = False) -> None:
    """Write a file for each track: its name in ``folder``, and the suffix. Other files are kept.

    Raises UsageError and writes nothing for a name that is not inside ``folder``, where two tracks would be one file on
    a case-insensitive file system, and where a file exists, unless ``overwrite``.
    """
    if pair := same_file(texts):
        raise UsageError(f"{' and '.join(pair)} would be one file where case is ignored: write them separately")
    for name in texts:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UsageError(f"{name}: not a relative recording id; nothing was written")
        refuse_existing(track_file(folder, name, suffix), overwrite)
    for name, text in texts.items():
        write_file(track_file(folder, name, suffix), text, overwrite, PRIVATE)


def same_file(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of the names that are one file on a case-insensitive file system, or None."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            return other, name
    return None


def write_csv(predictions: Mapping[str, Predictions], path: Path, overwrite: bool = False) -> None:
    """Write every score: ``recording,frame,pts_s,<columns>,valid``; frame 1 is ``00001.jpg``; valid 0: no face found.

    Raises UsageError where ``path`` exists, unless ``overwrite``.
    """
    names = next(iter(predictions.values())).names if predictions else ()
    rows: list[tuple[Any, ...]] = [("recording", "frame", "pts_s", *names, "valid")]
    for name, item in predictions.items():
        for index, (time_s, row, found) in enumerate(
            zip(item.pts_s, item.scores, item.face_found, strict=True), start=1
        ):
            clock = "" if np.isnan(time_s) else f"{time_s:.6f}"
            rows.append((name, index, clock, *(f"{score:.6f}" for score in row), int(found)))
    write_file(path, csv_text(rows), overwrite, PRIVATE)


def write_parquet(predictions: Mapping[str, Predictions], path: Path, overwrite: bool = False) -> None:
    """Write what `write_csv` writes as one Parquet table: times and scores as numbers, ``valid`` as a Boolean.

    Raises UsageError without pyarrow, and as `write_csv` does.
    """
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError("writing parquet needs pyarrow: pip install pyarrow") from None
    items = list(predictions.values())
    names = items[0].names if items else ()
    columns: dict[str, Any] = {
        "recording": [name for name, item in predictions.items() for _ in range(len(item))],
        "frame": np.concatenate([np.arange(1, len(item) + 1) for item in items] or [np.zeros(0, np.int64)]),
        "pts_s": np.concatenate([item.pts_s for item in items] or [np.zeros(0)]),
    }
    scores = np.concatenate([item.scores for item in items] or [np.zeros((0, 0), np.float32)])
    columns |= {name: scores[:, k] for k, name in enumerate(names)}
    columns["valid"] = np.concatenate([item.face_found for item in items] or [np.zeros(0, bool)])
    refuse_existing(path, overwrite)
    with staged_file(path, overwrite, PRIVATE) as staged:
        parquet.write_table(arrow.table(columns), staged)
