"""The data of a training command: recordings of a split, their labels, and their current features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aupipe.cli.output import echo
from aupipe.cli.recipe_features import extract_command, with_encoders
from aupipe.config import Config
from aupipe.dataset import Dataset, open_dataset
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.quantities import counted, first_of
from aupipe.tasks import Task
from aupipe.types import Labels, Recording

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.recipe import DataNeeds


STALE = {"source changed": "", "other file": "", "failed before": "failed: "}  # state -> prefix of the reason


@dataclass(frozen=True)
class Data:
    """The training data of a configuration: recordings of both splits, their labels, feature ids by name."""

    task: Task
    train: list[Recording]
    validation: list[Recording]
    labels: dict[str, Labels]
    features: dict[str, str]
    aux_labels: dict[str, dict[str, Labels]]  # of the auxiliary tasks, by recording id
    damaged: dict[str, str]  # recording -> the damage of the media its features were made from
    command: str = ""  # the `aupipe extract` that makes the features; '': by their names


def gather(
    config: Config,
    store: Store,
    recipe: DataNeeds,
    task: str,
    names: Sequence[str] = (),
    allow_missing: bool = False,
    where: Sequence[str] = (),
    needed: Sequence[str] = ("train", "validation"),
) -> Data:
    """The training data of a configuration; ``names`` replace the recipe's own features.

    ``where``: conditions that recordings fulfil (`Dataset.where`). Raises UsageError where one of the ``needed`` splits
    is empty, and for a feature that is not configured or not stored, with the command that makes it.
    """
    from aupipe.extract.planning.features import imported_features
    from aupipe.store.clocks import clock_of
    from aupipe.train.recipe import describe_missing

    asked = tuple(names) or recipe.features
    command = extract_command(config, recipe, task)
    config = with_encoders(config, recipe.encoders)
    available = [*(encoder.name for encoder in config.encoders), *(s.name for s in imported_features(store.features()))]
    if missing := describe_missing(recipe, available, asked, command):
        raise UsageError(missing)
    command = command if set(recipe.features).issuperset(asked) else ""
    dataset = open_dataset(config.dataset, clock_of(store))
    label_set = dataset.task(task)
    splits = {name: dataset.split(task, name) for name in ("train", "validation")}
    for name, found in splits.items():
        if not found and name in needed:
            files = {own.name: source.file for own, source in config.dataset.tasks}
            place = files.get(task) or config.dataset.annotations or config.dataset.root
            own = ", ".join(files)
            others = f"; --task or [train] task names another label set: {own}" if own and task not in files else ""
            raise UsageError(f"no recording of the {name} split has {task} annotations in {place}{others}")
    splits = {name: keep_where(dataset, found, where) for name, found in splits.items()}
    if empty := next((name for name in needed if not splits[name]), None):
        raise UsageError(f"no recording of the {empty} split of task {task} has {' and '.join(where)}")
    all_recordings = [*splits["train"], *splits["validation"]]
    features = _stored_ids(config, store, all_recordings, asked, command)
    splits = {name: keep_current(config, store, found, features, allow_missing) for name, found in splits.items()}
    aux_tasks = [dataset.task(other).name for other in recipe.aux_tasks_for(task)]
    aux_labels = {other: dataset.labels_of(all_recordings, other) for other in aux_tasks}
    damaged = find_damage(store, [*splits["train"], *splits["validation"]], features)
    labels = dataset.labels_of(all_recordings, task)
    return Data(label_set, splits["train"], splits["validation"], labels, features, aux_labels, damaged, command)


def _stored_ids(
    config: Config, store: Store, recordings: Sequence[Recording], names: Sequence[str], command: str
) -> dict[str, str]:
    """Feature name -> id. Raises UsageError for features that no recording has in the store."""
    from aupipe.extract.planning.features import build_feature_set, feature_ids

    stored = store.features()
    try:
        found = feature_ids(build_feature_set(config, names=list(names), known=stored), recordings, names)
    except WeightsMissingError:
        missing = [name for name in names if name not in {spec.name for spec in stored}]
        if not missing:
            raise
    else:
        missing = [name for name, feature_id in found.items() if feature_id not in {spec.id for spec in stored}]
    if missing:
        command = command or f"aupipe extract --feature {','.join(missing)}"
        them = "them" if len(missing) > 1 else "it"
        raise UsageError(f"not in the store {config.store.path}: {', '.join(missing)}; `{command}` computes {them}")
    return found


def find_damage(store: Store, recordings: Sequence[Recording], features: Mapping[str, str]) -> dict[str, str]:
    """Recording id -> damage, for the recordings whose features were made from damaged media."""
    damage = {record.recording: record.damage for record in store.damaged() if record.feature in features.values()}
    found = {r.id: damage.get(r.id) or damage.get(r.video_id, "") for r in recordings}
    return {name: text for name, text in found.items() if text}


def keep_current(
    config: Config, store: Store, recordings: list[Recording], features: Mapping[str, str], allow_missing: bool
) -> list[Recording]:
    """The recordings whose stored features were made from the present source files.

    Raises UsageError with the recordings whose source has changed, or on which extraction failed. ``allow_missing``
    leaves them out instead, with a message. Features that are not stored yet are checked by `aupipe.train`.
    """
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.extract.planning.plan import make_plan

    known = {encoder.name for encoder in config.encoders}
    if not (names := [name for name in features if name in known]):  # all of them are imported
        return recordings
    parts = build_feature_set(config, names=names, known=store.features())
    stale = {
        item.key: item.state if item.state == "source changed" else f"{STALE[item.state]}{item.reason}"
        for item in make_plan(recordings, parts, store).items
        if item.spec.id in features.values() and item.state in STALE
    }
    left_out = [r for r in recordings if r.id in stale or r.video_id in stale]
    if left_out and not allow_missing:
        shown = first_of([f"{r.id} ({stale.get(r.id) or stale[r.video_id]})" for r in left_out], separator="; ")
        raise UsageError(f"features of {shown} are out of date: run `aupipe extract`, or give --allow-missing")
    for recording in left_out:
        why = stale.get(recording.id) or stale[recording.video_id]
        echo(f"aupipe: left out {recording.id}: {why}", err=True)
    return [recording for recording in recordings if recording not in left_out]


def keep_where(dataset: Dataset, recordings: Sequence[Recording], where: Sequence[str]) -> list[Recording]:
    """The recordings that fulfil the conditions of ``--where``; those without a value are left out, with a message."""
    kept, without = dataset.where(recordings, where)
    for column, blank in without.items():
        shown = first_of([r.id for r in blank])
        echo(f"aupipe: left out {counted(len(blank), 'recording')} without a {column}: {shown}", err=True)
    return kept


def select_recordings(
    dataset: Dataset, task: str, split: str | None, ids: Sequence[str], where: Sequence[str] = ()
) -> list[Recording]:
    """The recordings of a split, or of these ids, or all, that fulfil the conditions of ``where``.

    Raises UsageError for a split and ids, and where there is none.
    """
    if ids and split:
        raise UsageError("give recordings or --split, not both")
    found = dataset.select(ids) if ids else dataset.split(task, split) if split else list(dataset.recordings)
    if split and not found:
        raise UsageError(f"no recording in the {split} split of task {task}")
    if not (kept := keep_where(dataset, found, where)):
        raise UsageError(f"none of {counted(len(found), 'recording')} has {' and '.join(where)}")
    return kept
