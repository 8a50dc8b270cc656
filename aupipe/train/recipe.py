"""A recipe: everything that determines a training run, except the data and the seed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from aupipe.documents import parse_toml
from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import build
from aupipe.tasks import Task
from aupipe.train.heads import head_config, unscaled_features
from aupipe.train.losses import loss_config
from aupipe.train.postprocess import Options as PostOptions
from aupipe.train.recipe_settings import Settings
from aupipe.train.recipe_tasks import KIND_OF, TASK_NAMES, check_task, table_for
from aupipe.train.schedule import Optimiser

TABLES = ("head", "loss", "aux_tasks", "optimiser", "needs", "postprocess")
# Keys by their former names: saved runs hold them, and so may recipe files of users.
RENAMED = {"also": "aux_tasks", "apart": "per_feature"}


@dataclass(frozen=True)
class Component:
    """A registered head or loss by its name, with all its parameters, defaults included."""

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """The keys outside any table are those of `Settings`.

    ``loss``: a loss for each task that the recipe can train. ``aux_tasks``: auxiliary tasks that are trained together
    with the task asked for, and the weights of their losses (the task itself has weight 1). ``needs``: feature name ->
    the command that makes it. ``postprocess``: task -> what is done with the scores.
    """

    name: str
    head: Component
    loss: Mapping[str, Component]
    aux_tasks: Mapping[str, float] = field(default_factory=dict)
    optimiser: Optimiser = field(default_factory=Optimiser)
    needs: Mapping[str, str] = field(default_factory=dict)
    postprocess: Mapping[str, PostOptions] = field(default_factory=dict)

    def aux_tasks_for(self, task: str) -> dict[str, float]:
        """The auxiliary tasks trained together with ``task`` and the weights of their losses, in a fixed order."""
        return {other: self.aux_tasks[other] for other in TASK_NAMES if other != task and self.aux_tasks.get(other)}

    def loss_for(self, task: Task) -> Component | None:
        """The loss of a task: by its name, by its kind, or that of the official task of its kind; None: there is none.

        Intensities have a loss by default, which the published recipes cannot name.
        """
        found = table_for(self.loss, task)
        if found is None and task.kind == "intensity":
            return Component("mse", asdict(loss_config("mse", {}, task.kind)))
        return found

    def postprocess_for(self, task: Task) -> PostOptions | None:
        """The post-processing of a task, found as `loss_for` finds its loss."""
        return table_for(self.postprocess, task)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `recipe_from` turns back into an equal recipe."""
        tables: dict[str, Any] = asdict(self)
        tables["head"] = {"kind": self.head.kind, **self.head.params}
        tables["loss"] = {task: {"kind": loss.kind, **loss.params} for task, loss in self.loss.items()}
        tables.pop("name")
        return tables


def recipe_names() -> list[str]:
    """The recipes that come with aupipe, sorted."""
    folder = resources.files("aupipe.train") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by its name or from a TOML file, with ``key=value`` changes (``head.width=32``, ``epochs=5``) applied.

    A value is TOML, or text where it is not valid TOML. Raises UsageError for an unknown recipe, head, loss or key,
    with the nearest known one, for values of the wrong type, and for a recipe of several members
    (`aupipe.train.ensemble_recipe.load_ensemble_recipe`).
    """
    name, tables = read_tables(name_or_path)
    if "member" in tables:
        members = ", ".join(tables["member"])
        raise UsageError(f"recipe {name!r} is an ensemble of {members}, not one head: use load_ensemble_recipe")
    return recipe_from(apply_overrides(tables, overrides), name)


def read_tables(name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
    """The name of a recipe or of a TOML file, and its tables. Raises UsageError where there is none."""
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"{path}: no such recipe file")
        name, content = path.stem, path.read_bytes()
    else:
        name = str(name_or_path)
        if name not in recipe_names():
            hint = nearest(name, recipe_names())
            raise UsageError(
                f"unknown recipe {name!r}.{hint} Available: {', '.join(recipe_names())}, or the path of a .toml file"
            )
        content = (resources.files("aupipe.train") / "recipes" / f"{name}.toml").read_bytes()
    try:
        return name, parse_toml(content)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {name_or_path}: {error}") from error


def apply_overrides(tables: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``tables`` with each ``a.b=value`` set. Raises UsageError for text of another form."""
    for override in overrides:
        _override(tables, override)
    return tables


