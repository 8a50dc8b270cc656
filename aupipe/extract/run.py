"""One machine: the device, the worker processes, what came of each job."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection, Pipe
from multiprocessing.connection import wait as connection_wait
from pathlib import Path
from typing import Any

import aupipe
from aupipe.dataset import source_identity
from aupipe.errors import AupipeError, UsageError
from aupipe.extract.job import Outcome
from aupipe.extract.means import Crew, Means
from aupipe.extract.meter import Measured
from aupipe.extract.plan import Job, Plan, source_paths
from aupipe.extract.worker import READY, Setup, Stop
from aupipe.store.base import ItemRecord, Store

log = logging.getLogger(__name__)

LIBRARIES = (
    "aupipe", "torch", "opencv-python-headless", "av", "librosa", "timm", "facenet-pytorch", "numpy", "onnxruntime"
)  # fmt: skip


def choose_devices(gpu: str | None, cpu: bool) -> list[str]:
    """The torch devices for ``--gpu 0``, ``--gpu 0,1``, ``--gpu cuda:1`` or ``--cpu``; by default the first GPU, else
    the CPU.

    Raises UsageError when a GPU was asked for and is not there: never a silent fall back to the CPU.
    """
    if cpu and gpu:
        raise UsageError("--cpu and --gpu exclude each other")
    if cpu:
        return ["cpu"]
    import torch

    if gpu is None:
        return ["cuda:0" if torch.cuda.is_available() else "cpu"]
    names = [name.strip().removeprefix("cuda:") for name in gpu.split(",")]
    if not all(name.isascii() and name.isdigit() for name in names):
        raise UsageError(f"--gpu {gpu}: expected a number such as 0, several such as 0,1, or cuda:0")
    if torch.version.cuda is None and torch.version.hip is None:
        raise UsageError(f"--gpu {gpu}: this torch ({torch.__version__}) has no CUDA; install one that has, or --cpu")
    count = torch.cuda.device_count()
    if any(int(name) >= count for name in names):
        found = f"torch sees {count} GPU(s)" if count else "torch sees no GPU (no driver, or none visible)"
        raise UsageError(f"--gpu {gpu}: {found}; run with --cpu to use the processor")
    return [f"cuda:{int(name)}" for name in dict.fromkeys(names)]


def available_cores() -> int:
    """Cores this process may use, which on a cluster is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_first(jobs: Sequence[Job]) -> list[Job]:
    """By the bytes of their videos, so that at the end of a run no core waits for a long one; equals stay in order."""

    def size(job: Job) -> int:
        video = job.recordings[0].video
        try:
            return video.stat().st_size if video is not None else 0
        except OSError:  # it will fail by name
            return 0

    return sorted(jobs, key=size, reverse=True)


