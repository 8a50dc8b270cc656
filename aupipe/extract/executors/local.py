"""Supervised worker processes on this machine: spawned, given jobs, listened to, and ended when they die or hang."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait as connection_wait
from pathlib import Path

from aupipe.errors import AupipeError
from aupipe.extract.engine.events import FramesDecoded, ItemPublished
from aupipe.extract.engine.options import ExecutionOptions
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import (
    Attempt,
    ExecutorEvent,
    JobEnded,
    JobHangs,
    JobReturned,
    StagesMeasured,
    WorkerDied,
)
from aupipe.extract.executors.devices import processes_on, thread_counts
from aupipe.extract.executors.machine_usage import MachineUsage
from aupipe.extract.executors.messages import Exhausted, Fatal, Message, Ready, WorkerConfig, environment_of
from aupipe.extract.executors.worker_process import Slot, WorkerProcess, start_worker
from aupipe.extract.memory import oom_kills
from aupipe.extract.meter import Measured, QuietStep
from aupipe.extract.planning.features import FeatureSet

QUEUED_CPU, QUEUED_GPU = 8, 64  # jobs beyond those being decoded, on each device: short clips fill batches
SHARED_CPU, SHARED_GPU = 1, 8  # the same, where other runs would be idle for want of them
POLL_S = 1.0
SILENCE_S = 120.0  # a worker reports twice a second; one that is silent for so long stands still as a whole
START_S = 1800.0  # until it has imported its libraries and opened its device
LOAD_S = 3600.0  # until networks are loaded, tuned and compiled
GRACE_S = 30.0  # the other videos of a process with one that hangs may end, as long as they advance this often
FRAMES = 64  # a step on more frames may take more, in proportion
MEDIA_S = 30.0  # and so may sound that is longer


@dataclass
class LocalExecutor:
    """Worker processes, at most one in each slot; see `aupipe.extract.executors.Executor`."""

    config: WorkerConfig
    slots: Sequence[Slot]
    workers: list[WorkerProcess] = field(default_factory=list)
    spawned: int = 0
    failed_starts: int = 0  # since a process has started
    _oom_kills: int = field(default_factory=oom_kills)

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        return any(worker.attempts for worker in self.workers)

    def has_slot(self, size_bytes: int = 0, alone: bool = False) -> bool:
        """Whether a job of this size can be assigned now; ``alone``: to a process that has no other."""
        for worker in [worker for worker in self.workers if not worker.attempts and not worker.hung]:
            if worker.process.poll() is not None:  # it died of nothing it holds: no job is to blame
                self._end(worker)
        return self.free_slot() is not None or self.least_busy(size_bytes, alone) is not None

    def assign(self, attempt: Attempt) -> None:
        """Give a job to a process; there must be a slot for it."""
        worker, slot = self.least_busy(attempt.size_bytes, attempt.alone), self.free_slot()
        if worker is None or (slot is not None and not attempt.alone):
            assert slot is not None
            worker = self.spawn(slot)
        worker.attempts[attempt.job.video_id] = attempt
        worker.heard_s = worker.moved_s = time.monotonic()
        with suppress(OSError):  # a worker that has died since is noticed in `poll`
            worker.connection.send(attempt.job)

    def free_slot(self) -> Slot | None:
        """A slot without a process."""
        taken = [id(worker.slot) for worker in self.workers]
        return next((slot for slot in self.slots if id(slot) not in taken), None)

    def least_busy(self, size_bytes: int = 0, alone: bool = False) -> WorkerProcess | None:
        """The process with the fewest jobs, of those that can take one more."""
        able = [worker for worker in self.workers if worker.has_slot(size_bytes, alone)]
        return min(able, key=lambda worker: len(worker.attempts), default=None)

    def spawn(self, slot: Slot) -> WorkerProcess:
        """Start a worker process."""
        self.workers.append(start_worker(self.config, slot, self.spawned))
        self.spawned += 1
        return self.workers[-1]

    def poll(self) -> Iterator[ExecutorEvent]:
        """Wait for messages of the workers. Raises AupipeError for a `Fatal` one."""
        workers = [worker for worker in self.workers if worker.attempts]
        heard = connection_wait([worker.connection for worker in workers], timeout=POLL_S)
        for worker in workers:
            if worker.connection in heard:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    reason = self.reap(worker)
                    attempts = tuple(worker.attempts.values())
                    yield from [WorkerDied(attempts, reason)] if worker.ready else map(JobReturned, attempts)
                    continue
                if isinstance(message, Exhausted):
                    yield self._end_for(worker, message.reason)
                    continue
                if (event := self._receive(worker, message)) is not None:
                    yield event
            yield from self._check(worker)

    def _receive(self, worker: WorkerProcess, message: Message) -> ExecutorEvent | None:
        if isinstance(message, Fatal):
            raise _error_of(message)
        worker.heard_s = now_s = time.monotonic()
        if isinstance(message, Measured):  # sent twice a second, whether anything advances or not
            worker.measured = message
            if worker.frames != (frames := sum(stage.frames for stage in message.stages.values())):
                worker.frames, worker.moved_s = frames, now_s
            return StagesMeasured(worker.number, message)
        if isinstance(message, MachineUsage):
            return message
        worker.moved_s = now_s
        if isinstance(message, FramesDecoded | ItemPublished):
            return message
        if isinstance(message, JobResult):
            attempt = worker.attempts.pop(message.video_id, None)
            if attempt is not None:
                return JobEnded(attempt, message)
            worker.hung -= 1  # it had been given up
        elif isinstance(message, Ready):
            worker.ready, self.failed_starts = True, 0
        return None

    # What does not advance ----------------------------------------------------------------------------------------

    def _check(self, worker: WorkerProcess) -> Iterator[ExecutorEvent]:
        """Give up jobs that hang, and end a worker in which nothing else gets on."""
        if not worker.attempts:
            return
        now_s = time.monotonic()
        silent_s, still_s = now_s - worker.heard_s, now_s - worker.moved_s
        if not worker.ready:
            if silent_s > START_S:
                raise AupipeError(f"a worker process did not start within {START_S / 60:.0f} minutes: see its output")
            return
        if silent_s > min(SILENCE_S, self.config.options.stall_s):
            yield self._end_for(worker, f"the worker process stood still for {silent_s:.0f} s")
            return
        quiet = worker.measured.quiet if worker.measured else ()
        for step in quiet:
            if step.quiet_s <= self.limit_s(step):
                continue
            if step.stage == "write":
                raise AupipeError(
                    f"{self.config.store}: writing has not advanced for {step.quiet_s:.0f} s: look at its disk or "
                    "network file system, then run the same command again"
                )
            if step.video in worker.attempts:
                worker.hung += 1
                yield JobHangs(worker.attempts.pop(step.video), _hang_of(step))
            elif not step.video:
                yield self._end_for(worker, _hang_of(step))
                return
        if worker.hung and (not worker.attempts or still_s > min(GRACE_S, self.config.options.stall_s)):
            returned = [JobReturned(attempt) for attempt in worker.attempts.values()]
            self._end(worker)
            yield from returned
        elif not quiet and still_s > LOAD_S:
            yield self._end_for(worker, f"nothing moved in the worker process for {still_s / 60:.0f} minutes")

    def limit_s(self, step: QuietStep) -> float:
        """For how long a step may stand still."""
        stall_s = self.config.options.stall_s
        if step.stage == "load":
            return max(stall_s, LOAD_S)
        share = step.frames / FRAMES if step.stage in ("detect", "encode") else step.media_s / MEDIA_S
        return stall_s * max(1.0, share)

    def _end_for(self, worker: WorkerProcess, reason: str) -> WorkerDied:
        attempts = tuple(worker.attempts.values())
        self._end(worker)
        return WorkerDied(attempts, reason)

    def _end(self, worker: WorkerProcess) -> None:
        worker.process.kill()
        worker.process.wait()
        worker.connection.close()
        self.workers.remove(worker)

    def reap(self, worker: WorkerProcess) -> str:
        """Let go of a worker that has ended. Returns of what it died, in words.

        Raises AupipeError when it never started, nor did the one before it: one may be killed by accident.
        """
        self.workers.remove(worker)
        worker.connection.close()
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            kills, self._oom_kills = oom_kills() - self._oom_kills, oom_kills()
            how += " (killed by the kernel: out of memory)" if kills > 0 else " (out of memory?)"
        self.failed_starts += not worker.ready
        if self.failed_starts > 1:
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


def local_executor(
    features: FeatureSet, store: Path, devices: Sequence[str], options: ExecutionOptions, shared: bool = False
) -> LocalExecutor:
    """As many worker processes and threads as the devices and cores of this machine suggest, or the user says.

    ``shared``: other runs take jobs of the same plan, so this one takes few ahead.
    """
    processes = processes_on(devices)
    if options.workers:
        processes = min(processes, options.workers)
    threads = thread_counts(devices, processes, options.workers)
    on_cpu, on_gpu = (SHARED_CPU, SHARED_GPU) if shared else (QUEUED_CPU, QUEUED_GPU)
    queued = (on_cpu if devices[0] == "cpu" else on_gpu) // processes
    slots = [Slot(device, each, each.decoders + queued) for device in devices for each in threads]
    level = logging.getLogger("aupipe").getEffectiveLevel()
    config = WorkerConfig(features, str(store), "", processes, level, threads[0], options, environment=environment_of())
    return LocalExecutor(config, slots)


def _hang_of(step: QuietStep) -> str:
    return f"{step.stage}: no progress for {step.quiet_s:.0f} s (--stall-timeout)"


def _error_of(fatal: Fatal) -> AupipeError:
    error = AupipeError(fatal.message)
    error.exit_code = fatal.exit_code
    return error
