"""The executor of many machines: the run places each job on one of them, through Dask."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from distributed import Client

from aupipe.errors import AupipeError, named
from aupipe.extract.engine.events import FramesDecoded, ItemPublished
from aupipe.extract.executors import (
    Attempt,
    ExecutorEvent,
    JobEnded,
    JobHangs,
    JobReturned,
    MachineChanged,
    StagesMeasured,
    WorkerDied,
)
from aupipe.extract.executors.cluster.machines import Machine, Machines
from aupipe.extract.executors.cluster.messages import (
    PLUGIN,
    AgentMessage,
    Died,
    Ended,
    Hello,
    Hung,
    Order,
    Progress,
    Refusal,
    Returned,
    opened,
    sealed,
)
from aupipe.extract.executors.cluster.plugin import AgentPlugin
from aupipe.extract.executors.cluster.tasks import TaskOver, Tasks
from aupipe.extract.executors.driver import size_of
from aupipe.extract.planning.plan import source_paths

POLL_S = 1.0
LOOK_S = 2.0  # between looks at which machines are still there
LOST_WITH = 3  # machines: a job that was lost with so many is tried alone
CALL_S = 10.0  # so long a call waits for the scheduler, or for machines that do not answer
SILENT_S = 60.0  # a scheduler on a busy machine may take long to answer; one that has ended is noticed at once
TOUCH_S = 3600.0  # between signs of life on the file that marks the store

log = logging.getLogger(__name__)


@dataclass
class DaskExecutor:
    """Machines of a Dask cluster; see `aupipe.extract.executors.Executor`."""

    client: Client
    scheduler: str  # address
    order: Order
    machines: Machines
    _where: dict[int, str] = field(default_factory=dict)  # number of a job -> address of its machine
    _numbers: Iterator[int] = field(default_factory=itertools.count)  # of jobs
    _arrived: queue.SimpleQueue[TaskOver | AgentMessage] = field(default_factory=queue.SimpleQueue)
    _processes: dict[tuple[str, int], int] = field(default_factory=dict)  # (address, number there) -> number here
    _losses: Counter[str] = field(default_factory=Counter)  # video -> machines it was lost with
    _died_on: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # video -> addresses
    _looked_s: float = field(default_factory=time.monotonic)
    _answered_s: float = field(default_factory=time.monotonic)
    _touched_s: float = field(default_factory=time.monotonic)
    _is_open: bool = True

    def __post_init__(self) -> None:
        topic = f"{PLUGIN}-{self.order.run}"
        self.client.subscribe_topic(topic, lambda event: self._arrived.put(opened(event[1])))
        self._tasks = Tasks(self.client, topic, self._arrived.put)
        plugin = AgentPlugin(sealed(self.order), topic)
        try:
            self.client.register_plugin(plugin, name=PLUGIN)
        except Exception as error:  # of one machine; the others have it
            log.warning("a Dask worker takes no part: %s", named(error))

    # What the driver asks ---------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        return bool(self._where)

    def has_slot(self, size_bytes: int = 0, alone: bool = False) -> bool:
        """Whether a job of this size can be assigned now; ``alone``: to a process that has no other."""
        return self.machines.has_slot(size_bytes, alone)

    def assign(self, attempt: Attempt) -> None:
        """Give a job to the emptiest machine that can take it; one that killed, to a machine where it did not."""
        machine = self.machines.choose(attempt, self._died_on[attempt.job.video_id])
        number = next(self._numbers)
        machine.give(number, attempt)
        self._where[number] = machine.address
        self._tasks.add(machine.address, number, attempt)

    def poll(self) -> Iterator[ExecutorEvent]:
        """Wait a moment for what happens. Raises AupipeError where no machine can go on."""
        self._tasks.send()
        for arrival in self._arrivals():
            match arrival:
                case TaskOver():  # what became of its jobs has been told before; where it has not, nobody knows
                    yield from map(JobReturned, self._take(self._tasks.finish(arrival)))
                case Hello():
                    yield from self._join(arrival)
                case Refusal():
                    yield from self._refuse(arrival)
                case Progress():
                    yield from self._progress(arrival)
                case Ended(number, result, progress, published):
                    yield from self._progress(progress)
                    yield from map(ItemPublished, published)
                    yield from (JobEnded(attempt, result) for attempt in self._take([number], ended=True))
                case Hung(number, reason, published):
                    yield from map(ItemPublished, published)
                    yield from (JobHangs(attempt, reason) for attempt in self._take([number]))
                case Returned(number, reason, published):
                    yield from map(ItemPublished, published)
                    yield from self._returned(number, reason)
                case Died(numbers, reason, published):
                    yield from map(ItemPublished, published)
                    yield from self._died(numbers, reason)
        yield from self._look()

    def _arrivals(self) -> list[Any]:
        """All that has come; waits a moment for the first."""
        found: list[Any] = []
        with suppress(queue.Empty):
            found.append(self._arrived.get(timeout=POLL_S))
            while True:
                found.append(self._arrived.get_nowait())
        return found

    def _progress(self, progress: Progress) -> Iterator[ExecutorEvent]:
        yield FramesDecoded(progress.frames)
        yield from progress.usage
        for process, each in progress.measured.items():
            yield StagesMeasured(self._process(progress.address, process), each)

    # What becomes of jobs ---------------------------------------------------------------------------------------------

    def _take(self, numbers: Sequence[int], ended: bool = False) -> list[Attempt]:
        """Let go of jobs that a machine had; those that it no longer had are left out."""
        taken = []
        for number in numbers:
            attempt = self.machines.take(self._where.pop(number, ""), number, ended)
            if attempt is not None:
                taken.append(attempt)
        return taken

    def _returned(self, number: int, unseen: str) -> Iterator[ExecutorEvent]:
        machine = self.machines.get(self._where.get(number, ""))
        for attempt in self._take([number]):
            if not attempt.job.recordings:
                yield JobReturned(attempt)
                continue
            is_here = all(path.exists() for path in source_paths(attempt.job.recordings[0], "clock"))
            size_bytes = size_of(attempt.job) if is_here else -1
            if unseen and machine is not None and size_bytes == attempt.size_bytes:
                refusal = Refusal(machine.address, machine.hello.host, f"does not see what the run sees: {unseen}")
                yield from self._refuse(refusal)
            yield JobReturned(replace(attempt, size_bytes=size_bytes))

    def _died(self, numbers: Sequence[int], reason: str) -> Iterator[ExecutorEvent]:
        machine = self.machines.get(next((self._where[number] for number in numbers if number in self._where), ""))
        attempts = self._take(numbers)
        if machine is None or not attempts:
            return
        machine.deaths += 1
        for attempt in attempts:
            self._died_on[attempt.job.video_id].add(machine.address)
        reason = f"{reason} on {machine.hello.host}"
        if machine.is_doubtful and any(not other.is_doubtful for other in self.machines):
            yield from self._lost(attempts, reason)
        else:
            yield WorkerDied(tuple(attempts), reason)

    def _lost(self, attempts: Sequence[Attempt], reason: str) -> Iterator[ExecutorEvent]:
        """Jobs that were lost with a machine go back; those that were lost with several may be the reason.

        That is one death, however many they are; of those that were alone in their process, each has one of its own.
        """
        together = list[Attempt]()
        for attempt in attempts:
            self._losses[attempt.job.video_id] += 1
            if self._losses[attempt.job.video_id] < LOST_WITH:
                yield JobReturned(attempt)
            elif attempt.alone:
                yield WorkerDied((attempt,), reason)
            else:
                together.append(attempt)
        if together:
            yield WorkerDied(tuple(together), reason)

    # Machines ---------------------------------------------------------------------------------------------------------

    def _join(self, hello: Hello) -> Iterator[ExecutorEvent]:
        """A machine takes part. What an earlier agent at its address had is lost, whatever Dask does with its tasks."""
        known = self.machines.get(hello.address)
        if known is not None and known.hello.agent != hello.agent:
            yield from self._lose(known)
        if (changed := self.machines.join(hello)) is not None:
            yield changed

    def _lose(self, machine: Machine) -> Iterator[ExecutorEvent]:
        host = machine.hello.host
        log.warning("%s (%s) is gone; its %d jobs go back", host, machine.address, len(machine.held))
        yield MachineChanged(host, "lost")
        yield from self._drop(machine.address, f"the machine {host} was lost")

    def _refuse(self, refusal: Refusal) -> Iterator[ExecutorEvent]:
        """A machine takes no part, or no longer: the driver gets its jobs back."""
        if (changed := self.machines.refuse(refusal)) is not None:
            yield changed
        yield from self._drop(refusal.address)

    def _drop(self, address: str, reason: str = "") -> Iterator[ExecutorEvent]:
        machine = self.machines.get(address)
        if machine is None:
            return
        attempts = self._take(list(machine.held))
        self.machines.remove(address)
        self._tasks.drop(address)
        yield from self._lost(attempts, reason) if reason else map(JobReturned, attempts)

    def _process(self, address: str, number: int) -> int:
        """A number for a worker process that no other has."""
        return self._processes.setdefault((address, number), len(self._processes))

    def _look(self) -> Iterator[ExecutorEvent]:
        """Drop the machines that are gone.

        Raises AupipeError where the scheduler is gone, or no machine has taken part for too long.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        try:
            present = self._present()
        except (OSError, TimeoutError, RuntimeError) as error:  # the last: the client has just been closed
            if isinstance(error, TimeoutError) and time.monotonic() - self._answered_s < SILENT_S:
                return
            raise self._gone(error) from error
        self._answered_s = time.monotonic()
        for machine in [machine for machine in self.machines if machine.address not in present]:
            yield from self._lose(machine)
        self.machines.raise_if_none(present)
        if now_s - self._touched_s > TOUCH_S:
            self._touched_s = now_s
            with suppress(OSError):
                os.utime(self.order.mark)

    def _gone(self, reason: object) -> AupipeError:
        return AupipeError(
            f"the Dask scheduler at {self.scheduler} is gone ({reason}): start it, {self.machines.again}"
        )

    def _present(self) -> set[str]:
        """The addresses of all Dask workers. Raises OSError, TimeoutError when the scheduler does not answer."""
        scheduler = self.client.scheduler
        if scheduler is None or self.client.status != "running":  # one that is only slow stays connected
            raise OSError("the connection is closed")
        return set(self.client.sync(scheduler.ncores, callback_timeout=CALL_S))

    # The end ----------------------------------------------------------------------------------------------------------

    def shutdown(self) -> Iterator[ExecutorEvent]:
        """Have every machine end its worker processes."""
        self._close()
        yield from ()

    def kill_all(self) -> None:
        """End every worker process, now; may be called at any time, and twice."""
        self._close()

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._tasks.clear()
        self._where.clear()
        self.machines.clear()
        if self.client.status != "running":  # a scheduler that is gone has no machines and topics
            return
        with suppress(Exception):
            self.client.sync(self.client._unregister_worker_plugin, PLUGIN, callback_timeout=CALL_S)
        with suppress(Exception):
            self.client.unsubscribe_topic(self._tasks.topic)
