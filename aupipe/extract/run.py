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

import aupipe
from aupipe.dataset import source_identity
from aupipe.errors import AupipeError, UsageError
from aupipe.extract.job import Outcome
from aupipe.extract.plan import Job, Plan, source_paths
from aupipe.extract.worker import Setup, Stop
from aupipe.store.base import ItemRecord, Store

log = logging.getLogger(__name__)

LIBRARIES = ("aupipe", "torch", "opencv-python-headless", "av", "librosa", "timm", "facenet-pytorch", "numpy")


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


def library_versions() -> dict[str, str]:
    """What made the numbers, for each item's record."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


SILENCE_S = 1800.0  # a worker that gives no sign of life for this long hangs
ALLOCATOR = {  # without these, glibc maps and faults in every large activation anew (specs/stages.md, section 5)
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


def extract(
    plan: Plan,
    store: Store,
    devices: Sequence[str],
    *,
    workers: int = 0,
    on_frames: Callable[[int], None] = lambda n: None,
) -> Generator[Outcome, None, None]:
    """Run a plan's jobs in worker processes, one video each, yielding what came of each as it ends.

    ``workers`` 0: one per core on the CPU, two per GPU (one decodes while the other encodes); they take turns on the
    devices. A recording that fails,
    fails alone; whatever is published stays published. A video that takes its worker down is tried once more, alone,
    when the others are done, and then failed by name; one on which a worker hangs is failed at once. When the caller
    stops iterating, the workers are killed and what they were writing is as it was before.

    Raises AupipeError for what is nobody's recording's fault: a full disk, missing weights, workers that cannot start.
    """
    setup = Setup(plan.parts, str(store.path), "", library_versions(), log.getEffectiveLevel())
    crew = _Crew(setup, list(devices), on_frames)
    jobs, suspects = deque(plan.jobs), deque[Job]()
    limit = min(workers or (available_cores() if devices[0] == "cpu" else 2 * len(devices)), len(jobs))
    try:
        while jobs or suspects or crew.busy:
            while jobs and len(crew.busy) < limit:
                crew.give(jobs.popleft())
            if not jobs and not crew.busy and suspects:
                crew.give(suspects.popleft())
            for job, ended in crew.listen():
                if isinstance(ended, Outcome):
                    yield ended
                elif ended.hung or job.video_id in crew.died_on:
                    yield _failed(job, store, ended, crew.published.pop(job.video_id, []))
                else:
                    log.warning("%s: %s; it is tried once more, alone, at the end", job.video_id, ended.reason)
                    crew.died_on.add(job.video_id)
                    suspects.append(job)
        crew.release()
    finally:
        crew.dismiss()


@dataclass(frozen=True)
class _Death:
    """A worker ended before its job did."""

    reason: str
    hung: bool = False


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    device: str
    job: Job | None = None
    ready: bool = False
    heard_s: float = field(default_factory=time.monotonic)


@dataclass
class _Crew:
    """The worker processes of one run."""

    setup: Setup
    devices: list[str]
    on_frames: Callable[[int], None]
    workers: list[_Worker] = field(default_factory=list)
    published: dict[str, list[ItemRecord]] = field(default_factory=dict)  # video -> by jobs still under way
    died_on: set[str] = field(default_factory=set)  # videos a worker has died on

    @property
    def busy(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.job is not None]

    def give(self, job: Job) -> None:
        """Give a job to an idle worker, or to a new one."""
        worker = next((worker for worker in self.workers if worker.job is None), None) or self._hire()
        worker.job, worker.heard_s = job, time.monotonic()
        with suppress(OSError):  # a worker that has died since is noticed in `listen`
            worker.connection.send(job)

    def _hire(self) -> _Worker:
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
        # The next device in turn, or the one a dead worker has left.
        device = min(self.devices, key=[worker.device for worker in self.workers].count)
        worker = _Worker(process, ours, device)
        worker.connection.send(replace(self.setup, device=device))
        self.workers.append(worker)
        return worker

    def listen(self) -> Iterator[tuple[Job, Outcome | _Death]]:
        """Wait for the next words of the workers; yields the jobs that ended, well or not."""
        heard = connection_wait([worker.connection for worker in self.busy], timeout=1.0)
        for worker in self.busy:
            job = worker.job
            assert job is not None
            if worker.connection in heard:
                worker.heard_s = time.monotonic()
                try:
                    word = worker.connection.recv()
                except (EOFError, OSError):
                    yield job, self._bury(worker)
                    continue
                if isinstance(word, Stop):
                    raise _stopped(word)
                if isinstance(word, int):
                    self.on_frames(word)
                elif isinstance(word, ItemRecord):
                    self.published.setdefault(job.video_id, []).append(word)
                elif isinstance(word, Outcome):
                    worker.job = None
                    self.published.pop(job.video_id, None)
                    yield job, word
                else:
                    worker.ready = True
            elif time.monotonic() - worker.heard_s > SILENCE_S:
                worker.process.kill()
                self._bury(worker)
                yield job, _Death(f"no sign of life for {SILENCE_S / 60:.0f} minutes", hung=True)

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
