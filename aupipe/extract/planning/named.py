"""Which stored features a configuration names, and which one it means by a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from aupipe.config import Config
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.types import FeatureSpec, Recording


def named_features(config: Config, recordings: Sequence[Recording], stored: Sequence[FeatureSpec]) -> set[str]:
    """The ids of the stored features that a configuration gives these recordings, and of what they are computed from.

    The clocks are, also without encoders. Of an encoder or a detector whose weights are not on this machine, every
    stored feature of its name or its kind is named, and every subject's track: which one it is cannot be said. Raises
    UsageError for a configuration with an error.
    """
    found = _ids(build_feature_set(replace(config, encoders=()), known=stored), recordings)
    for encoder in config.encoders:
        try:
            found |= _ids(build_feature_set(config, names=[encoder.name], known=stored), recordings)
        except WeightsMissingError:
            kinds = {encoder.kind, config.faces.detector, "subject"}
            found |= {spec.id for spec in stored if spec.name == encoder.name or spec.kind in kinds}
    return with_inputs(found, stored) & {spec.id for spec in stored}


def meant_feature(
    config: Config, recordings: Callable[[], Sequence[Recording]], name: str, stored: Sequence[FeatureSpec]
) -> str | None:
    """The id of the one stored feature that a configuration means by a name; None where it means none, or several.

    ``recordings`` lists those of the data set; where it raises UsageError there is none, and nothing is meant.
    """
    own = [name] if name in {encoder.name for encoder in config.encoders} else []
    found = set()
    try:
        features = build_feature_set(config, names=own, known=stored)
        for graph in map(features.graph, recordings()):
            others = [spec for spec in (graph.clock, graph.detections, graph.faces) if spec and spec.name == name]
            found |= {spec.id for spec in (graph.named.get(name), *others) if spec is not None}
    except (UsageError, WeightsMissingError):
        return None
    found &= {spec.id for spec in stored}
    return found.pop() if len(found) == 1 else None


def with_inputs(ids: Iterable[str], stored: Sequence[FeatureSpec]) -> set[str]:
    """These features, those they are computed from, those these are computed from, and so on."""
    inputs = {spec.id: set(spec.inputs.values()) for spec in stored}
    found, new = set[str](), set(ids)
    while new:
        found |= new
        new = set().union(*(inputs.get(feature, set()) for feature in new)) - found
    return found


def _ids(features: FeatureSet, recordings: Sequence[Recording]) -> set[str]:
    found: set[str] = set()
    for graph in map(features.graph, recordings):
        specs = (graph.clock, graph.detections, graph.faces, *graph.named.values())
        found |= {spec.id for spec in specs if spec is not None}
    return found
