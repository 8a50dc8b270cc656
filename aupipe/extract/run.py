"""One machine: its devices, which worker gets which job, and what came of each."""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from importlib.metadata import PackageNotFoundError, version

from aupipe.dataset import source_identity
from aupipe.errors import UsageError
from aupipe.extract.job import Outcome
from aupipe.extract.means import Crew, Means
from aupipe.extract.meter import Measured
from aupipe.extract.plan import Job, Plan, source_paths
from aupipe.extract.staff import Death, Staff
from aupipe.extract.worker import Setup
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

    A recording that fails, fails alone; whatever is published stays published. When a worker dies, the videos it had in
    flight are tried once more, one at a time and each alone, and the one that kills again is failed by name; so is one
    on which a worker hangs. When the caller stops iterating, the workers are killed and what they were writing is as it
    was before.

    Raises AupipeError for what is nobody's recording's fault: a full disk, missing weights, workers that cannot start;
    UsageError where the plan would replace what is stored of other files.
    """
    plan.refuse_others()
    processes = processes_on(devices)
    while means.workers % processes:  # as many videos at once as the user says, not more
        processes -= 1
    crew = crew_for(devices, processes, means.workers)
    setup = Setup(plan.parts, str(store.path), "", processes, library_versions(), log.getEffectiveLevel(), crew, means)
    staff = Staff(setup, [device for device in devices for _ in range(processes)], on_frames, on_measured)
    jobs, suspects = deque(largest_first(plan.jobs)), deque[Job]()
    # Jobs a worker holds: enough to fill a batch from short clips, few enough to try again when it dies.
    room = crew.decoders + (IN_FLIGHT_CPU if devices[0] == "cpu" else IN_FLIGHT_GPU) // processes
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


def _failed(job: Job, store: Store, death: Death, published: list[ItemRecord]) -> Outcome:
    """The outcome of a job whose worker died: what was published counts, the rest is failed by name."""
    outcome = Outcome(job, published=published)
    done = {(record.recording, record.feature) for record in published}
    for item in job.items:
        if item.requested and (item.key, item.spec.id) not in done:
            recording = next(r for r in job.recordings if r.key_for(item.spec.modality) == item.key)
            source = source_identity(*source_paths(recording, item.spec.modality))
            outcome.failed.append(store.fail(item.key, item.spec, f"{item.key}: {death.reason}", source=source))
    return outcome
