"""The points of a search: every combination of the values that ``--sweep`` gives, each a recipe of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from typing import Any

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.tasks import Task
from aupipe.train.ensemble_recipe import EnsembleRecipe, ensemble_recipe_from_json
from aupipe.train.idle_settings import settings_in_use
from aupipe.train.recipe import TABLES, Recipe
from aupipe.train.recipe_tables import apply_overrides

SHORT_OF = ("head", "optimiser")  # tables whose keys may be given without the table, where only one has the key
MOST_POINTS = 10_000
NAME_LENGTH = 80  # of a folder, without its digest
ReadRecipe = Callable[[Sequence[str]], EnsembleRecipe]  # key=value changes -> the recipe with them


@dataclass(frozen=True)
class Point:
    """One combination: ``settings``, key -> value, in the order of the keys, and the ``recipe`` that has them."""

    settings: Mapping[str, Any]
    recipe: EnsembleRecipe

    @property
    def label(self) -> str:
        """``head.width=32 optimiser.lr=0.0001``."""
        return " ".join(f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in self.settings.items())

    @property
    def name(self) -> str:
        """The name of its folder, the same in every search that has this point."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode(errors="surrogateescape"))
        plain = re.sub(r"[^\w.=+-]+", "_", self.label)[:NAME_LENGTH]
        return f"{plain}-{digest.hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `point_from_json` turns back into an equal point."""
        return {"settings": dict(self.settings), "recipe": self.recipe.to_json()}


def point_from_json(content: Mapping[str, Any]) -> Point:
    """The inverse of `Point.to_json`. Raises UsageError for anything else."""
    try:
        return Point(dict(content["settings"]), ensemble_recipe_from_json(content["recipe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the saved search is not readable ({error!r}): train into a new folder") from error


def read_points(texts: Sequence[str], fixed: Sequence[str], read: ReadRecipe, task: Task) -> tuple[Point, ...]:
    """The points of ``key=value,value`` texts, in an order that does not depend on the order of the texts.

    ``fixed``: the ``key=value`` changes that all points share; ``read``: the recipe with them and with further ones. A
    key of [head] or [optimiser] may be given without its table: ``lr`` for ``optimiser.lr``.

    Raises UsageError, before anything is trained, for a text of another form, for a key that is given twice or that is
    ``fixed`` too, for whatever the recipe refuses, and for two points that a run of ``task`` does not distinguish.
    """
    base = read([])
    known = [full_key(text.partition("=")[0].strip(), base) for text in fixed]
    axes: dict[str, dict[str, Any]] = {}  # key -> text of a value -> the value
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise UsageError(f"--sweep {text}: expected key=value,value, e.g. lr=1e-4,3e-4 or head.width=32,64")
        key = full_key(key.strip(), base)
        if key in axes:
            raise UsageError(f"--sweep {text}: {key} is swept twice: give all its values at once")
        if key in known:
            raise UsageError(f"--sweep {text}: {key} is given by --set too: give it once")
        axes[key] = {part: apply_overrides({}, [f"value={part}"])["value"] for part in split_values(values, text)}
    if (count := prod(map(len, axes.values()))) > MOST_POINTS:
        raise UsageError(f"--sweep gives {counted(count, 'point')}, more than {MOST_POINTS}: leave some values out")
    points = []
    keys = sorted(axes)
    for chosen in product(*(sorted(axes[key].items(), key=lambda item: _order(item[1])) for key in keys)):
        recipe = read([f"{key}={text}" for key, (text, _) in zip(keys, chosen, strict=True)])
        points.append(Point({key: value for key, (_, value) in zip(keys, chosen, strict=True)}, recipe))
    _refuse_equal(points, task)
    return tuple(points)


def merge_points(before: Sequence[Point], more: Sequence[Point], task: Task) -> tuple[Point, ...]:
    """The points of a search and further ones, each once, in the order that `read_points` would give them.

    Raises UsageError for points of other settings, and for two that a run of ``task`` does not distinguish.
    """
    keys = list(before[0].settings)
    if other := next((point for point in more if list(point.settings) != keys), None):
        raise UsageError(
            f"--extend adds values of what was swept, {', '.join(keys)}: {other.label} is of other settings"
        )
    found = {point.name: point for point in (*before, *more)}
    points = sorted(found.values(), key=lambda point: [_order(value) for value in point.settings.values()])
    _refuse_equal(points, task)
    return tuple(points)


def split_values(text: str, whole: str) -> list[str]:
    """``a,[b,c],"d,e"`` as its three values: commas in brackets and quotes do not separate.

    Raises UsageError, naming the ``whole`` option, for an empty value and for brackets that do not match.
    """
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += (sign in "[{") - (sign in "]}") if not quote else 0
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    values = [part.strip() for part in parts]
    if depth or quote or not all(values):
        raise UsageError(f"--sweep {whole}: expected values separated by commas, with brackets and quotes in pairs")
    if twice := next((value for value in values if values.count(value) > 1), None):
        raise UsageError(f"--sweep {whole}: {twice} is given twice")
    return values


def full_key(key: str, recipe: EnsembleRecipe) -> str:
    """``lr`` as ``optimiser.lr``; a key with its table, one outside any table, and an unknown one as they are.

    ``member.lr`` likewise. Raises UsageError for a key of both tables.
    """
    member, dot, rest = key.partition(".")
    several = len(recipe.members) > 1
    if several and dot and member in {one.name for one in recipe.members}:
        return f"{member}.{full_key(rest, recipe)}"
    if dot or key in {one.name for one in fields(Recipe)} | set(TABLES):
        return key
    tables = [one.recipe.to_json() for one in recipe.members]
    found = [name for name in SHORT_OF if any(key in table[name] for table in tables)]
    if len(found) > 1:
        raise UsageError(f"{key} is a key of {' and '.join(found)}: write {' or '.join(f'{n}.{key}' for n in found)}")
    return f"{found[0]}.{key}" if found else key


def _refuse_equal(points: Sequence[Point], task: Task) -> None:
    """Raise UsageError for two points with the same settings in use: one of them would be trained in vain."""
    seen: dict[str, Point] = {}
    for point in points:
        used = [settings_in_use(member.recipe, task) for member in point.recipe.members]
        first = seen.setdefault(json.dumps(used, sort_keys=True, default=repr), point)
        if first is not point:
            raise UsageError(f"--sweep: {first.label} and {point.label} are the same to a run of {task}: leave one out")


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then everything else by its text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (not is_number, value if is_number else 0.0, json.dumps(value, default=repr))
