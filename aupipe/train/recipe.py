"""A recipe: everything that decides a training run, except the data and the seed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Protocol

from aupipe.documents import parse_toml
from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import Count, Natural, Range, Share, ShareBelowOne, build
from aupipe.train.heads import head_config
from aupipe.train.labels import check_task
from aupipe.train.losses import loss_config
from aupipe.train.postprocess import Options as PostOptions
from aupipe.train.schedule import Optimiser
from aupipe.types import TASKS, Task

MONITORS = ("score", "tuned")
TABLES = ("head", "loss", "also", "optimiser", "needs", "postprocess")


@dataclass(frozen=True)
class Part:
    """A registered head or loss by name, and its parameters; complete, defaults included."""

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """``window`` and ``hop`` in frames, ``batch`` in windows; ``patience``: epochs without a better validation score.

    ``center``: how much of a recording's own mean is taken off its features (`aupipe.train.data.Scaling`).
    ``loss`` holds a part per task the recipe can train; ``also`` the tasks that are trained along with whichever is
    asked for, and the weights of their losses (the task itself has 1). ``features`` are names from the configuration;
    none: all that are given. ``needs`` says of a feature's name how it is made, ``postprocess`` what follows the head,
    by task.

    ``predict_window``, ``predict_hop``: other windows than in training; 0: the same. ``steps``: at most so many per
    epoch; 0: all. ``ema``: the share of the averaged weights kept at every step; 0: no averaging. ``amp``: the head
    runs in bfloat16. ``monitor``: epochs are compared by the score at 0.5, or by the score at each AU's best threshold.
    """

    name: str
    head: Part
    loss: Mapping[str, Part]
    also: Mapping[str, float] = field(default_factory=dict)
    optimiser: Optimiser = field(default_factory=Optimiser)
    window: int = 128
    hop: int = 64
    batch: int = 16
    epochs: int = 30
    patience: int = 10
    center: float = 0.0
    features: tuple[str, ...] = ()
    predict_window: int = 0
    predict_hop: int = 0
    steps: int = 0
    ema: float = 0.0
    amp: bool = False
    monitor: str = "score"
    needs: Mapping[str, str] = field(default_factory=dict)
    postprocess: Mapping[str, PostOptions] = field(default_factory=dict)

    @property
    def predict_windows(self) -> tuple[int, int]:
        """Window and hop of prediction."""
        return self.predict_window or self.window, self.predict_hop or min(self.hop, self.predict_window or self.window)

    def beside(self, task: str) -> dict[Task, float]:
        """The tasks trained along with ``task``, and the weights of their losses; always in the same order."""
        return {other: self.also[other] for other in TASKS if other != task and self.also.get(other)}

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `recipe_from` turns back into an equal recipe."""
        tables: dict[str, Any] = asdict(self)
        tables["head"] = {"kind": self.head.kind, **self.head.params}
        tables["loss"] = {task: {"kind": part.kind, **part.params} for task, part in self.loss.items()}
        tables.pop("name")
        return tables


