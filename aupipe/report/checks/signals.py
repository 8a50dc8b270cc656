"""Signals of the face that labels are held against: a column for each label, computed from stored visual features.

Blendshapes measure what many AUs name, so for these no training is needed. For other labels, and without blendshapes,
they are the predictions of a ridge regression on a stored visual feature, each recording by a model that has not seen
its group: crude, but it needs to be right about when something happens only, not about what.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.extract.encoders.visual.blendshapes import NAMES
from aupipe.extract.planning.features import FeatureSet
from aupipe.report.faces import read_rows
from aupipe.store import Store
from aupipe.tasks import Task
from aupipe.types import FeatureSpec, Labels, Recording

# AU -> blendshapes that move with it, after the names of FACS (Ekman, Friesen, Hager 2002) and of ARKit.
BLENDSHAPES_OF = {
    "AU1": ("browInnerUp",),
    "AU2": ("browOuterUp",),
    "AU4": ("browDown",),
    "AU5": ("eyeWide",),
    "AU6": ("cheekSquint", "eyeSquint"),
    "AU7": ("eyeSquint",),
    "AU9": ("noseSneer",),
    "AU10": ("mouthUpperUp",),
    "AU12": ("mouthSmile",),
    "AU14": ("mouthDimple",),
    "AU15": ("mouthFrown",),
    "AU17": ("mouthShrugLower",),
    "AU18": ("mouthPucker",),
    "AU20": ("mouthStretch",),
    "AU23": ("mouthRollLower", "mouthRollUpper"),
    "AU24": ("mouthPress",),
    "AU25": ("mouthLowerDown", "jawOpen", "mouthClose"),
    "AU26": ("jawOpen",),
    "AU28": ("mouthRollLower", "mouthRollUpper"),
    "AU45": ("eyeBlink",),
}
LEAST_GROUPS = 5  # for a regression: fewer people say little about another one
FOLDS = 5
MOST_ROWS = 60_000  # of all recordings that a regression is fitted on
COLUMNS = (32, 2048)  # of a feature that is regressed on: fewer show too little, more take too long
RIDGE = 0.1  # times the variance of a column, per row

log = logging.getLogger(__name__)
Signals = Callable[[Recording], NDArray[np.float64] | None]  # (T, K) of a recording, NaN where there is no face


@dataclass(frozen=True)
class LabelSignals:
    """``of``: the signals of a recording for one task, ``by``: from what, in words."""

    of: Signals
    by: str


def label_columns(labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Targets and validity (T, K) as columns that correlate: of classes one for each."""
    if labels.task.kind != "classes":
        return labels.targets.astype(np.float64), labels.valid
    number = np.arange(len(labels.task.names))
    targets = (labels.targets == number).astype(np.float64)  # (T, 1) == (K,) -> (T, K)
    return targets, np.repeat(labels.valid, len(number), axis=1)


def choose_signals(
    task: Task,
    labels: Mapping[str, Labels],
    recordings: Sequence[Recording],
    features: FeatureSet,
    store: Store,
) -> LabelSignals | str:
    """Signals for the labels of a task, or why there are none."""
    annotated = [recording for recording in recordings if recording.id in labels]
    spec = _feature_to_use(annotated, features, store)
    if spec is None:
        return "no visual feature of 32 to 2048 columns is stored for them, such as blendshapes or hog"
    if spec.kind == "blendshapes" and task.kind != "classes" and all(name in BLENDSHAPES_OF for name in task.names):
        return LabelSignals(lambda recording: _blendshapes(store, features, recording, spec, task), spec.name)
    if len({recording.group for recording in annotated}) < LEAST_GROUPS:
        return f"a regression on {spec.name} needs {LEAST_GROUPS} annotated videos or more"
    return _regression(labels, annotated, features, store, spec)


