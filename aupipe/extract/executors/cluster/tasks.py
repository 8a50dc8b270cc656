"""The jobs of a run as tasks of Dask: one task for all jobs that a machine is given at a time.

A task costs Dask messages and CPU, however many jobs it is for: docs/cluster.md, "Measured".
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from distributed import Client, Future

from aupipe.extract.executors import Attempt
from aupipe.extract.executors.cluster.messages import sealed
from aupipe.extract.executors.cluster.plugin import run_jobs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskOver:
    """A task has ended, failed or been cancelled."""

    key: str


@dataclass(frozen=True)
class _Task:
    address: str
    jobs: tuple[int, ...]  # their numbers
    future: Future


@dataclass
class Tasks:
    """The tasks of a run; all methods are for one thread.

    ``topic``: what their keys begin with. ``tell`` receives a `TaskOver` for each, in a thread of Dask.
    """

    client: Client
    topic: str
    tell: Callable[[TaskOver], None]
    _unsent: defaultdict[str, dict[int, Attempt]] = field(default_factory=lambda: defaultdict(dict))  # by address
    _sent: dict[str, _Task] = field(default_factory=dict)  # by key
    _numbers: Iterator[int] = field(default_factory=itertools.count)  # of tasks, for their keys

    def add(self, address: str, number: int, attempt: Attempt) -> None:
        """Give a job to the machine at an address; it is sent by `send`."""
        self._unsent[address][number] = attempt

    def send(self) -> None:
        """Send what was added, as one task for each machine."""
        while self._unsent:
            address, jobs = self._unsent.popitem()
            key = f"{self.topic}-{next(self._numbers)}"
            future = self.client.submit(run_jobs, sealed((key, jobs)), key=key, workers=[address], pure=False)
            self._sent[key] = _Task(address, tuple(jobs), future)
            future.add_done_callback(lambda done: self.tell(TaskOver(done.key)))

    def finish(self, over: TaskOver) -> tuple[int, ...]:
        """Let go of a task that is over. Returns the numbers of its jobs; none where it was cancelled by `drop`."""
        task = self._sent.pop(over.key, None)
        if task is None:
            return ()
        if task.future.status == "error":
            log.warning("%s: %s", over.key, task.future.exception())
        task.future.release()
        return task.jobs

    def drop(self, address: str) -> None:
        """Cancel the tasks of the machine at an address, and forget what was added for it and not sent."""
        self._unsent.pop(address, None)
        for key in [key for key, task in self._sent.items() if task.address == address]:
            self._sent.pop(key).future.release()

    def clear(self) -> None:
        """Do what `drop` does, for all machines."""
        self._unsent.clear()
        while self._sent:
            self._sent.popitem()[1].future.release()
