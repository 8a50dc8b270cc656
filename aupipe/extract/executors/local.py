"""Supervised worker processes on this machine: spawned, given jobs, listened to, and ended when they die or hang."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from multiprocessing.connection import wait as connection_wait
from pathlib import Path
from typing import Any

import aupipe
from aupipe.errors import AupipeError
from aupipe.extract.devices import crew_for, processes_on
from aupipe.extract.executors import (
    Attempt,
    ExecutorEvent,
    FramesDecoded,
    ItemPublished,
    JobEnded,
    JobHangs,
    JobReturned,
    StagesMeasured,
    WorkerDied,
)
from aupipe.extract.executors.messages import READY, Exhausted, Fatal, WorkerConfig
from aupipe.extract.job import Outcome
from aupipe.extract.means import Means
from aupipe.extract.memory import oom_kills
from aupipe.extract.meter import Measured, QuietStep
from aupipe.extract.parts import Parts
from aupipe.store import ItemRecord

IN_FLIGHT_CPU, IN_FLIGHT_GPU = 16, 64  # jobs beyond those being decoded, on each device
POLL_S = 1.0
SILENCE_S = 120.0  # a worker talks twice a second; one that is silent for so long stands still as a whole
START_S = 1800.0  # until it has imported its libraries and opened its device
LOAD_S = 3600.0  # until networks are loaded, tuned and compiled
GRACE_S = 30.0  # the neighbours of a video that hangs may end, as long as they get on at least this often
FRAMES = 64  # a step on more frames may take more, in proportion
MEDIA_S = 30.0  # and so may sound that is longer
ALLOCATOR = {  # without these, glibc maps and faults in every large activation anew (docs/pipeline.md, Memory)
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    slot: int
    attempts: dict[str, Attempt] = field(default_factory=dict)  # by video
    hung: int = 0  # jobs that were given up and still occupy it
    ready: bool = False
    frames: int = 0  # by all its stages, when it last told
    measured: Measured | None = None
    heard_s: float = field(default_factory=time.monotonic)
    moved_s: float = field(default_factory=time.monotonic)

    def takes(self, most_jobs: int) -> bool:
        """Whether it can have one more job: none of its jobs hangs, none has to be alone."""
        alone = any(attempt.alone for attempt in self.attempts.values())
        return not self.hung and not alone and len(self.attempts) < most_jobs


@dataclass
class LocalExecutor:
    """Worker processes, at most one in each slot; see `aupipe.extract.executors.Executor`.

    ``slots``: the device of each process. ``most_jobs``: how many one of them holds: enough to fill a batch from short
    clips, few enough to be tried again when it dies.
    """

    config: WorkerConfig
    slots: Sequence[str]
    most_jobs: int
    workers: list[_Worker] = field(default_factory=list)
    spawned: int = 0
    _oom_kills: int = field(default_factory=oom_kills)

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        return any(worker.attempts for worker in self.workers)

    def has_room(self, alone: bool = False) -> bool:
        """Whether a job can be assigned now; ``alone``: to a process that has no other."""
        for worker in [worker for worker in self.workers if not worker.attempts and not worker.hung]:
            if worker.process.poll() is not None:  # it died of nothing it holds: no job is to blame
                self._end(worker)
        return self.free_slot() is not None or self.least_busy(alone) is not None

    def assign(self, attempt: Attempt) -> None:
        """Give a job to a process; there must be room for it."""
        worker, slot = self.least_busy(attempt.alone), self.free_slot()
        if worker is None or (slot is not None and not attempt.alone):
            assert slot is not None
            worker = self.spawn(slot)
        worker.attempts[attempt.job.video_id] = attempt
        worker.heard_s = worker.moved_s = time.monotonic()
        with suppress(OSError):  # a worker that has died since is noticed in `poll`
            worker.connection.send(attempt.job)

    def free_slot(self) -> int | None:
        """A slot without a process."""
        return min(set(range(len(self.slots))) - {worker.slot for worker in self.workers}, default=None)

    def least_busy(self, alone: bool = False) -> _Worker | None:
        """The process with the fewest jobs, of those that can take one more."""
        able = [worker for worker in self.workers if worker.takes(1 if alone else self.most_jobs)]
        return min(able, key=lambda worker: len(worker.attempts), default=None)

    def spawn(self, slot: int) -> _Worker:
        """Start a worker process."""
        ours, theirs = Pipe()
        package = str(Path(aupipe.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "aupipe.extract.executors.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # stderr: results alone go to stdout, whatever a library prints
            start_new_session=True,  # Ctrl-C is for whoever was asked; the workers are told by their pipe
            env=os.environ | ALLOCATOR | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        theirs.close()
        worker = _Worker(self.spawned, process, ours, slot)
        self.spawned += 1
        with suppress(OSError):  # one that has died already is noticed in `poll`
            worker.connection.send(replace(self.config, device=self.slots[slot]))
        self.workers.append(worker)
        return worker

    def poll(self) -> Iterator[ExecutorEvent]:
        """Wait for messages of the workers. Raises AupipeError for a `Fatal` one."""
        workers = [worker for worker in self.workers if worker.attempts]
        heard = connection_wait([worker.connection for worker in workers], timeout=POLL_S)
        for worker in workers:
            if worker.connection in heard:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    attempts = tuple(worker.attempts.values())
                    yield WorkerDied(attempts, self.reap(worker))
                    continue
                if isinstance(message, Exhausted):
                    yield self._end_for(worker, message.reason)
                    continue
                if (event := self._receive(worker, message)) is not None:
                    yield event
            yield from self._check(worker)

    def _receive(self, worker: _Worker, message: Any) -> ExecutorEvent | None:
        if isinstance(message, Fatal):
            raise _error_of(message)
        worker.heard_s = now_s = time.monotonic()
        if isinstance(message, Measured):  # told twice a second, whether anything moves or not
            worker.measured = message
            if worker.frames != (frames := sum(stage.frames for stage in message.stages.values())):
                worker.frames, worker.moved_s = frames, now_s
            return StagesMeasured(worker.number, message)
        worker.moved_s = now_s
        if isinstance(message, int):
            return FramesDecoded(message)
        if isinstance(message, ItemRecord):
            return ItemPublished(message)
        if isinstance(message, Outcome):
            attempt = worker.attempts.pop(message.job.video_id, None)
            if attempt is not None:
                return JobEnded(attempt, message)
            worker.hung -= 1  # it had been given up
        elif message == READY:
            worker.ready = True
        return None

    # What does not get on -----------------------------------------------------------------------------------------

    def _check(self, worker: _Worker) -> Iterator[ExecutorEvent]:
        """Give up jobs that hang, and end a worker in which nothing else gets on."""
        if not worker.attempts:
            return
        now_s = time.monotonic()
        silent_s, still_s = now_s - worker.heard_s, now_s - worker.moved_s
        if not worker.ready:
            if silent_s > START_S:
                raise AupipeError(f"a worker process did not start within {START_S / 60:.0f} minutes: see its output")
            return
        if silent_s > min(SILENCE_S, self.config.means.stall_s):
            yield self._end_for(worker, f"the worker process stood still for {silent_s:.0f} s")
            return
        quiet = worker.measured.quiet if worker.measured else ()
        for step in quiet:
            if step.quiet_s <= self.limit_s(step):
                continue
            if step.stage == "write":
                raise AupipeError(
                    f"{self.config.store}: writing has not got on for {step.quiet_s:.0f} s: look at its disk or "
                    "network file system, then run the same command again"
                )
            if step.video in worker.attempts:
                worker.hung += 1
                yield JobHangs(worker.attempts.pop(step.video), _hang_of(step))
            elif not step.video:
                yield self._end_for(worker, _hang_of(step))
                return
        if worker.hung and (not worker.attempts or still_s > min(GRACE_S, self.config.means.stall_s)):
            returned = [JobReturned(attempt) for attempt in worker.attempts.values()]
            self._end(worker)
            yield from returned
        elif not quiet and still_s > LOAD_S:
            yield self._end_for(worker, f"nothing moved in the worker process for {still_s / 60:.0f} minutes")

    def limit_s(self, step: QuietStep) -> float:
        """For how long a step may stand still."""
        stall_s = self.config.means.stall_s
        if step.stage == "load":
            return max(stall_s, LOAD_S)
        share = step.frames / FRAMES if step.stage in ("detect", "encode") else step.media_s / MEDIA_S
        return stall_s * max(1.0, share)

    def _end_for(self, worker: _Worker, reason: str) -> WorkerDied:
        attempts = tuple(worker.attempts.values())
        self._end(worker)
        return WorkerDied(attempts, reason)

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.wait()
        worker.connection.close()
        self.workers.remove(worker)

    def reap(self, worker: _Worker) -> str:
        """Let go of a worker that has ended; of what it died, in words. Raises AupipeError when it never started."""
        self.workers.remove(worker)
        worker.connection.close()
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            kills, self._oom_kills = oom_kills() - self._oom_kills, oom_kills()
            how += " (killed by the kernel: out of memory)" if kills > 0 else " (out of memory?)"
        if not worker.ready:
            raise AupipeError(
                f"a worker process could not start ({how}): its output is above; too little memory is the usual reason"
            )
        return f"the worker process died on {how}"

    # The end --------------------------------------------------------------------------------------------------------

    def shutdown(self) -> Iterator[ExecutorEvent]:
        """Let every worker put its things in order and end; one that takes more than a minute is not waited for."""
        able = [worker for worker in self.workers if not worker.hung]
        for worker in able:
            with suppress(OSError):
                worker.connection.send(None)
        for worker in able:
            with suppress(EOFError, OSError):
                while worker.connection.poll(60):
                    if isinstance(message := worker.connection.recv(), Measured):
                        yield StagesMeasured(worker.number, message)
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=60)

    def kill_all(self) -> None:
        """End every worker, now. The store is made for that: nothing half written is ever seen."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.wait()
            worker.connection.close()
        self.workers.clear()


def local_executor(parts: Parts, store: Path, devices: Sequence[str], means: Means) -> LocalExecutor:
    """As many worker processes and threads as the devices and cores of this machine suggest, or the user says."""
    processes = processes_on(devices)
    while means.workers % processes:  # as many videos at once as the user says, not more
        processes -= 1
    crew = crew_for(devices, processes, means.workers)
    level = logging.getLogger("aupipe").getEffectiveLevel()
    config = WorkerConfig(parts, str(store), "", processes, level, crew, means)
    in_flight = IN_FLIGHT_CPU if devices[0] == "cpu" else IN_FLIGHT_GPU
    slots = [device for device in devices for _ in range(processes)]
    return LocalExecutor(config, slots, crew.decoders + in_flight // processes)


def _hang_of(step: QuietStep) -> str:
    return f"{step.stage}: no progress for {step.quiet_s:.0f} s (--stall-timeout)"


def _error_of(fatal: Fatal) -> AupipeError:
    error = AupipeError(fatal.message)
    error.exit_code = fatal.exit_code
    return error
