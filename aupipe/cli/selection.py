"""Which recordings and features a command works on: the data set, the folder, modalities and names that were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

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
    dataset = opener()
    if dataset.ignored:
        suffixes = Counter(path.suffix or "no suffix" for path in dataset.ignored)
        shown = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        echo(f"aupipe: not videos: {counted(len(dataset.ignored), 'file')} ({shown})", err=True)
    recordings = list(dataset.recordings)
    return recordings[:limit] if limit else recordings, features


def warn_duplicates(recordings: list[Recording], features: FeatureSet) -> None:
    """Print which names are the same numbers: they are computed and stored once."""
    for name, spec in features.graph(recordings[0]).named.items() if recordings else ():
        first = next(one for one, other in features.graph(recordings[0]).named.items() if other is spec)
        if first != name:
            echo(f"aupipe: features {first!r} and {name!r} are the same numbers: computed once, as {spec.id}", err=True)
