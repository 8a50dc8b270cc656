"""The tables of a recipe, from its TOML file to the settings of one task: ``extends``, ``[task.NAME]``, ``--set``."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

from aupipe.documents import parse_toml
from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tasks import Task
from aupipe.train.recipe_tasks import check_task, table_for

log = logging.getLogger(__name__)

# Keys by their former names: saved runs hold them, and so may recipe files of users.
RENAMED = {"also": "aux_tasks", "apart": "per_feature"}
PER_TASK = ("loss", "postprocess")  # tables of tables, one per task: [loss.au]
Tables = dict[str, Any]


def recipe_names() -> list[str]:
    """The recipes that come with aupipe, sorted."""
    folder = resources.files("aupipe.train") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def read_tables(name_or_path: str | Path, task: Task | None = None) -> tuple[str, Tables]:
    """The name of a recipe or of a TOML file, and its tables for ``task``; None: without what is for one task only.

    A file that ``extends`` another recipe (a name, or a path relative to the file) has the tables of that one, with its
    own laid over them. ``[task.NAME]`` is laid over the file's other tables for a task of this name, else of this kind;
    its ``loss`` and ``postprocess`` are those of the task. Encoders are laid over each other by their names.

    Raises UsageError where there is no such recipe, for recipes that extend each other in a circle, and for what is no
    TOML.
    """
    return _read(name_or_path, Path(), task, ())


def _read(name_or_path: str | Path, folder: Path, task: Task | None, extending: tuple[str, ...]) -> tuple[str, Tables]:
    path = folder / name_or_path
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"{path}: no such recipe file")
        name, content, mark = path.stem, path.read_bytes(), str(path.resolve())
    else:
        name = mark = str(name_or_path)
        if name not in recipe_names():
            hint = nearest(name, recipe_names())
            raise UsageError(
                f"unknown recipe {name!r}.{hint} Available: {', '.join(recipe_names())}, or the path of a .toml file"
            )
        content = (resources.files("aupipe.train") / "recipes" / f"{name}.toml").read_bytes()
    if mark in extending:
        raise UsageError(f"recipe {name!r} extends itself: {' extends '.join([*extending, mark])}")
    try:
        tables = parse_toml(content)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {path if path.suffix == '.toml' else name}: {error}") from error
    if tables.pop("needs", None):
        log.warning("recipe %s: [needs] is no longer read: write the features as [[encoder]] tables", name)
    base = tables.pop("extends", None)
    own = for_task(tables, task, f"recipe {name!r}")
    if base is None:
        return name, own
    if not isinstance(base, str):
        raise UsageError(f"recipe {name!r}: extends = {base!r}: expected the name of a recipe, or a .toml file")
    return name, merged(_read(base, path.parent, task, (*extending, mark))[1], own)


def for_task(tables: Mapping[str, Any], task: Task | None, where: str) -> Tables:
    """``tables`` with its table for ``task`` laid over the others, and without its [task] tables.

    Raises UsageError for a table of an unknown task, and for what is no table.
    """
    tables = dict(tables)
    every = tables.pop("task", {})
    if not isinstance(every, Mapping):
        raise UsageError(f"{where}: task = {every!r}: expected a table per task, [task.au]")
    for name, table in every.items():
        check_task(name)
        if not isinstance(table, Mapping):
            raise UsageError(f"{where}: task.{name} = {table!r}: expected a table, [task.{name}]")
    if task is None or (found := table_for(every, task)) is None:
        return tables
    label = next(name for name, table in every.items() if table is found)
    return merged(tables, {key: {label: value} if key in PER_TASK else value for key, value in found.items()})


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tables:
    """``below`` with the keys of ``above``, table by table; a table of another ``kind`` replaces the one below."""
    found = dict(below)
    for key, value in above.items():
        lower = found.get(key)
        if isinstance(value, Mapping) and isinstance(lower, Mapping) and value.get("kind") in (None, lower.get("kind")):
            value = merged(lower, value)
        elif key == "encoder" and isinstance(value, list) and isinstance(lower, list):
            names = {_name_of(table) for table in value}
            value = [*(table for table in lower if _name_of(table) not in names), *value]
        found[key] = value
    return found


def _name_of(encoder: Any) -> Any:
    return encoder.get("name") if isinstance(encoder, Mapping) else None


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of tables in tables by dotted keys, each after ``prefix``."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def current_keys(table: Mapping[str, Any]) -> Tables:
    """``table`` with former names of keys replaced (`RENAMED`). Raises UsageError where it has both."""
    for old, new in RENAMED.items():
        if old in table and new in table:
            raise UsageError(f"{old!r} is the former name of {new!r}: give only {new!r}")
    return {RENAMED.get(key, key): value for key, value in table.items()}


def apply_overrides(tables: Tables, overrides: Sequence[str]) -> Tables:
    """A copy of ``tables`` with each ``a.b=value`` set. Raises UsageError for text of another form."""
    tables = deepcopy(tables)  # recipes of one ensemble share tables
    for override in overrides:
        _override(tables, override)
    return tables


def _override(tables: Tables, override: str) -> None:
    """Set one ``a.b=value`` in the tables; the value is TOML, or text where it is not valid TOML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"recipe override {override!r}: expected key=value, e.g. epochs=5 or head.width=32")
    try:
        value = parse_toml(f"value = {text}".encode(errors="surrogateescape"))["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = key.strip().split(".")
    for parent in parents:
        tables = tables.setdefault(parent, {})
        if not isinstance(tables, dict):
            raise UsageError(f"recipe override {override!r}: {parent!r} is a value, not a table")
    tables[last] = value
