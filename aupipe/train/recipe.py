"""A recipe: everything that determines a training run, except the data and the seed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from aupipe.encoder_tables import EncoderConfig, encoder_table, read_encoders
from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import build
from aupipe.tasks import OFFICIAL, Task
from aupipe.train.heads import head_config, unscaled_features
from aupipe.train.losses import loss_config
from aupipe.train.postprocess import Options as PostOptions
from aupipe.train.recipe_settings import Settings
from aupipe.train.recipe_tables import apply_overrides, current_keys, read_tables, recipe_names
from aupipe.train.recipe_tasks import KIND_OF, TASK_NAMES, check_task, table_for
from aupipe.train.schedule import Optimiser

TABLES = ("head", "loss", "aux_tasks", "optimiser", "postprocess", "detector")
# What a recipe file says besides: of its paper (`aupipe.train.recipe_paper`), and in versions before, commands.
OTHER = ("paper", "needs")

__all__ = ["Component", "DataNeeds", "Recipe", "describe_missing", "load_recipe", "recipe_from", "recipe_names"]


@dataclass(frozen=True)
class Component:
    """A registered head or loss by its name, with all its parameters, defaults included."""

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """The keys outside any table are those of `Settings`.

    ``loss``: a loss for each task that the recipe can train. ``aux_tasks``: auxiliary tasks that are trained together
    with the task asked for, and the weights of their losses (the task itself has weight 1). ``encoders``: what makes
    those of the features that the recipe has a table for. ``detector``: its [detector] table, where a paper names one.
    ``postprocess``: task -> what is done with the scores.
    """

    name: str
    head: Component
    loss: Mapping[str, Component]
    aux_tasks: Mapping[str, float] = field(default_factory=dict)
    optimiser: Optimiser = field(default_factory=Optimiser)
    postprocess: Mapping[str, PostOptions] = field(default_factory=dict)
    encoders: tuple[EncoderConfig, ...] = ()
    detector: Mapping[str, Any] = field(default_factory=dict)

    def aux_tasks_for(self, task: str) -> dict[str, float]:
        """The auxiliary tasks trained together with ``task`` and the weights of their losses, in a fixed order."""
        order = (*TASK_NAMES, *sorted(self.aux_tasks))  # official ones first, as in saved runs
        return {other: self.aux_tasks[other] for other in order if other != task and self.aux_tasks.get(other)}

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
        tables["encoder"] = [encoder_table(encoder) for encoder in self.encoders]
        for key in ("name", "encoders"):
            tables.pop(key)
        return tables


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = (), task: Task | None = None) -> Recipe:
    """A recipe by its name or from a TOML file, with ``key=value`` changes (``head.width=32``, ``epochs=5``) applied.

    ``task``: its [task] table is laid over the others before (`aupipe.train.recipe_tables.read_tables`).

    A value is TOML, or text where it is not valid TOML. Raises UsageError for an unknown recipe, head, loss or key,
    with the nearest known one, for values of the wrong type, and for a recipe of several members
    (`aupipe.train.ensemble_recipe.load_ensemble_recipe`).
    """
    name, tables = read_tables(name_or_path, task)
    if "member" in tables:
        members = ", ".join(tables["member"])
        raise UsageError(f"recipe {name!r} is an ensemble of {members}, not one head: use load_ensemble_recipe")
    return recipe_from(apply_overrides(tables, overrides), name)


def recipe_from(tables: Mapping[str, Any], name: str) -> Recipe:
    """A checked recipe from its tables, as TOML or `Recipe.to_json` give them. Raises UsageError as `load_recipe`."""
    where = f"recipe {name!r}"
    tables = {key: value for key, value in current_keys(tables).items() if key not in OTHER}
    # Each table is checked further below, so that a message names it; here only the keys outside tables.
    for key in TABLES:
        if not isinstance(tables.get(key, {}), Mapping):
            raise UsageError(f"{where}: {key} = {tables[key]!r}: expected a table, [{key}]")
    plain = {key: value for key, value in tables.items() if key not in (*TABLES, "encoder")}
    known = [{"encoders": "encoder"}.get(key, key) for key in Recipe.__dataclass_fields__ if key != "name"]
    for key in plain:
        if key not in known:
            hint = _with_table(key, tables) or nearest(key, known)
            raise UsageError(f"{where}: unknown key {key!r}.{hint} Known: {', '.join(sorted(known))}")
    settings = build(Settings, plain, where)
    optimiser = build(Optimiser, tables.get("optimiser", {}), f"{where}: [optimiser]")

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
    for task, weight in tables.get("aux_tasks", {}).items():  # of a task of one's own the loss is found by its kind
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e6:
            raise UsageError(f"{where}: aux_tasks.{task} = {weight!r}: expected a weight, 0 or more")
        if task in OFFICIAL and task not in loss:
            raise UsageError(f"{where}: aux_tasks.{task} needs a [loss.{task}] table")
        aux_tasks[task] = float(weight)
    post = {}
    for task, table in tables.get("postprocess", {}).items():
        check_task(task)
        post[task] = build(PostOptions, table, f"{where}: [postprocess.{task}]")
    return Recipe(
        name=name,
        head=head,
        loss=loss,
        aux_tasks=aux_tasks,
        optimiser=optimiser,
        postprocess=post,
        encoders=_encoders(tables.get("encoder", []), settings.features, where),
        detector=dict(tables.get("detector", {})),
        **asdict(settings),
    )


def _with_table(key: str, tables: Mapping[str, Any]) -> str:
    """`` Did you mean 'optimiser.lr'?`` for a key that was given without its table, or an empty string."""
    key = {"learning": "lr", "learning_rate": "lr"}.get(key, key)
    keys = {"optimiser": {one.name for one in fields(Optimiser)}, "head": set(tables.get("head", {}))}
    table = next((name for name, own in keys.items() if key in own), None)
    return f" Did you mean '{table}.{key}'?" if table else ""


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
    def encoders(self) -> tuple[EncoderConfig, ...]: ...

    def aux_tasks_for(self, task: str) -> Iterable[str]: ...


def describe_missing(recipe: DataNeeds, available: Sequence[str], asked: Sequence[str] = (), command: str = "") -> str:
    """A message: which of the recipe's features (or of ``asked``) are not available, and the command that makes them.

    ``command``: the `aupipe extract` that makes the features of this recipe. '' where all are available.
    """
    missing = [name for name in asked or recipe.features if name not in available]
    if not missing:
        return ""
    own = {encoder.name for encoder in recipe.encoders}
    command = command or f"aupipe extract --recipe {shlex.quote(recipe.name)}"
    them = "them" if len(missing) > 1 else "it"
    makes = f"`{command}` computes {them}"
    if not own.issuperset(missing):
        makes = (
            f"`aupipe extract --feature {','.join(missing)}` computes {them}, from [[encoder]] tables of aupipe.toml"
        )
    needs = f"recipe {recipe.name!r} needs" if missing[0] in recipe.features else "there is no"
    first = f"{needs} feature {missing[0]!r}.{nearest(missing[0], available)}"
    return f"{first} Available: {', '.join(available) or 'none'}. Missing: {', '.join(missing)}; {makes}"


def _encoders(tables: Any, features: Sequence[str], where: str) -> tuple[EncoderConfig, ...]:
    """The encoders of ``features`` (all, where there are none). Raises UsageError for two that are the same."""
    found = [one for one in read_encoders(tables, where) if not features or one.name in features]
    for number, one in enumerate(found):
        for other in found[:number]:
            if (one.kind, one.params) == (other.kind, other.params):
                raise UsageError(
                    f"{where}: [[encoder]] {other.name!r} and {one.name!r} differ in nothing but their names: a head "
                    "would read the same numbers twice"
                )
    return tuple(found)


def _kind(table: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """A table's ``kind`` and its other keys. Raises UsageError where ``kind`` is missing."""
    if not isinstance(table.get("kind"), str):
        raise UsageError(f"{where}: the key 'kind' is missing")
    return table["kind"], {key: value for key, value in table.items() if key != "kind"}
