"""What a model has cost: the extraction of its features and its training, from the logs of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aupipe.store import Store
from aupipe.store.run_log import RunAccount, accounts
from aupipe.train.model import Model


@dataclass(frozen=True)
class StageCost:
    """A stage over all extractions: frames, and seconds of work and of processor time, all threads together."""

    stage: str
    frames: int
    busy_s: float
    cpu_s: float


@dataclass(frozen=True)
class Extraction:
    """One run of `aupipe extract` that made some of a model's features; ``utc``: when it began."""

    utc: str
    where: str
    state: str
    videos: int
    frames: int
    seconds: float
    cpu_s: float
    stages: tuple[StageCost, ...]


def extractions_of(models: Sequence[Model], store: Store) -> list[Extraction]:
    """The logged extractions of the features of some models, oldest first; () where their logs are gone."""
    used = {feature for model in models for run in model.runs for feature in run.features.values()}
    return [
        _extraction(account)
        for account in accounts(store.path, "extract")
        if account.end and used & set(account.about.get("features", ()))
    ]


def _extraction(account: RunAccount) -> Extraction:
    end = account.end
    stages = tuple(
        StageCost(name, int(one.get("frames", 0)), float(one.get("busy_s", 0)), float(one.get("cpu_s", 0)))
        for name, one in end.get("stages", {}).items()
    )
    return Extraction(
        utc=str(account.about.get("utc", "")),
        where=str(account.about.get("where", "")),
        state=account.state,
        videos=int(end.get("videos_ended", 0)),
        frames=int(end.get("frames", 0)),
        seconds=float(end.get("seconds", 0)),
        cpu_s=float(end.get("cpu_s", 0)),
        stages=stages,
    )


def stage_totals(extractions: Sequence[Extraction]) -> list[StageCost]:
    """Each stage, added up over extractions."""
    found: dict[str, StageCost] = {}
    for one in (stage for extraction in extractions for stage in extraction.stages):
        own = found.get(one.stage, StageCost(one.stage, 0, 0.0, 0.0))
        found[one.stage] = StageCost(one.stage, own.frames + one.frames, own.busy_s + one.busy_s, own.cpu_s + one.cpu_s)
    return list(found.values())


def trainings_of(model: Model) -> list[Mapping[str, Any]]:
    """Each run of a model: its folder's name, recipe, epochs and their seconds, and what it was trained on."""
    return [
        {
            "run": run.path.name,
            "recipe": run.recipe.name,
            "epochs": len(run.history),
            "best_epoch": run.best_epoch,
            "seconds": round(sum(epoch.seconds for epoch in run.history), 3),
            "train": len(run.train),
            "validation": len(run.validation),
            "score": run.scores.mean if run.scores is not None else None,
            "seed": run.seed,
        }
        for run in model.runs
    ]