def _feature_to_use(recordings: Sequence[Recording], features: FeatureSet, store: Store) -> FeatureSpec | None:
    """The stored visual feature that is used: blendshapes, else the one with the fewest columns of those that do."""
    found: list[tuple[int, FeatureSpec]] = []
    for recording in recordings[:1]:
        for spec, _ in features.graph(recording).encoders:
            known = spec.modality == "visual" and next(iter(store.all_published(spec.id)), None)
            if known and len(known.shape) == 2 and COLUMNS[0] <= known.shape[1] <= COLUMNS[1]:
                is_first = spec.kind == "blendshapes" and known.shape[1] == len(NAMES)
                found.append((0 if is_first else known.shape[1], spec))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _rows(store: Store, features: FeatureSet, recording: Recording, chosen: FeatureSpec) -> NDArray | None:
    """The rows (T, D) of a recording, as they are stored; None where there are none, or they are damaged."""
    specs = [spec for spec, _ in features.graph(recording).encoders if spec.name == chosen.name]
    try:
        return read_rows(store, recording, specs[0] if specs else None)
    except DamageError as error:
        log.warning("%s: %s", recording.id, error)
        return None


def _blendshapes(
    store: Store, features: FeatureSet, recording: Recording, spec: FeatureSpec, task: Task
) -> NDArray[np.float64] | None:
    rows = _rows(store, features, recording, spec)
    if rows is None:
        return None
    columns = [
        [number for number, name in enumerate(NAMES) if name.startswith(BLENDSHAPES_OF[au])] for au in task.names
    ]
    return np.stack([rows[:, each].astype(np.float64).mean(axis=1) for each in columns], axis=1)


def _regression(
    labels: Mapping[str, Labels],
    recordings: Sequence[Recording],
    features: FeatureSet,
    store: Store,
    spec: FeatureSpec,
) -> LabelSignals | str:
    """Ridge regression of the labels on a feature, for each fold by the recordings of the others."""
    groups = sorted({recording.group for recording in recordings})
    fold_of = {group: number % FOLDS for number, group in enumerate(groups)}
    step = max(1, sum(len(labels[recording.id]) for recording in recordings) // MOST_ROWS)
    grams: list[NDArray | float] = [0.0] * FOLDS  # (D + 1, D + 1) each
    products: list[NDArray | float] = [0.0] * FOLDS  # (D + 1, K)
    for recording in recordings:
        stored = _rows(store, features, recording, spec)
        if stored is None:
            continue
        targets, valid = label_columns(labels[recording.id])
        frames = min(len(stored), len(targets))
        rows, targets, valid = stored[:frames:step].astype(np.float64), targets[:frames:step], valid[:frames:step]
        use = valid.all(axis=1) & ~np.isnan(rows).any(axis=1)
        x = np.column_stack([rows[use], np.ones(use.sum())])
        fold = fold_of[recording.group]
        grams[fold] = grams[fold] + x.T @ x
        products[fold] = products[fold] + x.T @ targets[use]
    weights = [_solve(_without(grams, fold), _without(products, fold)) for fold in range(FOLDS)]
    if all(each is None for each in weights):
        return f"no frame has {spec.name} and all labels"

    def predict(recording: Recording) -> NDArray[np.float64] | None:
        rows = _rows(store, features, recording, spec)
        of_fold = weights[fold_of.get(recording.group, 0)]
        return None if rows is None or of_fold is None else rows.astype(np.float32) @ of_fold[:-1] + of_fold[-1]

    return LabelSignals(predict, f"a regression on {spec.name}, held out")


def _without(parts: Sequence[NDArray | float], fold: int) -> NDArray | float:
    return sum(part for number, part in enumerate(parts) if number != fold)


def _solve(gram: NDArray | float, product: NDArray | float) -> NDArray[np.float64] | None:
    """(D + 1, K) weights, the last row the constants; None without rows."""
    if not isinstance(gram, np.ndarray) or gram[-1, -1] < 1:
        return None
    count = gram[-1, -1]
    variance = np.diag(gram)[:-1] / count - (gram[-1, :-1] / count) ** 2
    penalty = np.append(RIDGE * count * np.maximum(variance, 1e-9), 0.0)
    found: NDArray[np.float64] = np.linalg.solve(gram + np.diag(penalty), product)
    return found
