"""Who runs which job where: the executor protocol, and the events an executor tells of.

`aupipe.extract.executors.driver.extract` hands out jobs and decides what is tried again; it needs nothing but this
protocol. `aupipe.extract.executors.local.LocalExecutor` runs them in supervised worker processes of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from aupipe.extract.job import Outcome
from aupipe.extract.meter import Measured
from aupipe.extract.plan import Job
from aupipe.store import ItemRecord


@dataclass(frozen=True)
class Attempt:
    """One try at a job, or at one modality of it."""

    job: Job
    alone: bool = False  # in a process of its own: what dies then is known


@dataclass(frozen=True)
class FramesDecoded:
    """So many frames more; a frame that is decoded twice counts twice, as it costs."""

    count: int


@dataclass(frozen=True)
class StagesMeasured:
    """What the stages of one process (by number) have done since it began; told about twice a second."""

    process: int
    measured: Measured


@dataclass(frozen=True)
class ItemPublished:
    """An item is in the store, whatever becomes of its job."""

    record: ItemRecord


@dataclass(frozen=True)
class JobEnded:
    """A job ended as it should; some of its items may have failed."""

    attempt: Attempt
    outcome: Outcome


@dataclass(frozen=True)
class JobHangs:
    """A job does not get on; its items that are not published are not coming."""

    attempt: Attempt
    reason: str


@dataclass(frozen=True)
class WorkerDied:
    """A process ended before its jobs did; any of them may be the reason."""

    attempts: tuple[Attempt, ...]
    reason: str


@dataclass(frozen=True)
class JobReturned:
    """A job that was not finished, through no fault of its own."""

    attempt: Attempt


ExecutorEvent = FramesDecoded | StagesMeasured | ItemPublished | JobEnded | JobHangs | WorkerDied | JobReturned


class Executor(Protocol):
    """Runs jobs somewhere. Every job that was assigned comes back in exactly one `JobEnded`, `JobHangs`, `WorkerDied`
    or `JobReturned`, and its published items in `ItemPublished` before that."""

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        ...

    def has_room(self, alone: bool = False) -> bool:
        """Whether a job can be assigned now; ``alone``: to a process that has no other."""
        ...

    def assign(self, attempt: Attempt) -> None:
        """Give a job to a process; there must be room for it."""
        ...

    def poll(self) -> Iterator[ExecutorEvent]:
        """Wait a moment for what happens. Raises AupipeError for what no recording is the reason of."""
        ...

    def shutdown(self) -> Iterator[ExecutorEvent]:
        """Let every process put its things in order and end; what they measured last."""
        ...

    def kill_all(self) -> None:
        """End every process, now; may be called at any time, and twice."""
        ...
