"""Folds for cross-validation: all recordings of a group (a video, a subject) are in the same part of a fold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aupipe.errors import UsageError
from aupipe.types import Recording

FOLD_NAME = re.compile(r"[^\W_][\w.-]*")


@dataclass(frozen=True)
class Fold:
    """One split of the recordings; ``name`` names the folder of its run."""

    name: str
    train: tuple[Recording, ...]
    validation: tuple[Recording, ...]


def group_folds(
    recordings: Sequence[Recording], folds: int = 5, seed: int = 0, frames: Mapping[str, int] | None = None
) -> list[Fold]:
    """``folds`` splits in which each recording is validated on once; a `Recording.group` is never divided.

    The folds have about equally many recordings, or frames where ``frames`` (recording id -> number) is given: the
    largest group goes first, to the smallest fold; groups of equal size in an order drawn by ``seed``.

    Raises UsageError for fewer groups than folds.
    """
    groups: dict[str, list[Recording]] = {}
    for recording in recordings:
        groups.setdefault(recording.group, []).append(recording)
    if not 2 <= folds <= len(groups):
        raise UsageError(f"{folds} folds of {len(groups)} groups of recordings: give 2 to {len(groups)}")
    weight = {name: sum((frames or {}).get(r.id, 1) for r in members) for name, members in groups.items()}
    names = sorted(groups)
    np.random.default_rng(seed).shuffle(names)
    names.sort(key=lambda name: -weight[name])
    held: list[list[str]] = [[] for _ in range(folds)]
    for name in names:
        min(held, key=lambda own: sum(weight[other] for other in own)).append(name)
    return [
        Fold(
            f"fold{i + 1}",
            tuple(r for r in recordings if r.group not in own),
            tuple(r for r in recordings if r.group in own),
        )
        for i, own in enumerate(held)
    ]


def custom_folds(recordings: Sequence[Recording], named: Mapping[str, Sequence[str]]) -> list[Fold]:
    """Folds as given: name -> ids of the recordings that are validated on; all others are trained on.

    Raises UsageError for an unknown id, for one in two folds, and where a recording of the same group as a validated
    one would be trained on.
    """
    by_id = {recording.id: recording for recording in recordings}
    placed: dict[str, str] = {}
    made = []
    for name, ids in named.items():
        if not FOLD_NAME.fullmatch(name):
            raise UsageError(
                f"fold {name!r}: use letters, digits, '_', '.' and '-', and begin with none of the last two"
            )
        for one in ids:
            if one not in by_id:
                raise UsageError(f"fold {name!r}: no recording {one!r}")
            if one in placed:
                raise UsageError(f"recording {one!r} is in fold {placed[one]!r} and in {name!r}")
            placed[one] = name
        held = set(ids)
        groups = {by_id[one].group for one in ids}
        train = tuple(r for r in recordings if r.id not in held)
        divided = [r.id for r in train if r.group in groups]
        if divided:
            raise UsageError(
                f"fold {name!r} would train on {divided[0]!r}, a sibling of a recording it validates on: give it the "
                "whole group"
            )
        made.append(Fold(name, train, tuple(by_id[one] for one in ids)))
    return made


def development_split(recordings: Sequence[Recording], share: float, seed: int = 0) -> Fold:
    """About ``share`` of the groups for validation, drawn by ``seed``; all others for training.

    Yin et al. 2023, section 4.1, choose the epoch on 10% of the training split. Raises UsageError where no group would
    be left to train on.
    """
    groups = sorted({recording.group for recording in recordings})
    chosen = set(np.random.default_rng(seed).permutation(groups)[: max(1, round(share * len(groups)))])
    if len(chosen) == len(groups):
        raise UsageError(
            f"a development share of {share:g} of {len(groups)} groups of recordings leaves none to train on"
        )
    train = tuple(r for r in recordings if r.group not in chosen)
    return Fold("", train, tuple(r for r in recordings if r.group in chosen))


@dataclass(frozen=True)
class Summary:
    """Validation scores of several runs: ``mean`` and standard ``deviation``. The best of several is not a result."""

    metric: str
    mean: float
    deviation: float
    runs: int

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.mean:.3f} +- {self.deviation:.3f} over {self.runs} runs, each on its own validation"
        )


def summarise(runs: Sequence[Any]) -> Summary:
    """Mean and standard deviation of the runs' validation scores.

    Raises UsageError for fewer than two runs, and for runs of several tasks.
    """
    if len(runs) < 2 or len({run.task for run in runs}) != 1:
        raise UsageError(f"{len(runs)} runs of {len({run.task for run in runs})} tasks: give two or more of one")
    each = [run.scores.mean for run in runs]
    return Summary(runs[0].scores.metric, float(np.mean(each)), float(np.std(each, ddof=1)), len(each))
