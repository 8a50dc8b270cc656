"""The runs of a training, beside each other: in processes of this machine, or on the machines of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aupipe.cli.data import Data
from aupipe.cli.work import Place, run_here, run_on_scheduler, seen_elsewhere
from aupipe.errors import AupipeError
from aupipe.files import as_argument

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.ensemble import EnsembleRun, RunTrainer
    from aupipe.train.search import CellTrainer

T = TypeVar("T")


def run_parts(
    trainer: CellTrainer | RunTrainer,
    parts: Sequence[T],
    place: Place,
    devices: Sequence[str],
    tell: Callable[[str], None],
) -> Iterator[tuple[T, Any]]:
    """What the trainer returns for each part of a training, as they end.

    Raises AupipeError at the end, naming the parts whose process died twice.
    """
    from aupipe.extract.executors.work import Died, ListedTask, ListedWork

    out, store = trainer.out, Path(str(trainer.store if isinstance(trainer.store, str) else trainer.store.path))
    options = {**trainer.options, "device": place.device_of_work(devices)}
    work: Any = replace(trainer, store=str(seen_elsewhere(store)), out=seen_elsewhere(out), options=options)
    tasks = [ListedTask(number, str(part) or out.name) for number, part in enumerate(parts)]
    work = ListedWork(work, parts)
    resume = f"`aupipe train --resume {as_argument(out)}`"
    if place.scheduler is None:
        running = run_here(work, tasks, devices, place.jobs, tell)
    else:
        there: dict[str, Any] = {"store": store, "results": out, "tell": tell}
        again = f"then {resume}: what is trained is kept"
        running = run_on_scheduler(place, work, tasks, again=again, **there)
    dead: list[str] = []
    with closing(running) as results:
        for task, found in results:
            if isinstance(found, Died):
                dead.append(f"{task}: {found.reason}")
                tell(f"{dead[-1]}, twice; left out")
            else:
                yield parts[task.number], found
    if dead:
        raise AupipeError(
            f"{len(dead)} of {len(parts)} parts of the training were not trained ({dead[0]}, twice): {resume} tries "
            "them again"
        )


def train_runs(
    runs: Sequence[EnsembleRun],
    data: Data,
    store: Store,
    out: Path,
    options: Mapping[str, Any],
    place: Place,
    devices: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Train runs beside each other, into folders below ``out``, or one without a name into ``out`` itself.

    Raises AupipeError as `run_parts` does.
    """
    from aupipe.train.ensemble import RunTrainer

    trainer = RunTrainer(store, data.task, data.labels, out, data.aux_labels, data.command, options)
    for number, (run, line) in enumerate(run_parts(trainer, runs, place, devices, tell), 1):
        tell(f"{number}/{len(runs)} runs  {str(run) or out.name}: {line}")
