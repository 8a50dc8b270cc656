"""Which recordings and features a command works on: the data set, the folder, modalities and names that were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aupipe.cli.options import open_or_create
from aupipe.cli.output import echo
from aupipe.config import Config
from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.dataset_model import Dataset
    from aupipe.extract.planning.features import FeatureSet
    from aupipe.types import Recording

MODALITIES = ("visual", "audio", "text")


def select(
    config: Config, opener: Callable[[], Dataset], modalities: list[str], names: list[str], limit: int | None = None
) -> tuple[list[Recording], FeatureSet]:
    """The recordings of the data set that ``opener`` opens, and the features of a configuration; that is checked first.

    ``modalities``, ``names``: of features; empty lists select all. ``limit``: the number of recordings at most.
    Raises UsageError where nothing is selected.
    """
    for modality in modalities:
        if modality not in MODALITIES:
            raise UsageError(
                f"unknown modality {modality!r}.{nearest(modality, MODALITIES)} Known: {', '.join(MODALITIES)}"
            )
    features = _features(config, modalities, names)
    dataset = opener()
    if dataset.ignored:
        suffixes = Counter(path.suffix or "no suffix" for path in dataset.ignored)
        shown = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        echo(f"aupipe: not videos: {counted(len(dataset.ignored), 'file')} ({shown})", err=True)
    recordings = list(dataset.recordings)
    return recordings[:limit] if limit else recordings, features


def _features(config: Config, modalities: list[str], names: list[str]) -> FeatureSet:
    from aupipe.extract.planning.features import build_feature_set

    features = build_feature_set(config, modalities, names)
    if not features.encoders:
        conditions = [*(f"modality {name}" for name in modalities), *(f"name {name}" for name in names)]
        wanted = f" of {' and '.join(conditions)}" if conditions else ""
        raise UsageError(f"{config.file or 'the defaults'}: no [[encoder]]{wanted}; add one, or ask for another")
    return features


def check_config(config: Config) -> None:
    """Raises what `aupipe extract` does for this configuration, in its order; videos are not looked for.

    UsageError for encoders, a detector or folders that it refuses, WeightsMissingError, and for a store that is there
    what `open_store` raises, or UsageError for another backend.
    """
    from aupipe.dataset import check_folders, single_datasets
    from aupipe.types import Recording

    features = _features(config, [], [])
    datasets = single_datasets(config.dataset)
    for dataset in datasets if config.file is not None else ():  # without a file, videos are given to `extract`
        check_folders(dataset)
    for dataset in datasets:
        aligned = dataset.layout == "affwild2" and dataset.frames == "cropped_aligned"
        features.graph(Recording("", video=Path(), aligned=aligned))
    open_or_create(config, create=False)


def warn_duplicates(recordings: list[Recording], features: FeatureSet) -> None:
    """Print which names are the same numbers: they are computed and stored once."""
    for name, spec in features.graph(recordings[0]).named.items() if recordings else ():
        first = next(one for one, other in features.graph(recordings[0]).named.items() if other is spec)
        if first != name:
            echo(f"aupipe: features {first!r} and {name!r} are the same numbers: computed once, as {spec.id}", err=True)
