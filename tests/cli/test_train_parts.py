"""What the parts of a training are sent to other processes as."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from aupipe.cli.train_parts import run_parts
from aupipe.cli.work import Place
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
