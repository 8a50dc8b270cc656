"""Label sets: what a data set annotates, and how it is learnt and scored.

A `Task` goes with its labels from the annotation files to the outputs of a head, the loss, the score, the
post-processing and the files of predictions. Its name is the one that commands and recipes use: the task ``au`` of
DISFA has other AUs than that of Aff-Wild2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from aupipe.errors import UsageError

Kind = Literal["multi_label", "classes", "regression", "intensity"]
Metric = Literal["F1", "CCC", "ICC", "PCC"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Task:
    """``names`` of the outputs of a head: AUs, classes, or dimensions.

    ``kind``: multi_label, 0 or 1 for each name; classes, the number of one of the names; regression and intensity,
    numbers from ``low`` to ``high``. ``invalid``: the mark of what is not annotated. ``official``: a challenge defines
    the score, so a frame counts only where all names are annotated; else each name counts where it is annotated.
    """

    name: str
    kind: Kind
    names: tuple[str, ...]
    invalid: float = -1.0
    metric: Metric = "F1"
    low: float = 0.0
    high: float = 1.0
    official: bool = False

    def __post_init__(self) -> None:
        if self.kind == "classes":
            object.__setattr__(self, "high", float(len(self.names) - 1))
        if not self.names or len(set(self.names)) < len(self.names):
            raise UsageError(f"task {self.name!r}: {len(self.names)} names; give at least one, and none twice")
        if (self.metric == "F1") != (self.kind in ("multi_label", "classes")):
            raise UsageError(f"task {self.name!r}: the metric {self.metric} does not fit the kind {self.kind}")

    def __str__(self) -> str:
        return self.name

    @property
    def columns(self) -> int:
        """Columns of the targets; for classes 1, the number of the class."""
        return 1 if self.kind == "classes" else len(self.names)

    @property
    def whole(self) -> bool:
        """Are targets whole numbers?"""
        return self.kind in ("multi_label", "classes")

    def to_json(self) -> str | dict[str, Any]:
        """The name of an official task, all fields of another one."""
        return self.name if self.official else asdict(self)


AU_NAMES = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
EXPR_NAMES = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
VA_NAMES = ("valence", "arousal")

# The label sets of the ABAW challenge, third edition onwards, in the order of their outputs.
OFFICIAL: dict[str, Task] = {
    "au": Task("au", "multi_label", AU_NAMES, official=True),
    "expr": Task("expr", "classes", EXPR_NAMES, official=True),
    "va": Task("va", "regression", VA_NAMES, invalid=-5.0, metric="CCC", low=-1.0, official=True),
}


def as_task(task: Task | str) -> Task:
    """A task, or the official one of this name. Raises UsageError for another name."""
    if isinstance(task, Task):
        return task
    if task not in OFFICIAL:
        raise UsageError(f"unknown task {task!r}: expected {', '.join(OFFICIAL)}, or a Task")
    return OFFICIAL[task]


def task_from_json(content: str | Mapping[str, Any]) -> Task:
    """The inverse of `Task.to_json`. Raises TypeError or KeyError for anything else."""
    if isinstance(content, str):
        return OFFICIAL[content]
    return Task(**{**content, "names": tuple(content["names"])})


def join_tasks(tasks: Sequence[Task]) -> Task:
    """One task with all names of several, in the order in which they occur; it is not official unless all are the same.

    Raises UsageError for tasks of several kinds, or whose numbers have other ranges, and for classes that differ.
    """
    first = tasks[0]
    if all(task == first for task in tasks):
        return first
    for task in tasks[1:]:
        same = [getattr(one, field) for field in ("kind", "metric") for one in (first, task)]
        if same[0] != same[1] or same[2] != same[3]:
            raise UsageError(f"task {first.name!r}: {first.kind} and {task.kind} cannot be trained jointly")
        if first.kind == "classes" and task.names != first.names:
            raise UsageError(
                f"task {first.name!r}: classes {', '.join(first.names)} and {', '.join(task.names)} differ"
            )
        if first.kind != "classes" and (first.low, first.high) != (task.low, task.high):
            raise UsageError(f"task {first.name!r}: numbers of different ranges cannot be trained jointly")
    names = tuple(dict.fromkeys(name for task in tasks for name in task.names))
    return Task(first.name, first.kind, names, first.invalid, first.metric, first.low, first.high)
