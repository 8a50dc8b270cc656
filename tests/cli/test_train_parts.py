"""What the parts of a training are sent to other processes as."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from aupipe.cli.data import Data
from aupipe.cli.train_parts import run_parts, train_runs
from aupipe.cli.work import Place
from aupipe.store import create_store
from aupipe.tasks import as_task
from aupipe.train.crossval import Fold
from aupipe.train.ensemble import EnsembleRun, RunTrainer
from aupipe.train.ensemble_recipe import Member
from aupipe.types import Recording


def test_recordings_are_sent_with_the_work_and_not_with_each_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search over 20,000 recordings has hundreds of tasks, which all go through the scheduler."""
    fold = Fold("fold0", tuple(Recording(f"{number}.mp4") for number in range(1000)), ())
    runs = [EnsembleRun(fold, seed, Member(str(seed), None, {})) for seed in range(3)]
    monkeypatch.setattr(RunTrainer, "__call__", lambda self, run: f"{run} with {run.seed}")
    sizes: list[int] = []

    def run_here(work: Callable, tasks: Sequence, *more: object) -> Iterator[tuple[object, str]]:
        work = pickle.loads(pickle.dumps(work))
        for task in map(pickle.dumps, tasks):
            sizes.append(len(task))
            yield pickle.loads(task), work(pickle.loads(task))

    monkeypatch.setattr("aupipe.cli.train_parts.run_here", run_here)
    trainer = RunTrainer("features", None, {}, tmp_path)
    made = list(run_parts(trainer, runs, Place(cpu=True, jobs=2), ["cpu"], print))
    assert made == [(run, f"fold0-{run.seed} with {run.seed}") for run in runs]
    assert max(sizes) < 200


def test_a_run_without_a_name_is_trained_into_the_folder_itself_which_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one run of a training, as a reproduction sends it to a machine."""
    folders: list[Path] = []

    def train(self: RunTrainer, run: EnsembleRun) -> str:
        folders.append(self.out / str(run))
        return "epoch 1"

    monkeypatch.setattr(RunTrainer, "__call__", train)

    def run_on_scheduler(
        place: Place, work: Callable, tasks: Sequence, **more: object
    ) -> Iterator[tuple[object, object]]:
        yield from ((task, work(task)) for task in tasks)

    monkeypatch.setattr("aupipe.cli.train_parts.run_on_scheduler", run_on_scheduler)
    run, told = EnsembleRun(Fold("", (), ()), 0, Member("", None, {})), list[str]()
    data = Data(as_task("au"), [], [], {}, {}, {}, {})
    place = Place(cpu=True, scheduler="s.json")
    train_runs([run], data, create_store(tmp_path / "features"), tmp_path / "tcn-au", {}, place, ["cpu"], told.append)
    assert folders == [tmp_path / "tcn-au"]
    assert told == ["1/1 runs  tcn-au: epoch 1"]
