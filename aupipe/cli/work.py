"""Where independent items of a command are worked on: processes of this machine, or the workers of a scheduler."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aupipe.cli.options import device_options, pick_devices, scheduler_options
from aupipe.cli.output import echo_err
from aupipe.config import FacesConfig
from aupipe.errors import AGAIN, UsageError

if TYPE_CHECKING:
    from aupipe.extract.planning.features import FeatureSet

T = TypeVar("T")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """The options ``--gpu``, ``--cpu``, ``--jobs`` and ``--scheduler``; with that, those of each of its machines."""

    gpu: str | None = None
    cpu: bool = False
    scheduler: str | None = None
    worker_timeout: float = 600.0
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    jobs: int = 1  # processes

    def __post_init__(self) -> None:
        if self.scheduler is not None and not self.cpu and self.gpu is None:
            raise UsageError("--scheduler: say what its machines compute on: --cpu, --gpu 0, or --gpu all (of each)")

    def here(self) -> Place:
        """For what is computed without the machines of a scheduler, whose GPUs say nothing of those here."""
        return self if self.scheduler is None else Place(cpu=self.cpu)

    def arguments(self) -> tuple[str, ...]:
        """The options of a command line that say the same, but for ``--jobs``."""
        given = {"--gpu": self.gpu, "--scheduler": self.scheduler}
        if self.worker_timeout != Place.worker_timeout:
            given["--worker-timeout"] = str(self.worker_timeout)
        files = {"--tls-ca": self.tls_ca, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        words = [word for name, value in {**given, **files}.items() if value is not None for word in (name, str(value))]
        return (*("--cpu",) * self.cpu, *words)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the work is done in other processes than this one."""
        return self.jobs > 1 or self.scheduler is not None

    def devices(self) -> list[str]:
        """The torch devices of this process; with a scheduler, whose machines may have others, the first here."""
        from aupipe.extract.executors.devices import choose_devices

        return pick_devices(self.gpu, self.cpu) if self.scheduler is None else choose_devices(None, self.cpu)

    def words(self, devices: Sequence[str]) -> str:
        """Where the work is done, for a log."""
        return devices[0] if self.scheduler is None else f"Dask at {self.scheduler}"

    def device_of_work(self, devices: Sequence[str]) -> str:
        """What a worker process computes on, which sees one GPU, as the first. ``devices``: those of this process."""
        on_gpu = self.gpu is not None if self.scheduler is not None else list(devices) != ["cpu"]
        return "cuda:0" if on_gpu else "cpu"


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a `Place`, which the command receives as ``place``; ``--jobs`` where the command itself has it."""
    return device_options(scheduler_options(_packed(command)))


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--scheduler`` and what belongs to it, received as ``place``, for work that needs no device."""
    return scheduler_options(_packed(command, cpu=True))


def _packed(command: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    @functools.wraps(command)
    def packed(**given: Any) -> Any:
        own = {one.name: given.pop(one.name) for one in fields(Place) if one.name in given}
        return command(place=Place(**own, **fixed), **given)

    return packed


def run_on_scheduler(
    place: Place,
    work: Callable[[T], Any],
    tasks: Sequence[T],
    *,
    store: Path | None = None,
    results: Path | None = None,
    features: FeatureSet | None = None,
    again: str = AGAIN,
    tell: Tell = lambda line: None,
    halted: Callable[[], bool] = lambda: False,
    video_of: Callable[[T], Path | None] = lambda task: None,
) -> Generator[tuple[T, Any]]:
    """`aupipe.extract.executors.work.run_work` on the machines of the scheduler, for this run alone.

    ``store`` and ``results``: folders that all machines must see, the second to write there. ``features``: encoders
    whose libraries and weights they must have.
    """
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.executors.cluster.connection import SchedulerOptions, connected, dask_executor, work_order
    from aupipe.extract.executors.work import run_work
    from aupipe.extract.faces.tracking import TrackParams
    from aupipe.extract.planning.features import FeatureSet

    assert place.scheduler is not None
    there = SchedulerOptions(place.scheduler, place.tls_ca, place.tls_cert, place.tls_key, place.worker_timeout)
    features = features or FeatureSet(None, TrackParams(), FacesConfig(), ())
    with (
        connected(there, echo_err) as connection,
        work_order(pickle.dumps(work), results, place.jobs) as order,
        dask_executor(connection, features, store, place.gpu, place.cpu, ExecutionOptions(), order, again) as executor,
    ):
        yield from run_work(executor, tasks, tell, halted, video_of)


def run_here(
    work: Callable[[T], Any], tasks: Sequence[T], devices: Sequence[str], jobs: int, tell: Tell
) -> Generator[tuple[T, Any]]:
    """`aupipe.extract.executors.work.run_work` in ``jobs`` processes of this machine, which share the devices."""
    from aupipe.extract.executors.work import run_tasks, visible

    places = [devices[number % len(devices)] for number in range(min(jobs, len(tasks)))]
    return run_tasks(work, tasks, [visible(device) for device in places], tell)


def seen_elsewhere(path: Path) -> Path:
    """A path as other machines are told of it: from the root, without links."""
    return Path(os.path.realpath(path))
