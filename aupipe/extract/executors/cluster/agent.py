"""The agent of one machine, which runs jobs in supervised worker processes; it knows nothing of Dask.

A thread of its own owns the processes; they start with the first job and end after a minute without one, or with the
run.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from aupipe.errors import AupipeError
from aupipe.extract.engine.events import FramesDecoded, ItemPublished
from aupipe.extract.executors import (
    Attempt,
    Executor,
    ExecutorEvent,
    JobEnded,
    JobHangs,
    JobReturned,
    StagesMeasured,
    WorkerDied,
)
from aupipe.extract.executors.cluster.checks import gpus, refuse_unfit, unseen
from aupipe.extract.executors.cluster.messages import (
    AgentMessage,
    Died,
    Ended,
    Hello,
    Hung,
    Order,
    Progress,
    Refusal,
    Returned,
)
from aupipe.extract.executors.cluster.processes import open_processes
from aupipe.extract.executors.machine_usage import MachineUsage
from aupipe.extract.executors.messages import fatal_of
from aupipe.extract.meter import Measured
from aupipe.store import ItemRecord

IDLE_S = 60.0  # worker processes without a job end after so long
TELL_S = 2.0  # between reports of progress
CLOSE_AFTER = 5  # deaths of worker processes in a row, no job having ended between them

log = logging.getLogger(__name__)


@dataclass
class _Batch:
    """The jobs of one task; ``over`` is resolved when none of them is left."""

    jobs: Mapping[int, Attempt]  # by number
    left: set[int]  # numbers of the jobs that are not over
    over: Future[None] = field(default_factory=Future)

    def note_over(self, number: int) -> None:
        """One of the jobs is over."""
        self.left.discard(number)
        if not self.left and not self.over.done():
            self.over.set_result(None)


@dataclass
class _Held:
    """A job of this machine, and what it has published."""

    attempt: Attempt
    batch: _Batch
    published: list[ItemRecord] = field(default_factory=list)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, for a while."""
    before = os.environ.copy()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Agent:
    """Runs the jobs of one machine. `submit` and `abandon` may be called by any thread, `close` once."""

    def __init__(self, order: Order, address: str, tell: Callable[[AgentMessage], None]) -> None:
        self.order, self.address, self._tell = order, address, tell
        self.host = socket.gethostname()
        # Jobs, the numbers of jobs that nobody waits for, and None at the end.
        self._inbox: queue.SimpleQueue[_Batch | frozenset[int] | None] = queue.SimpleQueue()
        self._held: dict[int, _Held] = {}  # by number; those in worker processes, and those that wait for one
        self._waiting: list[int] = []
        self._executor: Executor | None = None
        self._frames, self._measured, self._told_s = 0, dict[int, Measured](), 0.0
        self._usage: dict[str, MachineUsage] = {}  # by device
        self._hello: Hello | None = None
        self._began = False  # a job has come
        self._greeted = False  # the machine has been told of
        self._deaths = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="aupipe-agent", daemon=True)
        self._thread.start()

    def submit(self, jobs: Mapping[int, Attempt]) -> Future[None]:
        """Run jobs, by number. What becomes of each is told before the future is resolved."""
        batch = _Batch(jobs, set(jobs))
        self._inbox.put(batch)
        return batch.over

    def abandon(self, numbers: Sequence[int]) -> None:
        """Nobody waits for these jobs any more."""
        self._inbox.put(frozenset(numbers))

    def close(self) -> None:
        """End the worker processes; jobs that have not ended are returned."""
        self._closing = True
        self._inbox.put(None)
        self._thread.join(timeout=30)

    # The thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open()
            idle_since_s = time.monotonic()
            while not self._closing:
                self._receive(wait=not self._held)
                self._assign()
                if self._executor is not None and self._executor.busy:
                    idle_since_s = time.monotonic()
                    for event in self._executor.poll():
                        self._deal(event)
                elif self._executor is not None and time.monotonic() - idle_since_s > IDLE_S:
                    for event in self._executor.shutdown():
                        self._deal(event)
                    self._executor.kill_all()
                self._report()
        except BaseException as error:
            if self._executor is not None:
                self._executor.kill_all()
            self._refuse(error)
        finally:
            if self._executor is not None:
                self._executor.kill_all()
            self._return_all()
            self._return_coming(0.0)

    def _open(self) -> None:
        with _environment(self.order.environment):  # that of the worker processes: it says where weights are
            devices = refuse_unfit(self.order)
        self._executor, can = open_processes(self.order, devices)
        self._hello = Hello(self.address, self.host, gpus(devices), can.slots, can.least, can.most, uuid.uuid4().hex)

    def _receive(self, wait: bool) -> None:
        """Take in the jobs that have come, and those that were abandoned. ``wait``: up to `TELL_S` for the first."""
        while True:
            try:
                received = self._inbox.get(timeout=TELL_S) if wait else self._inbox.get_nowait()
            except queue.Empty:
                return
            wait = False
            match received:
                case _Batch():
                    self._take(received)
                case frozenset():
                    self._drop(received)

    def _take(self, batch: _Batch) -> None:
        self._began = True
        for number, attempt in batch.jobs.items():
            self._held[number] = _Held(attempt, batch)
            if reason := unseen(attempt.job, attempt.size_bytes):
                self._resolve(Returned(number, reason), number)
            else:
                self._waiting.append(number)

    def _drop(self, gone: frozenset[int]) -> None:
        """Let go of abandoned jobs; the processes end once no job is left, since they may still work on them."""
        for number in gone & self._held.keys():
            if number in self._waiting:
                self._waiting.remove(number)
            self._resolve(Returned(number), number)
        if not self._held and self._executor is not None:
            self._executor.kill_all()

    def _assign(self) -> None:
        assert self._executor is not None
        while self._waiting:
            attempt = self._held[self._waiting[0]].attempt
            if not self._executor.has_slot(attempt.size_bytes, attempt.alone):
                return
            self._waiting.pop(0)
            self._executor.assign(attempt)

    def _deal(self, event: ExecutorEvent) -> None:
        match event:
            case FramesDecoded(count):
                self._frames += count
            case MachineUsage():
                self._usage[event.device] = event
            case StagesMeasured(process, measured):
                self._measured[process] = measured
            case ItemPublished(record):
                video = record.video_id or record.recording
                for number, held in self._held.items():
                    if held.attempt.job.video_id == video and number not in self._waiting:
                        held.published.append(record)
            case JobEnded(attempt, result):
                self._deaths = 0
                number = self._number_of(attempt)
                if number in self._held:
                    self._resolve(Ended(number, result, self._take_progress()), number)
            case JobHangs(attempt, reason):
                number = self._number_of(attempt)
                self._resolve(Hung(number, reason), number)
            case JobReturned(attempt):
                number = self._number_of(attempt)
                self._resolve(Returned(number), number)
            case WorkerDied(attempts, reason):
                log.warning("%s; jobs in it: %s", reason, ", ".join(attempt.job.video_id for attempt in attempts))
                numbers = tuple(map(self._number_of, attempts))
                self._resolve(Died(numbers, reason), *numbers)
                self._deaths += 1
                if self._deaths >= CLOSE_AFTER:
                    raise AupipeError(f"{CLOSE_AFTER} worker processes died in a row, and no job ended: {reason}")

    def _number_of(self, attempt: Attempt) -> int:
        """The number of a job; -1 for one that nobody waits for any more."""
        return next((number for number, held in self._held.items() if held.attempt is attempt), -1)

    def _resolve(self, outcome: Ended | Hung | Died | Returned, *numbers: int) -> None:
        """Tell what became of jobs, and let go of them."""
        held = {number: self._held.pop(number) for number in numbers if number in self._held}
        if held:
            published = tuple(record for each in held.values() for record in each.published)
            self._tell(replace(outcome, published=published))
        for number, each in held.items():
            each.batch.note_over(number)

    def _report(self) -> None:
        """Tell every `TELL_S` what has been done since the last time; the end of a job tells it, too."""
        if time.monotonic() - self._told_s < TELL_S:
            return
        if not (self._began and self._greeted):  # the run may not have listened yet when this was told before
            assert self._hello is not None
            self._greeted = True
            self._tell(self._hello)
        progress = self._take_progress()
        if progress.frames or progress.measured:
            self._tell(progress)

    def _take_progress(self) -> Progress:
        """What has been done since the last time."""
        progress = Progress(self.address, self._frames, self._measured, tuple(self._usage.values()))
        self._frames, self._measured, self._usage, self._told_s = 0, {}, {}, time.monotonic()
        return progress

    def _refuse(self, error: BaseException) -> None:
        """Take no more jobs, and say why."""
        fatal = fatal_of(error)
        if not fatal.foreseen:
            log.error("%s", fatal.message, exc_info=error)
        refusal = Refusal(self.address, self.host, fatal.message, fatal.exit_code)
        self._tell(refusal)
        self._return_all()
        while not self._closing:
            self._return_coming(TELL_S)
            self._tell(refusal)

    def _return_all(self) -> None:
        for number in list(self._held):
            self._resolve(Returned(number), number)

    def _return_coming(self, for_s: float) -> None:
        """Return the jobs that still come, for some seconds."""
        until_s = time.monotonic() + for_s
        with suppress(queue.Empty):
            while True:
                match self._inbox.get(timeout=max(0.0, until_s - time.monotonic())):
                    case _Batch() as batch:
                        for number in batch.jobs:
                            self._tell(Returned(number))
                            batch.note_over(number)
                    case None:
                        return
