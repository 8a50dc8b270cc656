"""The devices of this machine, and how many processes and threads each of them gets."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from aupipe.errors import UsageError
from aupipe.extract.engine.options import ThreadCounts


def choose_devices(gpu: str | None, cpu: bool) -> list[str]:
    """The torch devices for ``--gpu 0``, ``--gpu 0,1``, ``--gpu cuda:1``, ``--gpu all`` or ``--cpu``; by default the
    first GPU, else the CPU.

    Raises UsageError when a GPU was asked for and is not there: never a silent fall back to the CPU.
    """
    if cpu and gpu:
        raise UsageError("--cpu and --gpu exclude each other")
    if cpu:
        return ["cpu"]
    names = [name.strip().removeprefix("cuda:") for name in ("0" if gpu is None else gpu).split(",")]
    if gpu != "all" and not all(name.isascii() and name.isdigit() for name in names):
        raise UsageError(f"--gpu {gpu}: expected a number such as 0, several such as 0,1, cuda:0, or all")
    import torch

    if gpu is None:
        return ["cuda:0" if torch.cuda.is_available() else "cpu"]
    if gpu == "all":
        names = [str(number) for number in range(max(1, torch.cuda.device_count()))]
    if torch.version.cuda is None and torch.version.hip is None:
        raise UsageError(f"--gpu {gpu}: this torch ({torch.__version__}) has no CUDA; install one that has, or --cpu")
    count = torch.cuda.device_count()
    if any(int(name) >= count for name in names):
        found = f"torch sees {count} GPU(s)" if count else "torch sees no GPU (no driver, or none visible)"
        raise UsageError(f"--gpu {gpu}: {found}; run with --cpu to use the processor")
    return [f"cuda:{int(name)}" for name in dict.fromkeys(names)]


CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of the container; the whole machine has no such file


def available_cores() -> int:
    """Cores this process may use, which on a cluster is fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:  # Kubernetes and docker limit processor time, not cores
        quota, period = map(int, CPU_LIMIT.read_text().split())
    except (OSError, ValueError):  # none, or "max"
        return cores
    return max(1, min(cores, round(quota / period)))


MOST_DECODERS = 14  # beside one GPU: 16 cores less two (docs/pipeline.md, "Measured")
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


COMPUTE_MODE, MPS_ENABLED = 20, 133  # CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, _MPS_ENABLED (cuda.h of CUDA 12.4)
SHARED, EXCLUSIVE = 0, 3  # CU_COMPUTEMODE_DEFAULT, _EXCLUSIVE_PROCESS


def shares(device: str) -> bool:
    """Whether a GPU lets several processes use it at once; some clusters set theirs not to.

    Where NVIDIA's Multi-Process Service (MPS) runs, an exclusive GPU is its server's, which serves several processes.
    """
    mode = _driver_says(device, COMPUTE_MODE)
    return mode == SHARED or (mode == EXCLUSIVE and _driver_says(device, MPS_ENABLED) == 1)


def _driver_says(device: str, attribute: int) -> int:
    """An attribute of a GPU; -1 where its driver, or an older one, does not state it."""
    number, gpu, value = int(device.removeprefix("cuda:")), ctypes.c_int(), ctypes.c_int(-1)
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        failed = (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(gpu), number)
            or cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, gpu)
        )
    except (OSError, AttributeError):  # another system's name for it, or none
        return -1
    return -1 if failed else value.value


def thread_counts(devices: Sequence[str], processes: int = 1, decoders: int = 0) -> tuple[ThreadCounts, ...]:
    """The threads of each of the ``processes`` on a device; ``decoders``: videos decoded at the same time on it.

    On the CPU every core may decode and every core may encode: whichever stage is behind gets them. Beside a GPU one
    thread feeds it, and the cores decode; two are left for feeding and writing.
    """
    cores = available_cores()
    if devices[0] == "cpu":
        return (ThreadCounts(decoders or cores, cores),) * processes
    if not decoders:
        suggested = min(MOST_DECODERS, (cores - 2) // len(devices))
        return (ThreadCounts(max(1, -(-suggested // processes)), 1),) * processes
    share, more = divmod(decoders, processes)
    return tuple(ThreadCounts(share + (number < more), 1) for number in range(processes))
