"""What a recipe says of the paper it is from, and in what it departs from that paper.

The ``[paper]`` table of a recipe file states what the paper states, by keys of the recipe. So a departure is found by
comparing the two, also after ``--set`` or in a recipe that ``extends`` the published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import build
from aupipe.tasks import Task
from aupipe.train.heads import head_config
from aupipe.train.recipe import Recipe
from aupipe.train.recipe_tables import flatten, read_tables

T = TypeVar("T")


@dataclass(frozen=True)
class Paper:
    """A ``[paper]`` table. Keys of the recipe are dotted: ``optimiser.lr``, ``encoder.eff.model``.

    ``says``: key -> the value in the paper. ``unstated``: key -> where the recipe's value is from, as the paper has
    none. ``trains``: feature -> what of its encoder the paper trains. ``differs``: what no key expresses, a line each.
    """

    cite: str
    title: str = ""
    code: str = ""
    tasks: tuple[str, ...] = ()
    says: Mapping[str, Any] = field(default_factory=dict)
    unstated: Mapping[str, str] = field(default_factory=dict)
    trains: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ()


def read_paper(name_or_path: str | Path, task: Task | None = None) -> Paper | None:
    """The paper of a recipe, as far as it concerns ``task``; None for a recipe of no paper. Raises UsageError."""
    name, tables = read_tables(name_or_path, task)
    if "paper" not in tables:
        return None
    where = f"recipe {name!r}: [paper]"
    table = dict(tables["paper"])
    parts = {key: table.pop(key, {}) for key in ("says", "unstated", "trains")}
    plain = build(Paper, table, where)
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            raise UsageError(f"{where}: {key} = {part!r}: expected a table, [paper.{key}]")
    says, unstated, trains = (flatten(part) for part in parts.values())
    return replace(plain, says=says, unstated=unstated, trains=trains)


def departures(recipe: Recipe, paper: Paper, task: str, unstated: bool = True) -> list[str]:
    """In what ``recipe``, resolved for a task, departs from its paper, a line each.

    ``unstated``: also what the paper does not state. Raises UsageError where the paper's table names a key that the
    recipe does not have.
    """
    values = values_of(recipe)
    found = []
    if task not in paper.tasks:
        found.append(f"task {task}: not in the paper, which is on {', '.join(paper.tasks)}: loss and outputs are ours")
    for key, said in _named_here(recipe, paper.says):
        if _is_of_other(key, task):
            continue
        _check_key(recipe, key, values)
        here = values.get(key)
        if _plain(here) != _plain(said):
            found.append(f"{key} = {_shown(here)}: the paper has {_shown(said)}")
    for key, source in _named_here(recipe, paper.unstated) if unstated else ():
        _check_key(recipe, key, values)
        if key in values and not _is_of_other(key, task):
            found.append(f"{key} = {_shown(values[key])}: {source}; the paper does not state it")
    trained = recipe.head.params.get("feature") if recipe.head.kind == "trained_tail" else None
    for name, what in paper.trains.items():
        if name in recipe.features and name != trained:
            found.append(f"{name}: frozen, because features are computed once; the paper trains {what}")
    return [*found, *paper.differs]


def values_of(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe by its dotted key; those of encoders as ``encoder.NAME.key``."""
    tables = recipe.to_json()
    tables["encoder"] = {table["name"]: table for table in tables["encoder"]}
    if (then := tables["head"].get("then")) is not None:  # as it was written: with its defaults
        params = {key: value for key, value in then.items() if key != "kind"}
        tables["head"]["then"] = {"kind": then["kind"], **asdict(head_config(then["kind"], params))}
    return flatten(tables)


def _named_here(recipe: Recipe, table: Mapping[str, T]) -> list[tuple[str, T]]:
    """The entries of a table with the keys that this recipe has for them.

    What a paper says of its head is of the head after the encoder that is trained along; what it says of an encoder
    whose feature is not read concerns other recipes.
    """
    tail = recipe.head.kind == "trained_tail"
    found = []
    for key, value in table.items():
        first, _, rest = key.partition(".")
        if first == "head" and tail and not rest.startswith(("tail.", "feature")):
            key = f"head.then.{rest}"
        if first != "encoder" or not recipe.features or rest.partition(".")[0] in recipe.features:
            found.append((key, value))
    return found


def _is_of_other(key: str, task: str) -> bool:
    """Is this the loss or the post-processing of a task that is not trained now?"""
    first, _, rest = key.partition(".")
    return first in ("loss", "postprocess") and rest.partition(".")[0] != task


def _check_key(recipe: Recipe, key: str, values: Mapping[str, Any]) -> None:
    """Raise UsageError for a key that no recipe has; another head, loss, encoder or feature set may lack one."""
    first = key.partition(".")[0]
    if key not in values and first not in ("head", "loss", "postprocess", "encoder", "detector"):
        raise UsageError(f"recipe {recipe.name!r}: [paper]: unknown key {key!r}.{nearest(key, values)}")


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):  # of a list of tables: what sets each apart
        return " ".join(str(value[key]) for key in ("feature", "kind", "width") if key in value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return "nothing" if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