def recipe_names() -> list[str]:
    """The recipes that come with aupipe, sorted."""
    folder = resources.files("aupipe.train") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by its name or from a TOML file, with ``key=value`` changes (``head.width=32``, ``epochs=5``) applied.

    Values are TOML; what is not is taken as text. Raises UsageError for an unknown recipe, head, loss or key, with the
    nearest known one, for values of the wrong type, and for a committee (`aupipe.train.committee.load_committee`).
    """
    name, tables = read_tables(name_or_path)
    if "member" in tables:
        members = ", ".join(tables["member"])
        raise UsageError(f"recipe {name!r} is a committee of {members}, not one head: load_committee reads it")
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
    """``tables`` with each ``a.b=value`` set; a value is TOML, or else text. Raises UsageError for what is neither."""
    for override in overrides:
        _override(tables, override)
    return tables


def recipe_from(tables: Mapping[str, Any], name: str) -> Recipe:
    """A checked recipe from its tables, as TOML or `Recipe.to_json` give them."""
    where = f"recipe {name!r}"
    # Nested tables are checked one by one, so that a message names the table; here only that there are no others.
    for key in TABLES:
        if not isinstance(tables.get(key, {}), Mapping):
            raise UsageError(f"{where}: {key} = {tables[key]!r}: expected a table, [{key}]")
    plain = {key: value for key, value in tables.items() if key not in TABLES}
    known = [key for key in Recipe.__dataclass_fields__ if key != "name"]
    for key in plain:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}.{nearest(key, known)} Known: {', '.join(sorted(known))}")
    settings = build(_Settings, plain, where)

    kind, params = _kind(tables.get("head", {}), f"{where}: [head]")
    head = Part(kind, asdict(head_config(kind, params)))
    loss = {}
    for task, table in tables.get("loss", {}).items():
        check_task(task)
        if not isinstance(table, Mapping):
            raise UsageError(f"{where}: loss.{task} = {table!r}: expected a table, [loss.{task}]")
        kind, params = _kind(table, f"{where}: [loss.{task}]")
        loss[task] = Part(kind, asdict(loss_config(kind, params, task)))
    if not loss:
        raise UsageError(f"{where}: no [loss.<task>] table; give one per task, e.g. [loss.au] kind = 'bce'")
    also = {}
    for task, weight in tables.get("also", {}).items():
        check_task(task)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e6:
            raise UsageError(f"{where}: also.{task} = {weight!r}: expected a weight, 0 or more")
        if task not in loss:
            raise UsageError(f"{where}: also.{task} needs a [loss.{task}] table")
        also[task] = float(weight)
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
        also=also,
        optimiser=optimiser,
        needs=needs,
        postprocess=post,
        **asdict(settings),
    )


class Asking(Protocol):
    """A recipe or a committee, as far as it asks for data."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def needs(self) -> Mapping[str, str]: ...

    def beside(self, task: Task) -> Iterable[Task]: ...


def describe_missing(recipe: Asking, available: Sequence[str], asked: Sequence[str] = ()) -> str:
    """Which of the recipe's features, or of those ``asked`` for instead, are not among the available ones, and the
    lines that make them; '' where none is."""
    missing = [name for name in asked or recipe.features if name not in available]
    if not missing:
        return ""
    first = f"recipe {recipe.name!r} asks for feature {missing[0]!r}.{nearest(missing[0], available)}"
    lines = [f"{name}: {recipe.needs.get(name) or f'aupipe extract --feature {name}'}" for name in missing]
    return f"{first} Available: {', '.join(available) or 'none'}. Not there, and what makes them: " + "; ".join(lines)


@dataclass(frozen=True)
class _Settings:
    """The keys of a recipe outside any table."""

    window: Count = Recipe.window
    hop: Count = Recipe.hop
    batch: Count = Recipe.batch
    epochs: Count = Recipe.epochs
    patience: Count = Recipe.patience
    center: Share = Recipe.center
    features: tuple[str, ...] = ()
    predict_window: Natural = 0
    predict_hop: Natural = 0
    steps: Annotated[int, Range(0, 10**9)] = 0
    ema: ShareBelowOne = 0.0
    amp: bool = False
    monitor: str = "score"

    def __post_init__(self) -> None:
        if self.predict_hop > (self.predict_window or self.window):
            raise UsageError(f"recipe: predict_hop = {self.predict_hop} exceeds the window: frames would be left out")
        if self.monitor not in MONITORS:
            raise UsageError(
                f"recipe: monitor = {self.monitor!r}.{nearest(self.monitor, MONITORS)} Known: score, tuned"
            )
        if self.hop > self.window:
            raise UsageError(f"recipe: hop = {self.hop} exceeds window = {self.window}: frames would be left out")


def _kind(table: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """A table's ``kind`` and what else it holds."""
    if not isinstance(table.get("kind"), str):
        raise UsageError(f"{where}: the key 'kind' is missing")
    return table["kind"], {key: value for key, value in table.items() if key != "kind"}


def _override(tables: dict[str, Any], override: str) -> None:
    """Apply one ``a.b=value`` to the tables."""
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
