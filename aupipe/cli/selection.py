"""Which recordings and features a command works on: the data set, the folder, modalities and names that were given."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from aupipe.cli.output import echo
from aupipe.config import Config
from aupipe.errors import UsageError
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.dataset_model import Dataset
    from aupipe.extract.planning.features import FeatureSet
    from aupipe.types import Recording

MODALITIES = ("visual", "audio", "text")


def select(
    config: Config, dataset: Dataset, modalities: list[str], names: list[str], limit: int | None = None
) -> tuple[list[Recording], FeatureSet]:
    """The recordings of the data set and the features of a configuration.

    ``modalities``, ``names``: of features; empty lists select all. ``limit``: the number of recordings at most.
    Raises UsageError where nothing is selected.
    """
    from aupipe.extract.planning.features import build_feature_set

    for modality in modalities:
        if modality not in MODALITIES:
            raise UsageError(
                f"unknown modality {modality!r}.{nearest(modality, MODALITIES)} Known: {', '.join(MODALITIES)}"
            )
    features = build_feature_set(config, modalities, names)
    if not features.encoders:
        conditions = [*(f"modality {name}" for name in modalities), *(f"name {name}" for name in names)]
        wanted = f" of {' and '.join(conditions)}" if conditions else ""
        raise UsageError(f"{config.file or 'the defaults'}: no [[encoder]]{wanted}; add one, or ask for another")
    if dataset.ignored:
        suffixes = Counter(path.suffix or "no suffix" for path in dataset.ignored)
        shown = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        echo(f"aupipe: {len(dataset.ignored)} files in the folder are not videos ({shown})", err=True)
    recordings = list(dataset.recordings)
    return recordings[:limit] if limit else recordings, features


def warn_duplicates(recordings: list[Recording], features: FeatureSet) -> None:
    """Print which features have the same numbers: correct, but each is computed and stored."""
    name_of: dict[str, str] = {}
    for spec, _ in features.graph(recordings[0]).encoders if recordings else ():
        first = name_of.setdefault(spec.key, spec.name)
        if first != spec.name:
            echo(f"aupipe: features {first!r} and {spec.name!r} are the same numbers: one is enough", err=True)
