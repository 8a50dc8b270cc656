"""What a run was trained on and how, to notice that another one is asked for, or that the data has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from aupipe.errors import UsageError
from aupipe.store import Store
from aupipe.train.data import feature_specs
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.run import Run
from aupipe.types import Labels, Recording


def identify_data(
    store: Store,
    train: Sequence[Recording],
    validation: Sequence[Recording],
    features: Mapping[str, str],
    labels: Mapping[str, Labels],
    aux_labels: Mapping[str, Mapping[str, Labels]],
) -> dict[str, str]:
    """What is compared -> 12 hex digits: the recordings of both splits, their stored rows, and all ``labels``.

    ``features``: name -> feature id. ``aux_labels``: auxiliary task -> recording id -> labels. Stored rows are known by
    the checksums in the store, so none is read. Raises UsageError for a feature that the store does not have.
    """
    modalities = {spec.id: spec.modality for spec in feature_specs(store, features).values()}
    rows = [
        _row_checksum(store, recording.key_for(modality), feature)
        for recording in (*train, *validation)
        for feature, modality in modalities.items()
    ]
    annotations = hashlib.sha256()
    tables: list[tuple[str, Mapping[str, Labels]]] = [("", labels), *sorted(aux_labels.items())]
    for task, table in tables:
        for name, item in sorted(table.items()):
            annotations.update(f"{task}\0{name}\0{item.task}\0".encode(errors="surrogateescape"))
            annotations.update(item.targets.tobytes() + item.valid.tobytes())
    return {
        "training recordings": _digest(recording.id for recording in train),
        "validation recordings": _digest(recording.id for recording in validation),
        "stored rows": _digest(map(str, rows)),
        "annotations": annotations.hexdigest()[:12],
    }


def check_same(run: Run, store: Store, data: FitData, config: FitConfig) -> None:
    """Raise UsageError unless a run was begun with these arguments, and its data has not changed since.

    With ``allow_missing``, recordings that the run does not have are not compared.
    """
    features = {name: data.features.get(name) for name in config.recipe.features or data.features}
    found: dict[str, tuple[object, object]] = {
        "task": (run.task, config.task),
        "recipe": (run.recipe, config.recipe),
        "features": (dict(run.features), features),
        "seed": (run.seed, config.seed),
    }
    own: dict[str, list[Recording]] = {}
    for split, asked in (("train", data.train), ("validation", data.validation)):
        before = getattr(run, split)
        own[split] = [r for r in asked if not config.allow_missing or r.id in before]
        found[f"{split} recordings"] = (before, tuple(recording.id for recording in own[split]))
    other = [name for name, (before, now) in found.items() if before != now]
    if not other and run.data:
        now = identify_fit_data(store, own["train"], own["validation"], run.features, data)
        other = [name for name, value in now.items() if run.data.get(name) != value]
    if other:
        raise UsageError(f"{run.path} is a run of another {', '.join(other)}: give the same, or another folder")


def identify_fit_data(
    store: Store,
    train: Sequence[Recording],
    validation: Sequence[Recording],
    features: Mapping[str, str],
    data: FitData,
) -> dict[str, str]:
    """`identify_data` of a run: of the recordings that it uses, and of their labels alone."""
    used = {recording.id for recording in (*train, *validation)}

    def own(labels: Mapping[str, Labels]) -> dict[str, Labels]:
        return {name: item for name, item in labels.items() if name in used}

    aux = {task: own(labels) for task, labels in data.aux_labels.items()}
    return identify_data(store, train, validation, features, own(data.labels), aux)


def _row_checksum(store: Store, recording: str, feature: str) -> int | None:
    try:
        return store.published(recording, feature).crc32c
    except KeyError:
        return None


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogateescape")).hexdigest()[:12]
