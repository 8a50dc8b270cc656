"""One machine: its devices, which worker gets which job, and what came of each."""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version

from aupipe.dataset import source_identity
from aupipe.errors import RecordingError, UsageError
from aupipe.extract.job import Outcome
from aupipe.extract.means import Crew, Means
from aupipe.extract.messages import WorkerConfig
from aupipe.extract.meter import Measured
from aupipe.extract.plan import Job, Plan, source_paths
from aupipe.extract.retry import Attempt, RetryPolicy
from aupipe.extract.worker_pool import JobEnded, JobHangs, JobReturned, WorkerDied, WorkerPool
from aupipe.store.base import Store

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


IN_FLIGHT_CPU, IN_FLIGHT_GPU = 16, 64  # jobs beyond those being decoded, on each device
MOST_DECODERS = 14  # beside one GPU (specs/stages.md, section 8)
PROCESSES, CORES_EACH, MEMORY_EACH = 4, 4, 10 << 30  # of the workers of one GPU


def processes_on(devices: Sequence[str]) -> int:
    """Worker processes per device: one on the CPU, up to four on a GPU that has the cores and the memory for them.

    Python runs one thread at a time, and a large GPU asks for more frames a second than one process can hand on.
    """
    if devices[0] == "cpu" or not all(map(shares, devices)):
        return 1
    import torch

    memory = min(torch.cuda.get_device_properties(device).total_memory for device in devices)
    return max(1, min(PROCESSES, available_cores() // len(devices) // CORES_EACH, memory // MEMORY_EACH))


COMPUTE_MODE, SHARED = 20, 0  # CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, CU_COMPUTEMODE_DEFAULT


def shares(device: str) -> bool:
    """Whether a GPU lets several processes use it at once; some clusters set theirs not to."""
    number, gpu, mode = int(device.removeprefix("cuda:")), ctypes.c_int(), ctypes.c_int(-1)
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        failed = (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(gpu), number)
            or cuda.cuDeviceGetAttribute(ctypes.byref(mode), COMPUTE_MODE, gpu)
        )
    except (OSError, AttributeError):  # another system's name for it, or none
        return False
    return not failed and mode.value == SHARED


def crew_for(devices: Sequence[str], processes: int = 1, decoders: int = 0) -> Crew:
    """The threads of each worker process, of which there are ``processes`` per device; ``decoders`` are a device's.

    On the CPU every core may decode and every core may encode: whichever stage is behind gets them. Beside a GPU one
    thread feeds it, and the cores decode; two are left for feeding and writing (specs/stages.md, section 8).
    """
    cores = available_cores()
    if devices[0] == "cpu":
        return Crew(decoders or cores, cores)
    decoders = decoders or min(MOST_DECODERS, (cores - 2) // len(devices))
    return Crew(max(1, -(-decoders // processes)), 1)


def extract(
    plan: Plan,
    store: Store,
    devices: Sequence[str],
    means: Means,
    *,
    on_frames: Callable[[int], None] = lambda n: None,
    on_measured: Callable[[int, Measured], None] = lambda worker, measured: None,
) -> Generator[Outcome, None, None]:
    """Run a plan's jobs in worker processes, some per device, yielding what came of each video as it ends.

    ``on_measured`` hears, twice a second, what the stages of each worker (by number) have done so far.

    A recording that fails, fails alone; whatever is published stays published. What is done about workers that die and
    videos that hang stands in `aupipe.extract.retry`. When the caller stops iterating, the workers are killed and what
    they were writing is as it was before.

    Raises AupipeError for what is no recording's fault: a full disk, missing weights, workers that cannot start or keep
    dying.
    """
    store.check_writable()
    processes = processes_on(devices)
    while means.workers % processes:  # as many videos at once as the user says, not more
        processes -= 1
    crew = crew_for(devices, processes, means.workers)
    level = log.getEffectiveLevel()
    config = WorkerConfig(plan.parts, str(store.path), "", processes, library_versions(), level, crew, means)
    policy = RetryPolicy()
    slots = [device for device in devices for _ in range(processes)]
    pool = WorkerPool(config, slots, on_frames, on_measured, policy.note_published)
    jobs = deque(Attempt(job) for job in largest_first(plan.jobs))
    videos = {job.video_id: _Video(job) for job in plan.jobs}
    # Jobs a worker holds: enough to fill a batch from short clips, few enough to try again when it dies.
    limit = crew.decoders + (IN_FLIGHT_CPU if devices[0] == "cpu" else IN_FLIGHT_GPU) // processes
    try:
        while True:
            while jobs and pool.assign(jobs[0], limit):
                jobs.popleft()
            if not jobs and not pool.busy:
                suspect = policy.next_suspect()
                if suspect is None:
                    break
                if any(item.requested for item in suspect.job.items):
                    pool.assign(suspect, 1)
                else:  # another attempt has published all of it
                    yield from videos[suspect.job.video_id].add(Outcome(suspect.job), policy)
                    continue
            for event in pool.poll():
                match event:
                    case JobEnded(attempt, outcome):
                        if outcome.published:
                            policy.note_success()
                        yield from videos[attempt.job.video_id].add(outcome, policy)
                    case JobHangs(attempt, reason):
                        log.warning("%s: %s; given up, the others go on", attempt.job.video_id, reason)
                        policy.note_guilty(attempt, reason)
                    case WorkerDied(attempts, reason):
                        for attempt in attempts:
                            what = "given up" if attempt.alone else "it is tried once more, alone, at the end"
                            log.warning("%s: %s; %s", attempt.job.video_id, reason, what)
                        policy.note_death(attempts, reason)
                    case JobReturned(attempt):
                        jobs.appendleft(replace(attempt, job=policy.without_published(attempt.job)))
            yield from _failed(policy, store, videos)
        policy.settle()
        yield from _failed(policy, store, videos)
        pool.shutdown()
    finally:
        pool.kill_all()


@dataclass
class _Video:
    """What came of a video until now; it may be tried several times, and in parts."""

    job: Job
    outcome: Outcome = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = Outcome(self.job)

    def add(self, outcome: Outcome, policy: RetryPolicy) -> Iterator[Outcome]:
        """Take in what came of one attempt; yields what came of the whole video when that is known."""
        self.outcome = self.outcome + outcome
        if not policy.is_open(self.job.video_id):
            records = policy.published.pop(self.job.video_id, {})  # those of attempts that ended badly, too
            yield replace(self.outcome, published=list(records.values()))


def _failed(policy: RetryPolicy, store: Store, videos: Mapping[str, _Video]) -> Iterator[Outcome]:
    """The outcomes of verdicts that are settled: what was published counts, the rest is failed by name."""
    while policy.settled:
        verdict = policy.settled.pop(0)
        job = policy.without_published(verdict.attempt.job)
        outcome = Outcome(job)
        for item in job.items:
            if item.requested:
                recording = next(r for r in job.recordings if r.key_for(item.spec.modality) == item.key)
                try:
                    source = source_identity(*source_paths(recording, item.spec.modality))
                except RecordingError:  # gone since; whatever comes in its place is another source
                    source = None
                outcome.failed.append(store.fail(item.key, item.spec, f"{item.key}: {verdict.reason}", source=source))
        yield from videos[job.video_id].add(outcome, policy)
