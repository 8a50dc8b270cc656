"""The worker processes of a run: hired, given jobs, listened to, buried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from multiprocessing.connection import wait as connection_wait
from pathlib import Path
from typing import Any

import aupipe
from aupipe.errors import AupipeError
from aupipe.extract.job import Outcome
from aupipe.extract.meter import Measured
from aupipe.extract.plan import Job
from aupipe.extract.worker import READY, Setup, Stop
from aupipe.store.base import ItemRecord

SILENCE_S = 1800.0  # a worker that has decoded nothing and published nothing for this long hangs
ALLOCATOR = {  # without these, glibc maps and faults in every large activation anew (specs/stages.md, section 5)
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


@dataclass(frozen=True)
class Death:
    """A worker ended before its job did."""

    reason: str


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    place: int  # which of the staff's
    jobs: dict[str, Job] = field(default_factory=dict)  # by video
    ready: bool = False
    moved: int = 0  # frames, by all its stages, when it last said
    heard_s: float = field(default_factory=time.monotonic)


@dataclass
class Staff:
    """The worker processes of one run."""

    setup: Setup
    places: list[str]  # the device of each worker there may be
    on_frames: Callable[[int], None]
    on_measured: Callable[[int, Measured], None]
    workers: list[_Worker] = field(default_factory=list)
    published: dict[str, list[ItemRecord]] = field(default_factory=dict)  # video -> by jobs still under way
    died_on: set[str] = field(default_factory=set)  # videos that were in flight when a worker died
    hired: int = 0

    @property
    def busy(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.jobs]

    def least_busy(self, room: int, alone: bool = False) -> _Worker | None:
        """A worker with fewer than ``room`` jobs, a new one where a place is free; None when all are full."""
        free = set(range(len(self.places))) - {worker.place for worker in self.workers}
        if free and not (alone and self.workers):
            return self._hire(min(free))
        worker = min(self.workers, key=lambda worker: len(worker.jobs))
        return worker if len(worker.jobs) < room else None

    def give(self, worker: _Worker | None, job: Job) -> None:
        """Give a job to a worker."""
        assert worker is not None
        worker.jobs[job.video_id] = job
        worker.heard_s = time.monotonic()
        with suppress(OSError):  # a worker that has died since is noticed in `listen`
            worker.connection.send(job)

    def _hire(self, place: int) -> _Worker:
        ours, theirs = Pipe()
        package = str(Path(aupipe.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "aupipe.extract.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # stderr: results alone go to stdout, whatever a library prints
            start_new_session=True,  # Ctrl-C is for whoever was asked; the workers are told by their pipe
            env=os.environ | ALLOCATOR | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        theirs.close()
        worker = _Worker(self.hired, process, ours, place)
        self.hired += 1
        worker.connection.send(replace(self.setup, device=self.places[place]))
        self.workers.append(worker)
        return worker

    def listen(self) -> Iterator[tuple[Job, Outcome | Death]]:
        """Wait for the next words of the workers; yields the jobs that ended, well or not."""
        heard = connection_wait([worker.connection for worker in self.busy], timeout=1.0)
        for worker in self.busy:
            if worker.connection in heard:
                try:
                    word = worker.connection.recv()
                except (EOFError, OSError):
                    jobs = list(worker.jobs.values())
                    death = self._bury(worker)
                    for job in jobs:
                        yield job, death
                    continue
                if (ended := self._hear(worker, word)) is not None:
                    yield ended
            elif time.monotonic() - worker.heard_s > SILENCE_S:
                worker.process.kill()
                jobs = list(worker.jobs.values())
                self._bury(worker)
                for job in jobs:
                    yield job, Death(f"no progress for {SILENCE_S / 60:.0f} minutes")

    def _hear(self, worker: _Worker, word: Any) -> tuple[Job, Outcome] | None:
        if isinstance(word, Stop):
            raise _stopped(word)
        if isinstance(word, Measured):  # said twice a second, whether anything moves or not
            self.on_measured(worker.number, word)
            if worker.moved == (moved := sum(stage.frames for stage in word.stages.values())):
                return None
            worker.moved = moved
        worker.heard_s = time.monotonic()
        if isinstance(word, int):
            self.on_frames(word)
        elif isinstance(word, ItemRecord):
            video = word.video_id or word.recording
            self.published.setdefault(video, []).append(word)
        elif isinstance(word, Outcome):
            job = worker.jobs.pop(word.job.video_id)
            self.published.pop(job.video_id, None)
            return job, word
        elif word == READY:
            worker.ready = True
        return None

    def _bury(self, worker: _Worker) -> Death:
        """Let go of a worker that has ended, and say of what it died."""
        self.workers.remove(worker)
        worker.connection.close()
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not worker.ready:
            raise AupipeError(f"a worker process could not start ({how}); its words are above")
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return Death(f"the worker process died on {how}{hint}")

    def release(self) -> None:
        """Let every worker put its things in order and end; one that takes more than a minute is not waited for."""
        for worker in self.workers:
            with suppress(OSError):
                worker.connection.send(None)
        for worker in self.workers:
            with suppress(EOFError, OSError):
                while worker.connection.poll(60):
                    if isinstance(word := worker.connection.recv(), Measured):
                        self.on_measured(worker.number, word)
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=60)

    def dismiss(self) -> None:
        """End every worker, now. The store is made for that: nothing half written is ever seen."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.wait()
            worker.connection.close()
        self.workers.clear()


def _stopped(stop: Stop) -> AupipeError:
    error = AupipeError(stop.message)
    error.exit_code = stop.exit_code
    return error
