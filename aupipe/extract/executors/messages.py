"""What a run and its worker processes send each other: small records, in a module both sides import.

A run sends a `WorkerConfig`, then jobs, then None. A worker answers with the union `Message`. All are pickled, so none
may be defined in the module that a worker runs as ``__main__``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from aupipe.errors import AupipeError, explain, named
from aupipe.extract.engine.events import FramesDecoded, ItemPublished
from aupipe.extract.engine.options import ExecutionOptions, ThreadCounts
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors.devices import available_cores
from aupipe.extract.executors.machine_usage import MachineUsage
from aupipe.extract.meter import Measured
from aupipe.extract.planning.features import FeatureSet

# Set before the process starts. Without the first two, glibc maps and faults in every large activation anew
# (docs/pipeline.md, Memory). One thread per call: torch's own threads fight each other for the cores as soon as
# anything else runs, and the engine has threads enough.
PROCESS_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",  # also where the run was started from Python, and not by `aupipe`
    "ORT_DISABLE_TELEMETRY": "1",  # aupipe sends nothing
}
# Variables that say where weights and caches are, and so what is computed.
NAMED = ("XDG_CACHE_HOME", "TMPDIR", "TORCH_HOME", "CUDA_VISIBLE_DEVICES")
PREFIXES = ("AUPIPE_", "HF_", "TRANSFORMERS_")


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know before its first job."""

    features: FeatureSet
    store: str  # path
    device: str  # torch's name
    processes: int  # workers on the device, this one too
    log_level: int
    threads: ThreadCounts
    options: ExecutionOptions
    jobs: int = 1  # at most so many at once
    environment: Mapping[str, str] = field(default_factory=dict)  # variables the process is started with


@dataclass(frozen=True)
class Ready:
    """The libraries are imported, the device and the store are open."""


@dataclass(frozen=True)
class Fatal:
    """The run cannot go on: the disk is full, weights cannot be used, memory is too small, or aupipe is wrong."""

    message: str  # one line
    exit_code: int
    foreseen: bool = True  # else it is aupipe's own error, and the traceback is logged


@dataclass(frozen=True)
class Exhausted:
    """This process has no memory left for the videos it holds; another one, with fewer of them, may have."""

    reason: str  # one line


Message = Ready | Measured | MachineUsage | FramesDecoded | ItemPublished | JobResult | Fatal | Exhausted


def environment_of(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables a worker process is started with, here or on another machine."""
    kept = {name: value for name, value in variables.items() if name in NAMED or name.startswith(PREFIXES)}
    # A process has more threads than cores, and glibc would give each its own heap, which keeps what was freed in it.
    return kept | PROCESS_ENVIRONMENT | {"MALLOC_ARENA_MAX": str(max(2, available_cores()))}


def fatal_of(error: BaseException) -> Fatal:
    """What the user is told of an error that no recording is the reason of."""
    if isinstance(error, AupipeError):
        return Fatal(str(error), error.exit_code)
    foreseen = explain(error)
    if foreseen is not None:
        return Fatal(foreseen, 1)
    message = f"{named(error)} (in a worker process; -v shows where)"
    return Fatal(message, 1, foreseen=False)
