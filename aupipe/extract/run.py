"""One machine: the device, the threads, the jobs in order, what came of them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from importlib.metadata import PackageNotFoundError, version

from aupipe.errors import UsageError
from aupipe.extract.job import Loaded, Outcome
from aupipe.extract.pipeline import run_job
from aupipe.extract.plan import Job, Plan
from aupipe.store.base import Store

log = logging.getLogger(__name__)

LIBRARIES = ("aupipe", "torch", "opencv-python-headless", "av", "librosa", "timm", "facenet-pytorch", "numpy")


def choose_device(gpu: str | None, cpu: bool) -> str:
    """The torch device for ``--gpu 0``, ``--gpu cuda:1`` or ``--cpu``; by default the first GPU, else the CPU.

    Raises UsageError when a GPU was asked for and is not there: never a silent fall back to the CPU.
    """
    if cpu and gpu:
        raise UsageError("--cpu and --gpu exclude each other")
    if cpu:
        return "cpu"
    import torch

    if gpu is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    index = gpu.removeprefix("cuda:")
    if not index.isdigit():
        raise UsageError(f"--gpu {gpu}: expected a number such as 0, or cuda:0")
    if torch.version.cuda is None and torch.version.hip is None:
        raise UsageError(
            f"--gpu {gpu}: this torch is built without CUDA ({torch.__version__}); install one with, or --cpu"
        )
    count = torch.cuda.device_count()
    if int(index) >= count:
        found = f"torch sees {count} GPU(s)" if count else "torch sees no GPU (no driver, or none visible)"
        raise UsageError(f"--gpu {gpu}: {found}; run with --cpu to use the processor")
    return f"cuda:{index}"


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


class Stopped(BaseException):
    """Raised in a worker, at its next chunk of frames, when the run is to end: what it was writing is discarded."""


def extract(
    plan: Plan,
    store: Store,
    device: str,
    *,
    workers: int = 0,
    on_frames: Callable[[int], None] = lambda n: None,
) -> Iterator[Outcome]:
    """Run a plan's jobs, ``workers`` videos beside each other, yielding what came of each as it ends.

    ``workers`` 0: one per core on the CPU, two on a GPU (one decodes while the other encodes). A recording that fails,
    fails alone; whatever is published stays published. When the caller stops iterating, videos that have begun are
    left as they were before.
    """
    import cv2
    import torch

    workers = workers or (available_cores() if device == "cpu" else 2)
    versions = library_versions()
    here = threading.local()
    stop = threading.Event()

    def frames_done(count: int) -> None:
        if stop.is_set():
            raise Stopped
        on_frames(count)

    def work(job: Job) -> Outcome:
        if not hasattr(here, "loaded"):
            # One thread per worker: torch's own threads fight each other for the cores as soon as anything else runs
            # (ten times slower was measured), and the setting belongs to the thread that makes it.
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
            here.loaded = Loaded(plan.parts, device)
        return run_job(job, store, here.loaded, versions, frames_done)

    with ThreadPoolExecutor(workers, thread_name_prefix="extract") as pool:
        pending = {pool.submit(work, job) for job in plan.jobs}
        try:
            while pending:
                ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        finally:
            stop.set()
            for future in pending:
                future.cancel()
