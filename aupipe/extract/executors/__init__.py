"""Who runs which job where: the executor protocol, and the events an executor reports.

`aupipe.extract.executors.driver.extract` hands out jobs and decides what is tried again; it needs nothing but this
protocol. `aupipe.extract.executors.local.LocalExecutor` runs them in supervised worker processes of this machine,
`aupipe.extract.executors.cluster.executor.DaskExecutor` on many machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from aupipe.extract.engine.events import EngineEvent
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors.machine_usage import MachineUsage
from aupipe.extract.meter import Measured
from aupipe.extract.planning.plan import Job


@dataclass(frozen=True)
class Attempt:
    """One try at a job, or at one modality of it.

    ``size_bytes``: of its video, a measure of its work; below 0 where the run no longer sees the video.
    """

    job: Job
    alone: bool = False  # in a process of its own: what dies then is known
    size_bytes: int = 0
    died_alone: bool = False  # a process that had it alone died, once: that may have had a cause outside of the video


@dataclass(frozen=True)
class StagesMeasured:
    """What the stages of one process (by number) have done since it began; reported about twice a second."""

    process: int
    measured: Measured


@dataclass(frozen=True)
class JobEnded:
    """A job ended as it should; some of its items may have failed. Those it published were reported before."""

    attempt: Attempt
    result: JobResult


@dataclass(frozen=True)
class JobHangs:
    """A job does not advance; its items that are not published are not coming."""

    attempt: Attempt
    reason: str


@dataclass(frozen=True)
class WorkerDied:
    """A process ended before its jobs did; any of them may be the reason."""

    attempts: tuple[Attempt, ...]
    reason: str


@dataclass(frozen=True)
class JobReturned:
    """A job that was not finished, for a reason that is not its own."""

    attempt: Attempt


@dataclass(frozen=True)
class MachineChanged:
    """A machine of several takes part (with so many worker processes), refuses to, or is lost."""

    host: str
    state: Literal["joined", "refused", "lost"]
    reason: str = ""
    slots: int = 0


ExecutorEvent = (
    EngineEvent | StagesMeasured | MachineUsage | JobEnded | JobHangs | WorkerDied | JobReturned | MachineChanged
)


class Executor(Protocol):
    """Runs jobs somewhere. Every job that was assigned comes back in exactly one `JobEnded`, `JobHangs`, `WorkerDied`
    or `JobReturned`, and its published items in `ItemPublished` before that."""

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        ...

    def has_slot(self, size_bytes: int = 0, alone: bool = False) -> bool:
        """Whether a job of this size can be assigned now; ``alone``: to a process that has no other."""
        ...

    def assign(self, attempt: Attempt) -> None:
        """Give a job to a process; there must be a slot for it."""
        ...

    def poll(self) -> Iterator[ExecutorEvent]:
        """Wait a moment for what happens. Raises AupipeError for what no recording is the reason of."""
        ...

    def shutdown(self) -> Iterator[ExecutorEvent]:
        """Let every process close its store and end. Yields what they measured last."""
        ...

    def kill_all(self) -> None:
        """End every process, now; may be called at any time, and twice."""
        ...