def current_keys(table: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` with former names of keys replaced (`RENAMED`). Raises UsageError where it has both."""
    for old, new in RENAMED.items():
        if old in table and new in table:
            raise UsageError(f"{old!r} is the former name of {new!r}: give only {new!r}")
    return {RENAMED.get(key, key): value for key, value in table.items()}


def recipe_from(tables: Mapping[str, Any], name: str) -> Recipe:
    """A checked recipe from its tables, as TOML or `Recipe.to_json` give them. Raises UsageError as `load_recipe`."""
    where = f"recipe {name!r}"
    tables = current_keys(tables)
    # Each table is checked further below, so that a message names it; here only the keys outside tables.
    for key in TABLES:
        if not isinstance(tables.get(key, {}), Mapping):
            raise UsageError(f"{where}: {key} = {tables[key]!r}: expected a table, [{key}]")
    plain = {key: value for key, value in tables.items() if key not in TABLES}
    known = [key for key in Recipe.__dataclass_fields__ if key != "name"]
    for key in plain:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}.{nearest(key, known)} Known: {', '.join(sorted(known))}")
    settings = build(Settings, plain, where)

    kind, params = _kind(tables.get("head", {}), f"{where}: [head]")
    head = Component(kind, asdict(head_config(kind, params)))
    loss = {}
    for task, table in tables.get("loss", {}).items():
        check_task(task)
        if not isinstance(table, Mapping):
            raise UsageError(f"{where}: loss.{task} = {table!r}: expected a table, [loss.{task}]")
        kind, params = _kind(table, f"{where}: [loss.{task}]")
        loss[task] = Component(kind, asdict(loss_config(kind, params, KIND_OF[task])))
    if not loss:
        raise UsageError(f"{where}: no [loss.<task>] table; give one per task, e.g. [loss.au] kind = 'bce'")
    aux_tasks = {}
    for task, weight in tables.get("aux_tasks", {}).items():
        check_task(task)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e6:
            raise UsageError(f"{where}: aux_tasks.{task} = {weight!r}: expected a weight, 0 or more")
        if task not in loss:
            raise UsageError(f"{where}: aux_tasks.{task} needs a [loss.{task}] table")
        aux_tasks[task] = float(weight)
    optimiser = build(Optimiser, tables.get("optimiser", {}), f"{where}: [optimiser]")
    post = {}
    for task, table in tables.get("postprocess", {}).items():
        check_task(task)
        post[task] = build(PostOptions, table, f"{where}: [postprocess.{task}]")
    needs = {str(feature): str(line) for feature, line in tables.get("needs", {}).items()}
    return Recipe(
        name=name,
        head=head,
        loss=loss,
        aux_tasks=aux_tasks,
        optimiser=optimiser,
        needs=needs,
        postprocess=post,
        **asdict(settings),
    )


def unscaled_numbers(recipe: Recipe, features: Iterable[str]) -> frozenset[int]:
    """The numbers of those ``features`` that the head reads as they are stored (`aupipe.train.data.Scaling`)."""
    names = unscaled_features(recipe.head.kind, recipe.head.params)
    return frozenset(i for i, name in enumerate(features) if name in names)


class DataNeeds(Protocol):
    """A recipe or an ensemble recipe: the data it needs."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def needs(self) -> Mapping[str, str]: ...

    def aux_tasks_for(self, task: str) -> Iterable[str]: ...


def describe_missing(recipe: DataNeeds, available: Sequence[str], asked: Sequence[str] = ()) -> str:
    """A message: which of the recipe's features (or of ``asked``) are not available, and the commands that make them.

    '' where all are available.
    """
    missing = [name for name in asked or recipe.features if name not in available]
    if not missing:
        return ""
    first = f"recipe {recipe.name!r} needs feature {missing[0]!r}.{nearest(missing[0], available)}"
    lines = [f"{name}: {recipe.needs.get(name) or f'aupipe extract --feature {name}'}" for name in missing]
    return f"{first} Available: {', '.join(available) or 'none'}. Missing, and the command that makes it: " + "; ".join(
        lines
    )


def _kind(table: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """A table's ``kind`` and its other keys. Raises UsageError where ``kind`` is missing."""
    if not isinstance(table.get("kind"), str):
        raise UsageError(f"{where}: the key 'kind' is missing")
    return table["kind"], {key: value for key, value in table.items() if key != "kind"}


def _override(tables: dict[str, Any], override: str) -> None:
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
