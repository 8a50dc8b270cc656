"""What the commands of training work on: recordings of a split, their labels, and features that are up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aupipe.cli.output import echo
from aupipe.config import Config
from aupipe.dataset import Dataset, open_dataset
from aupipe.errors import UsageError
from aupipe.types import Labels, Recording, Task

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.recipe import DataNeeds


STALE = {"source changed": "", "other file": "", "failed before": "failed: "}  # what to say before the reason


@dataclass(frozen=True)
class Data:
    """What a configuration has to train on: the recordings of both splits, their labels, the features by id; ``also``:
    the labels of tasks trained along."""

    train: list[Recording]
    validation: list[Recording]
    labels: dict[str, Labels]
    features: dict[str, str]
    also: dict[Task, dict[str, Labels]]
    damaged: dict[str, str]  # recording -> what is wrong with the media its features were made from


def gather(
    config: Config, store: Store, recipe: DataNeeds, task: Task, names: Sequence[str] = (), allow_missing: bool = False
) -> Data:
    """The splits, labels and features of a configuration; ``names`` go before the recipe's own features.

    Raises UsageError for an empty split, and for features that are not configured, with the lines that make them.
    """
    from aupipe.extract.planning.features import build_feature_set, feature_ids
    from aupipe.train.recipe import describe_missing

    asked = tuple(names) or recipe.features
    if missing := describe_missing(recipe, [encoder.name for encoder in config.encoders], asked):
        raise UsageError(missing)
    dataset = open_dataset(config.dataset)
    splits = {name: dataset.split(task, name) for name in ("train", "validation")}
    for name, found in splits.items():
        if not found:
            where = config.dataset.annotations or config.dataset.root
            raise UsageError(f"no recording of the {name} split has {task} annotations in {where}")
    everyone = [*splits["train"], *splits["validation"]]
    features = feature_ids(build_feature_set(config, names=list(asked), known=store.features()), everyone, asked)
    splits = {name: up_to_date(config, store, found, features, allow_missing) for name, found in splits.items()}
    also = {other: labels_of(dataset, everyone, other) for other in recipe.aux_tasks_for(task)}
    damaged = damaged_of(store, [*splits["train"], *splits["validation"]], features)
    return Data(splits["train"], splits["validation"], labels_of(dataset, everyone, task), features, also, damaged)


def damaged_of(store: Store, recordings: Sequence[Recording], features: Mapping[str, str]) -> dict[str, str]:
    """The recordings of which these features were made from damaged media, and what is wrong with it."""
    harm = {record.recording: record.damage for record in store.damaged() if record.feature in features.values()}
    found = {r.id: harm.get(r.id) or harm.get(r.video_id, "") for r in recordings}
    return {name: words for name, words in found.items() if words}


def up_to_date(
    config: Config, store: Store, recordings: list[Recording], features: Mapping[str, str], allow_missing: bool
) -> list[Recording]:
    """The recordings whose stored features are of the files that lie there now.

    Raises UsageError naming those whose source has changed since, or on which extraction failed; ``allow_missing``
    leaves them out instead, and says so. Features that are simply not there yet are for the training part to name.
    """
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.extract.planning.plan import make_plan

    known = {encoder.name for encoder in config.encoders}
    parts = build_feature_set(config, names=[name for name in features if name in known], known=store.features())
    stale = {
        item.key: item.state if item.state == "source changed" else f"{STALE[item.state]}{item.reason}"
        for item in make_plan(recordings, parts, store).items
        if item.spec.id in features.values() and item.state in STALE
    }
    left_out = [r for r in recordings if r.id in stale or r.video_id in stale]
    if left_out and not allow_missing:
        shown = "; ".join(f"{r.id} ({stale.get(r.id) or stale[r.video_id]})" for r in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        raise UsageError(f"features of {shown}{more} are not to be trusted: `aupipe extract`, or --allow-missing")
    for recording in left_out:
        why = stale.get(recording.id) or stale[recording.video_id]
        echo(f"aupipe: left out {recording.id}: {why}", err=True)
    return [recording for recording in recordings if recording not in left_out]


def labels_of(dataset: Dataset, recordings: Sequence[Recording], task: Task) -> dict[str, Labels]:
    """Annotations by recording id; recordings without any are left out."""
    found = {recording.id: dataset.labels(recording, task) for recording in recordings}
    return {name: labels for name, labels in found.items() if labels is not None}


def chosen(dataset: Dataset, task: Task, split: str | None, ids: Sequence[str]) -> list[Recording]:
    """The recordings of a split, or of these ids, or all. Raises UsageError for both, and for an empty split."""
    if ids and split:
        raise UsageError("give recordings or --split, not both")
    if ids:
        return dataset.select(ids)
    if split:
        found = dataset.split(task, split)
        if not found:
            raise UsageError(f"no recording in the {split} split of task {task}")
        return found
    return list(dataset.recordings)
