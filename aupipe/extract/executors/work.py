"""Independent items of work in supervised processes: runs of a training, videos to transcribe, stored items to check.

`run_work` is for them what `aupipe.extract.executors.driver.extract` is for the jobs of a plan. It runs on
`WorkProcesses` of this machine, or on the machines of a `DaskExecutor` whose order has the work.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from aupipe.child_process import start_child
from aupipe.errors import AupipeError, explain, named
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import (
    Attempt,
    Executor,
    ExecutorEvent,
    JobEnded,
    JobHangs,
    JobReturned,
    WorkerDied,
)
from aupipe.extract.executors.driver import size_of
from aupipe.extract.planning.plan import Job
from aupipe.types import Recording

T = TypeVar("T")
TRIES = 2
POLL_S = 0.2
SILENCE_S = 120.0  # a process tells every few seconds that it lives; one that is silent for so long stands still
KILL_S = 10.0  # a process in the kernel may take its time to end


@dataclass(frozen=True)
class Died:
    """An item whose process died each time; ``reason``: how."""

    reason: str


@dataclass
class WorkItem(Job):
    """A job that makes no features: ``content`` is pickled, and opened by the process that works on it alone.

    ``video_id`` is its name. ``recordings``: what it reads of; a machine that sees other files takes no part.
    """

    content: bytes = b""


@dataclass
class WorkResult(JobResult):
    """What came of a `WorkItem`: a pickled ``value``, or the ``error`` that was raised."""

    value: bytes = b""
    error: Exception | None = None


@dataclass(frozen=True)
class ListedTask:
    """A task of `ListedWork`: its place in the list, and its name."""

    number: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ListedWork:
    """Work that brings its tasks along: what they share, as the recordings of folds, is sent once to each machine."""

    work: Callable[[Any], Any]
    tasks: Sequence[Any]

    def __call__(self, task: ListedTask) -> Any:
        """What the work returns for the task of this place."""
        return self.work(self.tasks[task.number])


def run_work(
    executor: Executor,
    tasks: Sequence[T],
    tell: Callable[[str], None] = lambda line: None,
    halted: Callable[[], bool] = lambda: False,
    video_of: Callable[[T], Path | None] = lambda task: None,
) -> Generator[tuple[T, Any]]:
    """What the executor's work returns for each task, as they end; `Died` where its process died twice.

    Tasks are pickled, and named by `str`. ``tell`` receives a line when a process dies. Once ``halted`` says yes, no
    more are handed out, and those under way end. ``video_of``: the video that a task reads.

    An exception of the work is raised here, an unforeseen one as AupipeError; all processes are then ended, as they are
    when the iterator is closed.
    """
    coming, given, waiting, deaths = iter(tasks), dict[str, T](), deque[Attempt](), Counter[str]()
    try:
        while True:
            while not halted():
                if not waiting and (task := next(coming, None)) is not None:
                    name = str(task)
                    while name in given:
                        name += "'"
                    given[name] = task
                    waiting.append(_attempt(name, task, video_of(task)))
                if not waiting or not executor.has_slot(waiting[0].size_bytes, waiting[0].alone):
                    break
                executor.assign(waiting.popleft())
            if not executor.busy and (halted() or not waiting):
                break
            for event in executor.poll():
                died: tuple[Attempt, ...] = ()
                match event:
                    case JobEnded(attempt, WorkResult() as result):
                        if result.error is not None:
                            raise result.error
                        yield given.pop(attempt.job.video_id), pickle.loads(result.value)
                    case JobReturned(attempt):
                        waiting.appendleft(attempt)
                    case JobHangs(attempt, reason):
                        died = (attempt,)
                    case WorkerDied(attempts, reason):
                        died = attempts
                for attempt in died:
                    name = attempt.job.video_id
                    deaths[name] += 1
                    if deaths[name] < TRIES:
                        tell(f"{name}: {reason}; tried again")
                        waiting.appendleft(replace(attempt, alone=True))
                    else:
                        yield given.pop(name), Died(reason)
    finally:
        executor.kill_all()


def _attempt(name: str, task: Any, video: Path | None) -> Attempt:
    item = WorkItem(name, [Recording(name, video)] if video is not None else [], content=pickle.dumps(task))
    return Attempt(item, size_bytes=size_of(item))


def run_tasks(
    work: Callable[[T], Any],
    tasks: Sequence[T],
    environments: Sequence[Mapping[str, str]],
    tell: Callable[[str], None] = lambda line: None,
) -> Generator[tuple[T, Any]]:
    """`run_work` in as many processes of this machine as there are ``environments``.

    ``work``, tasks and results are pickled, so none may be defined in the module that runs as ``__main__``.
    """
    level = logging.getLogger("aupipe").level
    return run_work(WorkProcesses(pickle.dumps(work), environments, level), tasks, tell)


def visible(device: str) -> dict[str, str]:
    """The variables of a process that sees one device, which this process counts by its CUDA_VISIBLE_DEVICES."""
    if device == "cpu":
        return {}
    number = int(device.removeprefix("cuda:"))
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {"CUDA_VISIBLE_DEVICES": names.split(",")[number].strip() if names else str(number)}


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    connection: Connection
    attempt: Attempt | None = None
    heard_s: float = field(default_factory=time.monotonic)


@dataclass
class WorkProcesses:
    """Processes of this machine that do one item after another; see `aupipe.extract.executors.Executor`.

    ``work``: pickled, called with each task. At most one process for each of the ``environments``, the variables that
    it has besides those of this one.
    """

    work: bytes
    environments: Sequence[Mapping[str, str]]
    log_level: int = logging.WARNING
    _processes: dict[int, _Process] = field(default_factory=dict)  # by the number of its environment

    @property
    def busy(self) -> bool:
        """Whether any item is under way."""
        return any(one.attempt is not None for one in self._processes.values())

    def has_slot(self, size_bytes: int = 0, alone: bool = False) -> bool:
        """Whether an item can be assigned now; each has a process for itself."""
        return bool(self._free())

    def assign(self, attempt: Attempt) -> None:
        """Give an item to a process; there must be a slot for it."""
        assert isinstance(attempt.job, WorkItem)
        number = self._free()[0]
        if number in self._processes and self._processes[number].process.poll() is not None:  # it died of nothing
            _end(self._processes.pop(number))
        if number not in self._processes:
            process, connection = start_child("aupipe.extract.executors.work_process", self.environments[number])
            self._processes[number] = _Process(process, connection)
            with suppress(OSError):  # one that has died is noticed in `poll`
                connection.send((self.log_level, self.work))
        one = self._processes[number]
        one.attempt, one.heard_s = attempt, time.monotonic()
        with suppress(OSError):
            one.connection.send(attempt.job.content)

    def _free(self) -> list[int]:
        busy = {number for number, one in self._processes.items() if one.attempt is not None}
        return [number for number in range(len(self.environments)) if number not in busy]

    def poll(self) -> Iterator[ExecutorEvent]:
        """Wait a moment for what the processes send."""
        ready = wait([one.connection for one in self._processes.values()], POLL_S)
        for number, one in list(self._processes.items()):
            reason, attempt, message = "", one.attempt, None
            if one.connection in ready:
                try:
                    message = one.connection.recv()
                    one.heard_s = time.monotonic()
                except (EOFError, OSError):
                    reason = _end(self._processes.pop(number))
            elif attempt is not None and time.monotonic() - one.heard_s > SILENCE_S and not one.connection.poll():
                _end(self._processes.pop(number))
                reason = f"its process stood still for {SILENCE_S:.0f} s"
            if attempt is None:
                continue
            if reason:
                yield WorkerDied((attempt,), reason)
            elif message is not None:  # None is a sign of life
                error, value = message
                one.attempt = None
                yield JobEnded(attempt, WorkResult(attempt.job.video_id, value=value, error=error))

    def shutdown(self) -> Iterator[ExecutorEvent]:
        """End the processes; they have nothing to put in order."""
        self.kill_all()
        yield from ()

    def kill_all(self) -> None:
        """End every process, now; may be called at any time, and twice."""
        while self._processes:
            _end(self._processes.popitem()[1])


def _end(one: _Process) -> str:
    """End a process, if it has not ended, and say how it ended."""
    one.connection.close()
    with suppress(subprocess.TimeoutExpired):
        one.process.wait(0.5)  # one that died is not there any more, one that lives ends with its pipe
    one.process.kill()
    with suppress(subprocess.TimeoutExpired):
        one.process.wait(KILL_S)
    code = one.process.returncode
    return (
        f"its process was killed by signal {-code}" if code is not None and code < 0 else f"its process ended ({code})"
    )


def portable(error: Exception) -> Exception:
    """An exception as it is sent to the other process: AupipeErrors as they are, others as one with their text."""
    if isinstance(error, AupipeError):
        return error
    return AupipeError(explain(error) or named(error))