def library_versions() -> dict[str, str]:
    """What made the numbers, for each item's record."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


SILENCE_S = 1800.0  # a worker that has decoded nothing and published nothing for this long hangs
IN_FLIGHT_CPU, IN_FLIGHT_GPU = 16, 64  # jobs beyond those being decoded
ALLOCATOR = {  # without these, glibc maps and faults in every large activation anew (specs/stages.md, section 5)
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


def crew_for(devices: Sequence[str], decoders: int = 0) -> Crew:
    """The threads of each worker process, of which there is one per device.

    On the CPU every core may decode and every core may encode: whichever stage is behind gets them. Beside a GPU one
    thread feeds it, and the cores decode; two are left for feeding and writing (specs/stages.md, section 8).
    """
    cores = available_cores()
    if devices[0] == "cpu":
        return Crew(decoders or cores, cores)
    return Crew(decoders or max(1, min(14, (cores - 2) // len(devices))), 1)


def extract(
    plan: Plan,
    store: Store,
    devices: Sequence[str],
    means: Means,
    *,
    on_frames: Callable[[int], None] = lambda n: None,
    on_measured: Callable[[int, Measured], None] = lambda worker, measured: None,
) -> Generator[Outcome, None, None]:
    """Run a plan's jobs in worker processes, one per device, yielding what came of each video as it ends.

    ``on_measured`` hears, twice a second, what the stages of each worker (by number) have done so far.

    A recording that fails, fails alone; whatever is published stays published. When a worker dies, the videos it had in
    flight are tried once more, one at a time and each alone, and the one that kills again is failed by name; so is one
    on which a worker hangs. When the caller stops iterating, the workers are killed and what they were writing is as it
    was before.

    Raises AupipeError for what is nobody's recording's fault: a full disk, missing weights, workers that cannot start.
    """
    crew = crew_for(devices, means.workers)
    setup = Setup(plan.parts, str(store.path), "", library_versions(), log.getEffectiveLevel(), crew, means)
    staff = _Staff(setup, list(devices), on_frames, on_measured)
    jobs, suspects = deque(largest_first(plan.jobs)), deque[Job]()
    # Jobs a worker holds: enough to fill a batch from short clips, few enough to try again when it dies.
    room = crew.decoders + (IN_FLIGHT_CPU if devices[0] == "cpu" else IN_FLIGHT_GPU)
    try:
        while jobs or suspects or staff.busy:
            while jobs and (worker := staff.least_busy(room)) is not None:
                staff.give(worker, jobs.popleft())
            if not jobs and not staff.busy and suspects:
                staff.give(staff.least_busy(1, alone=True), suspects.popleft())
            for job, ended in staff.listen():
                if isinstance(ended, Outcome):
                    yield ended
                elif job.video_id in staff.died_on:
                    yield _failed(job, store, ended, staff.published.pop(job.video_id, []))
                else:
                    log.warning("%s: %s; it is tried once more, alone, at the end", job.video_id, ended.reason)
                    staff.died_on.add(job.video_id)
                    suspects.append(job)
        staff.release()
    finally:
        staff.dismiss()


@dataclass(frozen=True)
class _Death:
    """A worker ended before its job did."""

    reason: str


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    device: str
    jobs: dict[str, Job] = field(default_factory=dict)  # by video
    ready: bool = False
    moved: int = 0  # frames, by all its stages, when it last said
    heard_s: float = field(default_factory=time.monotonic)


@dataclass
class _Staff:
    """The worker processes of one run."""

    setup: Setup
    devices: list[str]
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
        """A worker with fewer than ``room`` jobs, a new one where a device has none; None when all are full."""
        idle = [device for device in self.devices if device not in [worker.device for worker in self.workers]]
        if idle and not (alone and self.workers):
            return self._hire(idle[0])
        worker = min(self.workers, key=lambda worker: len(worker.jobs))
        return worker if len(worker.jobs) < room else None

    def give(self, worker: _Worker | None, job: Job) -> None:
        """Give a job to a worker."""
        assert worker is not None
        worker.jobs[job.video_id] = job
        worker.heard_s = time.monotonic()
        with suppress(OSError):  # a worker that has died since is noticed in `listen`
            worker.connection.send(job)

    def _hire(self, device: str) -> _Worker:
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
        worker = _Worker(self.hired, process, ours, device)
        self.hired += 1
        worker.connection.send(replace(self.setup, device=device))
        self.workers.append(worker)
        return worker

    def listen(self) -> Iterator[tuple[Job, Outcome | _Death]]:
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
                    yield job, _Death(f"no progress for {SILENCE_S / 60:.0f} minutes")

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

    def _bury(self, worker: _Worker) -> _Death:
        """Let go of a worker that has ended, and say of what it died."""
        self.workers.remove(worker)
        worker.connection.close()
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not worker.ready:
            raise AupipeError(f"a worker process could not start ({how}); its words are above")
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return _Death(f"the worker process died on {how}{hint}")

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


def _failed(job: Job, store: Store, death: _Death, published: list[ItemRecord]) -> Outcome:
    """The outcome of a job whose worker died: what was published counts, the rest is failed by name."""
    outcome = Outcome(job, published=published)
    done = {(record.recording, record.feature) for record in published}
    for item in job.items:
        if item.requested and (item.key, item.spec.id) not in done:
            recording = next(r for r in job.recordings if r.key_for(item.spec.modality) == item.key)
            source = source_identity(*source_paths(recording, item.spec.modality))
            outcome.failed.append(store.fail(item.key, item.spec, f"{item.key}: {death.reason}", source=source))
    return outcome
