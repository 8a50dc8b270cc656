"""What a run and its worker processes say to each other: small records, in a module both sides import.

A worker sends `READY`, an int (frames decoded since it last said so), an `ItemRecord` (published), a `JobResult` (a job
has ended), a `Measured` (what its stages do), a `Fatal` or an `Exhausted`. They are pickled, so none of them may be
defined in the module that a worker runs as ``__main__``.
"""

from __future__ import annotations

from dataclasses import dataclass

from aupipe.errors import AupipeError, explain
from aupipe.extract.engine.options import ExecutionOptions, ThreadCounts
from aupipe.extract.planning.features import FeatureSet

READY = "ready"


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know before its first job."""

    parts: FeatureSet
    store: str  # path
    device: str
    processes: int  # workers on the device, this one too
    log_level: int
    crew: ThreadCounts
    means: ExecutionOptions


@dataclass(frozen=True)
class Fatal:
    """The run cannot go on: the disk is full, weights cannot be used, memory is too small, or aupipe is wrong."""

    message: str  # one line
    exit_code: int
    foreseen: bool = True  # else it is aupipe's own fault, and the traceback is logged


@dataclass(frozen=True)
class Exhausted:
    """This process has no memory left for the videos it holds; another one, with fewer of them, may have."""

    reason: str  # one line


def fatal_of(error: BaseException) -> Fatal:
    """What the user is told of an error that is no recording's fault."""
    if isinstance(error, AupipeError):
        return Fatal(str(error), error.exit_code)
    foreseen = explain(error)
    if foreseen is not None:
        return Fatal(foreseen, 1)
    message = f"{type(error).__name__}: {' '.join(str(error).split())} (in a worker process; -v shows where)"
    return Fatal(message, 1, foreseen=False)
