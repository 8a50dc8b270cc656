"""What encoders and detectors declare alike: which parameters say where weights lie, and which packages they use.

Both are frozen dataclasses of their parameters. Everything in them is part of the identity of a feature
(`aupipe.types.FeatureSpec`) but where weights lie: there the sha256 of the weights counts, not the name of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from aupipe.errors import UsageError
from aupipe.types import FeatureSpec


@dataclass(frozen=True)
class Location:
    """Marks a parameter that says where weights lie. A parameter called ``weights`` is one without the mark.

    ``keyed``: its default stands in the key of a feature, whatever its value. For parameters whose value stood there in
    aupipe 0.1: who never set them keeps all keys.
    """

    keyed: bool = False


@dataclass(frozen=True)
class NotKeyed:
    """Marks a parameter that changes no numbers, such as the names of columns: it is no part of a feature's key."""


WeightFile = Annotated[str, Location()]  # a file, or a folder of them
KeyedWeightFile = Annotated[str, Location(keyed=True)]
ColumnNames = Annotated[tuple[str, ...], NotKeyed()]


def locations(kind: type) -> Mapping[str, Location]:
    """The parameters of an encoder or detector class that say where weights lie."""
    hints = get_type_hints(kind, include_extras=True)
    marks = {f.name: get_args(hints[f.name])[1:] for f in fields(kind) if get_origin(hints[f.name]) is Annotated}
    marked = {name: mark for name, found in marks.items() for mark in found if isinstance(mark, Location)}
    return {"weights": Location()} | marked


def params_of(part: Any) -> dict[str, Any]:
    """The parameters of an encoder or detector as JSON values, for its `FeatureSpec`: those that are part of it."""
    values = asdict(part)
    marks = locations(type(part))
    hints = get_type_hints(type(part), include_extras=True)
    for field in fields(part):
        if any(isinstance(mark, NotKeyed) for mark in get_args(hints[field.name])[1:]):
            del values[field.name]
            continue
        mark = marks.get(field.name)
        if mark is not None:
            del values[field.name]
            if mark.keyed and field.default is not MISSING:
                values[field.name] = field.default
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def without_locations(spec: FeatureSpec, part: Any) -> FeatureSpec:
    """``spec``, made by ``part``, without the parameters that say where weights lie."""
    names = locations(type(part))
    return replace(spec, params={name: value for name, value in spec.params.items() if name not in names})


def as_stored(spec: FeatureSpec, part: Any, stored: Iterable[FeatureSpec]) -> FeatureSpec:
    """The feature of a store that differs from ``spec`` in nothing but where weights lie; else ``spec`` itself.

    aupipe 0.1 had names of weight files in keys, and what it stored keeps its key. Where there are several such
    features, the one made under the names that ``part`` has now comes first, then the one of today's key.
    """
    wanted = without_locations(spec, part).id
    same = [other for other in stored if other.kind == spec.kind and without_locations(other, part).id == wanted]

    given = {name: getattr(part, name) for name in locations(type(part)) if hasattr(part, name)}

    def rank(other: FeatureSpec) -> tuple[bool, bool, str]:
        renamed = any(other.params.get(name, value) != value for name, value in given.items())
        return renamed, other.id != spec.id, other.id

    return min(same, key=rank, default=spec)


def check_members(part: Any, described: str, members: Iterable[str]) -> None:
    """Raises UsageError, beginning with ``described``, where an encoder or detector lacks what its protocol asks."""
    known = {field.name for field in fields(part)}
    missing = [name for name in members if name not in known and not hasattr(type(part), name)]
    if missing:
        raise UsageError(f"{described} has no {', '.join(missing)}")


def requires_of(part: Any) -> tuple[str, ...]:
    """The distributions whose versions change the numbers of an encoder or detector; none where it names none."""
    return tuple(getattr(part, "requires", ()))
