"""The rows of a table of labels for all recordings: ``recording``, ``frame`` or ``time_s``, a column for each name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.annotations import split_invalid
from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.table_rows import BATCH_ROWS, NO_VALUE, read_rows
from aupipe.tasks import Task

log = logging.getLogger(__name__)

TIMES = ("time_s", "pts_s")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LabelRows:
    """The rows of one recording, in the order of ``at`` (n,): frames from 1, or times in s. ``lines``: of the file."""

    at: NDArray[np.float64]
    targets: NDArray[np.float32]  # (n, K)
    valid: NDArray[np.bool_]
    lines: NDArray[np.int64]
    times: NDArray[np.float64]  # (n,) in s, of a file that has them beside frames; NaN: it does not say


@dataclass(frozen=True)
class LabelFile:
    """The rows by the name that a file gives a recording; ``splits``: those that it states.

    ``clock``: the column of the frames, or of the times, by which rows go.
    """

    rows: Mapping[str, LabelRows]
    splits: Mapping[str, str]
    clock: str

    @property
    def timed(self) -> bool:
        """Do rows go by times, and not by frames?"""
        return self.clock in TIMES


@dataclass(frozen=True)
class _Header:
    """The columns of a file: of the recording, the clock, times beside frames, the split, and the values.

    None: there is none.
    """

    names: list[str]
    recording: int
    at: int
    clock: str
    times: int | None
    split: int | None
    values: list[int]


def read_label_file(file: Path, task: Task, column: str = "", marked: bool = True) -> LabelFile:
    """Read a file of the labels of a task. ``column``: that of the class; '': the one called as the task.

    An empty cell is not annotated, nor is, where ``marked``, the mark of the task; other columns are not read. Raises
    UsageError, naming the file and the line, for a missing column, for a cell that is no value of its column, and for a
    frame or time that a recording has twice.
    """
    numbered = enumerate(read_rows(file), 1)
    header = _read_header(next(numbered, (1, ()))[1], task, column, file)
    classes = {name.strip().lower(): k for k, name in enumerate(task.names)} if task.kind == "classes" else {}
    codes: dict[str, int] = {}
    splits: dict[str, str] = {}
    parts = []
    for lines, columns in _blocks(numbered, len(header.names), file):
        names = [_text(cell) for cell in columns[header.recording]]
        if "" in names:
            raise UsageError(f"{file}, line {lines[names.index('')]}: no recording")
        if header.split is not None:
            _add_splits(splits, names, columns[header.split], lines, file)
        own = np.array([codes.setdefault(name, len(codes)) for name in names])
        at = _numbers(columns[header.at], lines, header.names[header.at], {}, file)
        values = [_numbers(columns[k], lines, header.names[k], classes, file) for k in header.values]
        times = np.full(len(lines), np.nan)
        if header.times is not None:
            times = _numbers(columns[header.times], lines, header.names[header.times], {}, file)
        parts.append((own, np.array(lines), at, times, np.stack(values, axis=1)))
    if not parts:
        raise UsageError(f"{file}: no row below the header")
    own, all_lines, at, times, table = (np.concatenate(each) for each in zip(*parts, strict=True))
    timed = header.clock in TIMES
    _check_clock(at, all_lines, timed, file)
    own_task = task if marked else replace(task, invalid=float("nan"))
    targets, valid = split_invalid(np.where(np.isnan(table), own_task.invalid, table), own_task, file, all_lines)
    order = np.lexsort((all_lines, at, own))
    own, at, times, all_lines = own[order], at[order], times[order], all_lines[order]
    targets, valid = targets[order], valid[order]
    if (same := np.flatnonzero((own[1:] == own[:-1]) & (at[1:] == at[:-1]))).size:
        k = int(same[0])
        what = f"{'time' if timed else 'frame'} {at[k]:g} of {list(codes)[own[k]]}"
        raise UsageError(f"{file}, line {all_lines[k + 1]}: {what} is also in line {all_lines[k]}: leave one of them")
    bounds = np.searchsorted(own, np.arange(len(codes) + 1)).tolist()
    parts_of = {name: slice(bounds[k], bounds[k + 1]) for name, k in codes.items()}
    rows = {
        name: LabelRows(at[part], targets[part], valid[part], all_lines[part], times[part])
        for name, part in parts_of.items()
    }
    return LabelFile(rows, splits, header.clock)


def _read_header(cells: Sequence[Any], task: Task, column: str, file: Path) -> _Header:
    names = [_text(cell) for cell in cells]
    folded = [name.lower() for name in names]
    if twice := next((name for name in folded if name and folded.count(name) > 1), None):
        raise UsageError(f"{file}, line 1: two columns {twice}")
    clock = next((name for name in ("frame", *TIMES) if name in folded), "frame or time_s")
    wanted = (column or task.name,) if task.kind == "classes" else task.names
    if missing := [name for name in ("recording", clock, *wanted) if name.lower() not in folded]:
        raise UsageError(
            f"{file}, line 1: no column {', '.join(missing)}.{nearest(missing[0], names)} It has "
            f"{', '.join(names) or 'none'}; [[task]] {task} reads recording, frame or time_s, and {', '.join(wanted)}"
        )
    split = folded.index("split") if "split" in folded else None
    values = [folded.index(name.lower()) for name in wanted]
    times = [name for name in TIMES if name in folded and name != clock and folded.index(name) not in values]
    if times and clock in TIMES:
        log.warning("%s: rows go by %s: %s is not read", file, clock, times[0])
    beside = folded.index(times[0]) if times and clock not in TIMES else None
    return _Header(names, folded.index("recording"), folded.index(clock), clock, beside, split, values)


def _blocks(
    numbered: Iterator[tuple[int, Sequence[Any]]], width: int, file: Path
) -> Iterator[tuple[list[int], list[Sequence[Any]]]]:
    """Many rows at a time: their lines, and their columns. Empty lines are left out."""
    filled = ((line, row) for line, row in numbered if any(cell not in (None, "") for cell in row))
    while block := list(islice(filled, BATCH_ROWS)):
        if wrong := next(((line, row) for line, row in block if len(row) != width), None):
            raise UsageError(f"{file}, line {wrong[0]}: {len(wrong[1])} cells, and {width} in the header")
        yield [line for line, _ in block], list(zip(*(row for _, row in block), strict=True))


def _add_splits(
    splits: dict[str, str], names: Sequence[str], cells: Sequence[Any], lines: Sequence[int], file: Path
) -> None:
    for name, cell, line in zip(names, cells, lines, strict=True):
        split = _text(cell).lower()
        if split not in SPLITS:
            raise UsageError(
                f"{file}, line {line}: split is {split!r}.{nearest(split, SPLITS)} Accepted: {', '.join(SPLITS)}"
            )
        if splits.setdefault(name, split) != split:
            raise UsageError(f"{file}, line {line}: split of {name} is {split}, and {splits[name]} above")


def _numbers(
    cells: Sequence[Any], lines: Sequence[int], column: str, classes: Mapping[str, int], file: Path
) -> NDArray[np.float64]:
    """A column as numbers, NaN for a cell without a value; ``classes``: the numbers of names in it.

    Each cell is a class by its name first: a class may be called ``none``, or by its number.
    """
    if not classes:
        try:
            return np.array([np.nan if cell is None or cell == "" else cell for cell in cells], np.float64)
        except (TypeError, ValueError):
            pass
    found = []
    for cell, line in zip(cells, lines, strict=True):
        text = _text(cell).lower()
        try:
            if text in classes:
                found.append(float(classes[text]))
            else:
                found.append(np.nan if text in NO_VALUE else float(text if isinstance(cell, str) else cell))
        except (TypeError, ValueError):
            accepted = f".{nearest(text, classes)} Accepted: {', '.join(classes)}" if classes else ": expected a number"
            raise UsageError(f"{file}, line {line}: {column} is {_text(cell)!r}{accepted}") from None
    return np.array(found, np.float64)


def _check_clock(at: NDArray[np.float64], lines: NDArray[np.int64], timed: bool, file: Path) -> None:
    wrong = ~np.isfinite(at) if timed else ~((at >= 1) & (at == np.floor(at)))
    if wrong.any():
        k = int(wrong.argmax())
        what = "no time" if timed else f"frame is {at[k]:g}: frames are counted from 1"
        raise UsageError(f"{file}, line {lines[k]}: {what}")


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()
