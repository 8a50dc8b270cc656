"""What a run is trained and validated on: loaded and checked before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aupipe.errors import UsageError
from aupipe.quantities import counted, first_of
from aupipe.store import Store
from aupipe.tasks import Task
from aupipe.train.data import (
    Example,
    Scaling,
    common_dims,
    feature_specs,
    fit_scaling,
    load_examples,
    refuse_duplicates,
)
from aupipe.train.heads import HEADS
from aupipe.train.labels import check_labels, scored_rows
from aupipe.train.recipe import Recipe, describe_missing, unscaled_numbers
from aupipe.types import FeatureSpec, Labels, Recording

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Examples of both splits; ``scaling`` is of the training split alone.

    ``annotated``: labels of the validation split as given, also of recordings without features and of frames that were
    cut off, because those lower the coverage.
    """

    train: list[Example]
    validation: list[Example]
    annotated: Mapping[str, Labels]
    features: Mapping[str, str]  # name -> feature id, in the order of the columns
    specs: Mapping[str, FeatureSpec]
    dims: tuple[int, ...]
    scaling: Scaling


def load_training_data(
    store: Store,
    *,
    train: Sequence[Recording],
    validation: Sequence[Recording],
    labels: Mapping[str, Labels],
    aux_labels: Sequence[tuple[Task, Mapping[str, Labels]]],
    features: Mapping[str, str],
    recipe: Recipe,
    task: Task,
    allow_missing: bool,
    command: str = "",
) -> TrainingData:
    """Load the features that the recipe names (all of ``features`` where it names none), and the labels.

    ``command``: what makes the features, for a message.

    Raises UsageError as `aupipe.train.fit.fit` says.
    """
    if missing := describe_missing(recipe, list(features)):
        raise UsageError(missing)
    features = {name: features[name] for name in recipe.features or features}
    refuse_duplicates(features)
    _check_splits(train, validation, recipe)
    specs = feature_specs(store, features)
    aux = _check_aux_labels(recipe, aux_labels, train)
    examples = load_examples(store, train, features, labels, allow_missing, aux, command, recipe.symmetric)
    held_out = load_examples(store, validation, features, labels, allow_missing, (), command, recipe.symmetric)
    _check_examples(examples, task, "training")
    if recipe.symmetric:
        known = [name for name, order in zip(specs, examples[0].mirrored, strict=True) if order is not None]
        log.info("made symmetric: %s of %s", ", ".join(known) or "none", ", ".join(specs))
    if validation:
        _check_examples(held_out, task, "validation")
    if hasattr(HEADS.get(recipe.head.kind), "start_from") and not any(
        item.labels is not None and item.labels.valid.all(axis=1).any() for item in examples
    ):
        raise UsageError(
            f"head {recipe.head.kind!r} needs frames in which all of its {len(task.names)} outputs are annotated: no "
            "training recording has one, so choose another recipe"
        )
    for example in examples:
        for (other, _), item in zip(aux, example.aux_labels, strict=True):
            check_labels(item, other, example.recording)
    annotated = {item.id: labels[item.id] for item in validation if item.id in labels}
    dims = common_dims([*examples, *held_out])
    unscaled = unscaled_numbers(recipe, features)
    scaling = replace(fit_scaling(examples, recipe.center, unscaled), **recipe.scaling)
    return TrainingData(examples, held_out, annotated, features, specs, dims, scaling)


def check_request(recipe: Recipe, task: Task) -> None:
    """Raise UsageError for a task that the recipe has no loss for."""
    if recipe.loss_for(task) is None:
        raise UsageError(f"recipe {recipe.name!r} has no [loss.{task}] table; it trains {', '.join(recipe.loss)}")


def _check_splits(train: Sequence[Recording], validation: Sequence[Recording], recipe: Recipe) -> None:
    if not train:
        raise UsageError("no training recordings given")
    if not validation and recipe.optimiser.schedule == "plateau":
        raise UsageError(
            "optimiser.schedule = 'plateau' needs a validation score: hold recordings out, or choose another"
        )
    both = {item.id for item in train} & {item.id for item in validation}
    if both:
        raise UsageError(
            f"in training and validation: {counted(len(both), 'recording')}, e.g. {min(both)!r}: split them"
        )
    groups = {item.group for item in train} & {item.group for item in validation}
    if groups:
        log.warning(
            "in training and validation: %s (e.g. %r): the score will be better than on new people",
            counted(len(groups), "group"),
            min(groups),
        )


def _check_aux_labels(
    recipe: Recipe, known: Sequence[tuple[Task, Mapping[str, Labels]]], train: Sequence[Recording]
) -> Sequence[tuple[Task, Mapping[str, Labels]]]:
    """Labels of the auxiliary tasks, in order. Raises UsageError where no training recording has any."""
    for other, labels in known:
        if not any(item.id in labels for item in train):
            raise UsageError(f"recipe {recipe.name!r} trains {other} too, but no training recording has labels for it")
        if hasattr(HEADS.get(recipe.head.kind), "start_from"):
            raise UsageError(
                f"head {recipe.head.kind!r} is initialised from the labels of one task: leave out aux_tasks.{other}"
            )
    return known


def _check_examples(examples: Sequence[Example], task: Task, split: str) -> None:
    """Raise UsageError for wrong labels, or none at all; name recordings that have no label or no face in the log."""
    for example in examples:
        if example.labels is not None:
            check_labels(example.labels, task, example.recording)
    blank = [item.recording for item in examples if item.labels is None or not item.labels.valid.any()]
    if len(blank) == len(examples):
        raise UsageError(f"no valid {task} label in {len(examples)} {split} recordings: check the annotation folder")
    faceless = [item.recording for item in examples if not item.face_found.any()]
    for names, what in ((blank, f"no valid {task} label"), (faceless, "no frame with a face")):
        if names:
            log.warning("%d of %d %s recordings have %s: %s", len(names), len(examples), split, what, first_of(names))
    frames, found = sum(map(len, examples)), sum(int(item.face_found.sum()) for item in examples)
    valid = sum(int(scored_rows(item.labels).sum()) for item in examples if item.labels)
    log.info("%s: %d frames of %d recordings, %d annotated, %d with a face", split, frames, len(examples), valid, found)
