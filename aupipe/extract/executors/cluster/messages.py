"""What a run and the agents of its machines send each other, as bytes that Dask does not open.

The scheduler keeps the last messages of every worker, and as objects they would fill its memory.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aupipe.extract.engine.options import ExecutionOptions
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors.machine_usage import MachineUsage
from aupipe.extract.meter import Measured
from aupipe.extract.planning.features import FeatureSet
from aupipe.store import ItemRecord

PLUGIN = "aupipe"  # name of the agent among the plug-ins of a Dask worker


@dataclass(frozen=True)
class WorkOrder:
    """Work that is no extraction (`aupipe.extract.executors.work`): pickled, or in a file in the folder of its results.

    Labels of a corpus are too much for the scheduler. Who sees that ``file``, with its ``sha256``, sees the folder.
    """

    content: bytes
    file: str = ""
    sha256: str = ""
    processes: int = 1  # on each machine, shared out among its devices; one a device at least


@dataclass(frozen=True)
class Order:
    """What every machine is told when it joins a run."""

    run: str  # a name no other run has
    features: FeatureSet
    store: str  # path, the same on all machines; empty for work that has none
    mark: str  # a file of this run in the store: who sees it sees this store
    gpu: str | None  # as in ``--gpu``
    cpu: bool
    options: ExecutionOptions
    log_level: int
    versions: Mapping[str, str]  # of the libraries that make numbers, where the run is
    weights: Mapping[str, str]  # SHA-256 by the name of the encoder
    environment: Mapping[str, str] = field(default_factory=dict)  # that says which weights are used
    work: WorkOrder | None = None  # in place of the extraction of ``features``


@dataclass(frozen=True)
class Hello:
    """A machine takes part. ``slots``: its worker processes; it holds ``least`` jobs, and up to ``most`` short ones.

    ``agent``: a name that no other agent has. Another one at an address: the Dask worker there has been started again.
    """

    address: str
    host: str
    gpus: tuple[str, ...]  # names that no two have
    slots: int
    least: int
    most: int
    agent: str = ""


@dataclass(frozen=True)
class Refusal:
    """A machine takes no part, or no longer."""

    address: str
    host: str
    reason: str  # one line
    exit_code: int = 1


@dataclass(frozen=True)
class Progress:
    """What a machine has done since it last told: frames, the totals of its worker processes by number, and how much
    of it is in use."""

    address: str
    frames: int
    measured: Mapping[int, Measured] = field(default_factory=dict)
    usage: tuple[MachineUsage, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A job ended as it should. ``published``, here and below: records of its items, whatever became of it."""

    job: int  # by the number the run gave it
    result: JobResult
    progress: Progress  # what the machine has done until then: one message costs less than two
    published: tuple[ItemRecord, ...] = ()


@dataclass(frozen=True)
class Hung:
    """A job did not advance."""

    job: int
    reason: str
    published: tuple[ItemRecord, ...] = ()


@dataclass(frozen=True)
class Died:
    """A worker process died with these jobs in flight."""

    jobs: tuple[int, ...]
    reason: str
    published: tuple[ItemRecord, ...] = ()


@dataclass(frozen=True)
class Returned:
    """A job was not finished, for a reason that is not its own.

    ``unseen``: in what the machine sees another video than the run does, in one line; empty where it does not.
    """

    job: int
    unseen: str = ""
    published: tuple[ItemRecord, ...] = ()


AgentMessage = Hello | Refusal | Progress | Ended | Hung | Died | Returned


def sealed(message: Any) -> bytes:
    """A message as bytes."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def opened(content: bytes) -> Any:
    """The message in these bytes."""
    return pickle.loads(content)
