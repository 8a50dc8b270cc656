"""Predictions, and the files they are handed over in. numpy only."""

from __future__ import annotations

import csv
import io
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.files import refuse_existing, staged_file, write_file
from aupipe.train.labels import NAMES
from aupipe.types import Task

log = logging.getLogger(__name__)

Threshold = float | tuple[float, ...]  # of all AUs, or one each


@dataclass(frozen=True)
class Predictions:
    """Scores of one recording, row k for decoded frame k.

    ``scores`` float32 (T, K): AU probabilities (K 12), expression class probabilities (K 8), or valence and arousal in
    [-1, 1] (K 2). ``face_found`` (T,): the face was found; other frames were predicted from what surrounds them.
    """

    recording: str
    task: Task
    names: tuple[str, ...]
    scores: NDArray[np.float32]
    face_found: NDArray[np.bool_]
    pts_s: NDArray[np.float64]  # NaN where the store holds no clock

    def __len__(self) -> int:
        return len(self.scores)


def decide(scores: NDArray[np.float32], task: Task, threshold: Threshold = 0.5) -> NDArray[np.float32]:
    """What is handed in: AU (T, 12), 1 where score >= threshold (one, or one per AU); EXPR the class (T, 1); VA (T, 2)
    within [-1, 1].

    Equal class probabilities go to the lower class number.
    """
    if task == "au":
        return (scores >= np.asarray(threshold, dtype=np.float64)).astype(np.float32)
    if task == "expr":
        return scores.argmax(axis=1).astype(np.float32)[:, None]  # (T, 8) -> (T, 1)
    return np.clip(scores, -1.0, 1.0)


def _lines(predictions: Predictions, threshold: Threshold) -> Iterator[str]:
    """The decided columns of each frame as they stand in annotation and submission files."""
    decided = decide(predictions.scores, predictions.task, threshold)
    form = "%.6f" if predictions.task == "va" else "%d"
    return (",".join(form % value for value in row) for row in decided)


def _check(predictions: Mapping[str, Predictions], task: Task) -> None:
    for item in predictions.values():
        if item.task != task:
            raise UsageError(f"{item.recording}: predictions are for task {item.task!r}, not {task!r}")
        if not np.isfinite(item.scores).all():
            raise UsageError(f"{item.recording}: scores hold NaN; nothing was written")


def write_abaw(
    predictions: Mapping[str, Predictions],
    path: Path,
    task: Task,
    sample: Path | None = None,
    threshold: Threshold = 0.5,
    overwrite: bool = False,
) -> None:
    """Write the one submission file of the fifth edition and later: rows ``track/00001.jpg,<columns>``.

    With ``sample``, the organisers' sample file, exactly its rows are written, in its order: a missing row makes
    a submission invalid.

    Raises UsageError when a row of the sample was not predicted, when its header is another task's, for NaN, and where
    something is at ``path`` already, unless ``overwrite``.
    """
    _check(predictions, task)
    rows = {
        f"{name}/{index:05d}.jpg": line
        for name, item in predictions.items()
        for index, line in enumerate(_lines(item, threshold), start=1)
    }
    header = ",".join(("image_location", *NAMES[task]))
    order = list(rows) if sample is None else _sample_rows(sample, header)
    missing = [row for row in order if row not in rows]
    if missing:
        raise UsageError(
            f"{sample}: {len(missing)} of its {len(order)} rows were not predicted, first {', '.join(missing[:5])}: "
            "predict those recordings, or check that their ids are the sample's track names"
        )
    if surplus := len(rows) - len(order):
        log.warning("%s: %d predicted frames are not in the sample and were left out", path, surplus)
    write_file(path, "".join(f"{line}\n" for line in (header, *(f"{row},{rows[row]}" for row in order))), overwrite)


def _sample_rows(sample: Path, header: str) -> list[str]:
    """The ``track/00001.jpg`` of every line of a sample file; behind the first comma are dummies, or nothing."""
    lines = sample.read_text(encoding="utf-8-sig").splitlines()
    found = lines[0].replace(" ", "").rstrip(",") if lines else ""
    if found.casefold() != header.casefold():
        raise UsageError(f"{sample}: its header is {found!r}, expected {header!r}: is it the sample of another task?")
    rows = [line.partition(",")[0].strip() for line in lines[1:] if line.strip()]
    if len(set(rows)) != len(rows):
        raise UsageError(f"{sample}: {len(rows) - len(set(rows))} rows stand in it twice")
    return rows


def track_file(folder: Path, name: str) -> Path:
    """The file `write_tracks` writes for a track."""
    return folder / f"{name}.txt"


def write_tracks(
    predictions: Mapping[str, Predictions],
    folder: Path,
    task: Task,
    threshold: Threshold = 0.5,
    overwrite: bool = False,
) -> None:
    """Write one ``<track>.txt`` each, with the annotation's header and a row per frame: the third edition's form.

    Other files in ``folder`` stay. Nothing is written, and UsageError raised, for a name that leads out of it, for NaN,
    where two tracks would be one file on some file systems, and, without ``overwrite``, where a file is there already.
    """
    _check(predictions, task)
    if twins := same_file(predictions):
        raise UsageError(f"{' and '.join(twins)} would be one file where case does not count: write them apart")
    for name in predictions:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UsageError(f"{name}: not a relative recording id; nothing was written")
        refuse_existing(track_file(folder, name), overwrite)
    for name, item in predictions.items():
        text = "".join(f"{line}\n" for line in (",".join(NAMES[task]), *_lines(item, threshold)))
        write_file(track_file(folder, name), text, overwrite)


def same_file(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of the names that are one file on a file system which does not tell A from a, or None."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin != name:
            return twin, name
    return None


def write_csv(predictions: Mapping[str, Predictions], path: Path, overwrite: bool = False) -> None:
    """Write every score: ``recording,frame,pts_s,<columns>,valid``; frame 1 is ``00001.jpg``, valid 0: no face.

    Raises UsageError where something is at ``path`` already, unless ``overwrite``.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = next(iter(predictions.values())).names if predictions else ()
    writer.writerow(("recording", "frame", "pts_s", *names, "valid"))
    for name, item in predictions.items():
        for index, (time_s, row, seen) in enumerate(
            zip(item.pts_s, item.scores, item.face_found, strict=True), start=1
        ):
            clock = "" if np.isnan(time_s) else f"{time_s:.6f}"
            writer.writerow((name, index, clock, *(f"{score:.6f}" for score in row), int(seen)))
    write_file(path, out.getvalue(), overwrite)


def write_parquet(predictions: Mapping[str, Predictions], path: Path, overwrite: bool = False) -> None:
    """Write what `write_csv` writes as one Parquet table: times and scores as numbers, ``valid`` as a truth value.

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
    with staged_file(path, overwrite) as staged:
        parquet.write_table(arrow.table(columns), staged)
