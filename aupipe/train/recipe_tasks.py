"""Which tables of a recipe, such as [loss.au], are for which task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tasks import KINDS, OFFICIAL, Task

TASK_NAMES = (*OFFICIAL, *KINDS)  # a table is for a task of this name, or for all tasks of this kind
KIND_OF = {name: task.kind for name, task in OFFICIAL.items()} | {kind: kind for kind in KINDS}
T = TypeVar("T")


def table_for(tables: Mapping[str, T], task: Task) -> T | None:
    """The table of a task: by its name, else by its kind."""
    alike = [name for name, kind in KIND_OF.items() if kind == task.kind]
    return next((tables[name] for name in (task.name, task.kind, *alike) if name in tables), None)


def check_task(name: str) -> None:
    """Raise UsageError unless ``name`` is that of an official task, or a kind."""
    if name not in TASK_NAMES:
        raise UsageError(f"unknown task {name!r}.{nearest(name, TASK_NAMES)} Available: {', '.join(TASK_NAMES)}")
