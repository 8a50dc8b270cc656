"""The [[task]] tables of a configuration: label sets of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aupipe.errors import UsageError
from aupipe.tables import build
from aupipe.tasks import OFFICIAL, Kind, Metric, Task

METRICS: dict[str, Metric] = {"multi_label": "F1", "classes": "F1", "regression": "CCC", "intensity": "ICC"}


@dataclass(frozen=True)
class TaskTable:
    """One table: the fields of `aupipe.tasks.Task`, and the ``folder`` that has Train_Set and Validation_Set in it."""

    name: str
    kind: Literal["multi_label", "classes", "regression", "intensity"]
    names: tuple[str, ...]
    folder: str
    invalid: float = -1.0
    low: float = 0.0
    high: float = 1.0
    metric: Literal["", "F1", "CCC", "ICC", "PCC"] = ""


def read_tasks(tables: Any, where: str) -> tuple[tuple[Task, str], ...]:
    """The label sets of [[task]] tables, each with the folder of its annotations. Raises UsageError for others."""
    if not isinstance(tables, list):
        raise UsageError(f"{where}: label sets are written as [[task]] tables")
    found: dict[str, tuple[Task, str]] = {}
    for table in tables:
        one = build(TaskTable, table, f"{where}: [[task]]")
        if one.name in found or one.name in OFFICIAL or not one.name.isidentifier():
            taken = ", ".join([*OFFICIAL, *found])
            raise UsageError(f"{where}: [[task]] name {one.name!r}: use letters, digits and '_', and none of {taken}")
        kind: Kind = one.kind
        metric: Metric = one.metric or METRICS[kind]
        if not one.low < one.high or (kind not in ("classes",) and one.low <= one.invalid <= one.high):
            raise UsageError(f"{where}: [[task]] {one.name}: low < high and invalid outside of them, please")
        task = Task(one.name, kind, one.names, one.invalid, metric, one.low, one.high)
        found[one.name] = task, one.folder
    return tuple(found.values())
