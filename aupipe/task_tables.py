"""The [[task]] tables of a configuration: label sets of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aupipe.errors import UsageError
from aupipe.tables import NotNegative, build
from aupipe.tasks import OFFICIAL, Kind, Metric, Task

METRICS: dict[str, Metric] = {"multi_label": "F1", "classes": "F1", "regression": "CCC", "intensity": "ICC"}


@dataclass(frozen=True)
class TaskTable:
    """One table: the fields of `aupipe.tasks.Task`, and where the labels are (`LabelSource`)."""

    name: str
    kind: Literal["multi_label", "classes", "regression", "intensity"]
    names: tuple[str, ...]
    folder: str = ""
    file: str = ""
    column: str = ""
    tolerance_s: NotNegative | None = None
    invalid: float | None = None
    low: float = 0.0
    high: float = 1.0
    metric: Literal["", "F1", "CCC", "ICC", "PCC"] = ""


@dataclass(frozen=True)
class LabelSource:
    """Where the labels of a label set are: a ``folder`` of annotations, or one ``file`` for all recordings.

    ``folder``: its name; it has Train_Set and Validation_Set in it. ``column``: that of the class in ``file``; '': the
    one called as the label set. ``tolerance_s``: how far a row of ``file`` may be from the frame that it labels; None:
    half a frame. ``marked``: cells of ``file`` that are the ``invalid`` of the label set are not annotated; else only
    empty cells are not.
    """

    folder: str = ""
    file: Path | None = None
    column: str = ""
    tolerance_s: float | None = None
    marked: bool = True

    def __str__(self) -> str:
        return str(self.file or self.folder)


def read_tasks(tables: Any, where: str, base: Path) -> tuple[tuple[Task, LabelSource], ...]:
    """The label sets of [[task]] tables, each with where its labels are. Raises UsageError for others.

    ``base``: the folder that a relative ``file`` is in.
    """
    if not isinstance(tables, list):
        raise UsageError(f"{where}: label sets are written as [[task]] tables")
    found: dict[str, tuple[Task, LabelSource]] = {}
    for table in tables:
        one = build(TaskTable, table, f"{where}: [[task]]")
        if one.name in found or one.name in OFFICIAL or not one.name.isidentifier():
            taken = ", ".join([*OFFICIAL, *found])
            raise UsageError(f"{where}: [[task]] name {one.name!r}: use letters, digits and '_', and none of {taken}")
        kind: Kind = one.kind
        metric: Metric = one.metric or METRICS[kind]
        if bool(one.folder) == bool(one.file):
            raise UsageError(
                f'{where}: [[task]] {one.name}: give file = "labels.csv", one table for all recordings, or the folder '
                "of a file for each"
            )
        invalid = -1.0 if one.invalid is None else one.invalid
        marked = not (one.invalid is None and one.file and one.low <= invalid <= one.high)
        if not marked:
            invalid = one.low - 1  # for what is written; in the table an empty cell is not annotated
        if one.file and kind == "classes":
            _check_classes(one.names, f"{where}: [[task]] {one.name}")
        if not one.low < one.high or (kind not in ("classes",) and one.low <= invalid <= one.high):
            raise UsageError(f"{where}: [[task]] {one.name}: low < high and invalid outside of them, please")
        task = Task(one.name, kind, one.names, invalid, metric, one.low, one.high)
        file = (base / Path(one.file).expanduser()).absolute() if one.file else None
        found[one.name] = task, LabelSource(one.folder, file, one.column, one.tolerance_s, marked)
    return tuple(found.values())


def task_table(task: Task, source: LabelSource) -> dict[str, Any]:
    """The [[task]] table that `read_tasks` turns back into this label set, without what is so by default."""
    table: dict[str, Any] = {"name": task.name, "kind": task.kind, "names": task.names}
    table |= {"file": str(source.file)} if source.file else {"folder": source.folder}
    table |= {"column": source.column} if source.column else {}
    table |= {} if source.tolerance_s is None else {"tolerance_s": source.tolerance_s}
    default = not source.marked or (task.invalid == -1 < task.low)
    table |= {} if default else {"invalid": task.invalid}
    table |= {"low": task.low} if task.low != TaskTable.low else {}
    table |= {"high": task.high} if task.high != TaskTable.high and task.kind != "classes" else {}
    return table | ({"metric": task.metric} if task.metric != METRICS[task.kind] else {})


def _check_classes(names: Sequence[str], where: str) -> None:
    """Raise UsageError for names by which a cell of a table would fit two classes, or none."""
    folded = [name.strip().lower() for name in names]
    for k, name in enumerate(folded):
        if folded.index(name) < k or not name:
            other = f"differs from {names[folded.index(name)]!r} in capitals or blanks only" if name else "is blank"
            raise UsageError(f"{where}: the class {names[k]!r} {other}, and cells of a table are read without them")
        number = _number(name)
        if number is not None and number != k:
            raise UsageError(
                f"{where}: the class {names[k]!r} has the number {k}: a cell {name} would mean two classes. "
                "Name classes by words, or by their own numbers from 0"
            )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
