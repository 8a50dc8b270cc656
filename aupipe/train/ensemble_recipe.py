"""Recipes of several members, which are trained separately and combined by `aupipe.train.ensemble`.

A recipe file with ``[member.NAME]`` tables is an ensemble recipe: each table names a ``recipe`` and the keys it
changes. ``per_feature = true`` trains a member once per feature, so that a feature of many columns does not dominate
the others. A plain recipe is read as an ensemble recipe with one member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aupipe.config import EncoderConfig
from aupipe.errors import UsageError
from aupipe.tasks import Task
from aupipe.train.data import refuse_duplicates
from aupipe.train.recipe import Recipe, describe_missing, recipe_from
from aupipe.train.recipe_tables import apply_overrides, current_keys, for_task, merged, read_tables


@dataclass(frozen=True)
class MemberRecipe:
    """One ``[member.NAME]`` table; ``per_feature``: a run for each of its features."""

    name: str
    recipe: Recipe
    per_feature: bool = False


@dataclass(frozen=True)
class EnsembleRecipe:
    """``members`` in the order of the file."""

    name: str
    members: tuple[MemberRecipe, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The names that the members list; none where one of them uses whatever is given."""
        each = [member.recipe.features for member in self.members]
        return tuple(dict.fromkeys(name for names in each for name in names)) if all(each) else ()

    def aux_tasks_for(self, task: str) -> tuple[str, ...]:
        """The tasks that at least one member trains together with ``task``."""
        return tuple(dict.fromkeys(other for m in self.members for other in m.recipe.aux_tasks_for(task)))

    @property
    def encoders(self) -> tuple[EncoderConfig, ...]:
        """The encoders of all members. Raises UsageError where two members make one feature by different ones."""
        found: dict[str, EncoderConfig] = {}
        for member in self.members:
            for one in member.recipe.encoders:
                if found.setdefault(one.name, one) != one:
                    raise UsageError(f"recipe {self.name!r}: its members have two different [[encoder]] {one.name!r}")
        return tuple(found.values())

    @property
    def detector(self) -> Mapping[str, Any]:
        """The [detector] table of the members that have one."""
        return next((member.recipe.detector for member in self.members if member.recipe.detector), {})

    def on(self, features: Sequence[str]) -> EnsembleRecipe:
        """The same with these features instead of those that its members list."""
        members = [replace(m, recipe=replace(m.recipe, features=tuple(features))) for m in self.members]
        return replace(self, members=tuple(members))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `ensemble_recipe_from_json` turns back into an equal recipe."""
        return {
            "name": self.name,
            "members": [
                {"name": m.name, "per_feature": m.per_feature, "recipe": {"name": m.recipe.name, **m.recipe.to_json()}}
                for m in self.members
            ],
        }


@dataclass(frozen=True)
class Member:
    """What is trained once per fold: a member recipe on its features, or on one of them.

    ``name`` names the folder of its run; '' where there is only one.
    """

    name: str
    recipe: Recipe
    features: Mapping[str, str]  # name -> feature id


def load_ensemble_recipe(
    name_or_path: str | Path, overrides: Sequence[str] = (), per_feature: bool = False, task: Task | None = None
) -> EnsembleRecipe:
    """A recipe by its name or from a TOML file, for ``task`` (`load_recipe`), with ``key=value`` changes applied.

    ``NAME.key=value`` changes one member, ``key=value`` all of them. ``per_feature``: every member is trained once per
    feature. Raises UsageError as `load_recipe` does, and for a member that is itself an ensemble recipe.
    """
    name, tables = read_tables(name_or_path, task)
    if "member" not in tables:
        recipe = recipe_from(apply_overrides(tables, overrides), name)
        return EnsembleRecipe(name, (MemberRecipe(name, recipe, per_feature),))
    own = tables.pop("member")
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        raise UsageError(f"recipe {name!r}: expected a table per member, [member.NAME]")
    members = []
    for label, table in own.items():
        where = f"recipe {name!r}: [member.{label}]"
        changes = current_keys(for_task(table, task, where))
        if not isinstance(changes.get("recipe"), str):
            raise UsageError(f"{where}: the key 'recipe' is missing")
        separate = changes.pop("per_feature", False)
        if not isinstance(separate, bool):
            raise UsageError(f"{where}: per_feature = {separate!r}: expected true or false")
        base, base_tables = read_tables(changes.pop("recipe"), task)
        if "member" in base_tables:
            raise UsageError(f"{where}: {base!r} has members itself: name a recipe without members")
        together = merged(merged(base_tables, tables), changes)
        chosen = [text.removeprefix(f"{label}.") for text in overrides if _is_for(text, label, own)]
        members.append(
            MemberRecipe(label, recipe_from(apply_overrides(together, chosen), base), separate or per_feature)
        )
    return EnsembleRecipe(name, tuple(members))


def ensemble_recipe_from_json(content: Mapping[str, Any]) -> EnsembleRecipe:
    """The inverse of `EnsembleRecipe.to_json`. Raises UsageError for anything else."""
    try:
        members = []
        for item in map(current_keys, content["members"]):
            tables = dict(item["recipe"])
            members.append(MemberRecipe(item["name"], recipe_from(tables, tables.pop("name")), item["per_feature"]))
        return EnsembleRecipe(content["name"], tuple(members))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the saved request is not readable as recipes ({error!r}): train into a new folder"
        ) from error


def expand_members(recipe: EnsembleRecipe, features: Mapping[str, str]) -> list[Member]:
    """What is trained per fold on ``features`` (name -> id).

    Raises UsageError where a member lists a feature that is not given, where two features are the same numbers, and
    where two members would have the same name.
    """
    found = []
    refuse_duplicates({name: features[name] for name in recipe.features or features if name in features})
    for member in recipe.members:
        if missing := describe_missing(member.recipe, list(features)):
            raise UsageError(missing)
        listed = member.recipe.features or tuple(features)
        label = member.name if len(recipe.members) > 1 else ""
        for names in [(name,) for name in listed] if member.per_feature else [listed]:
            name = "-".join(filter(None, [label, *(names if member.per_feature else ())]))
            own = replace(member.recipe, features=names)
            found.append(Member(name, own, {each: features[each] for each in names}))
    refuse_shared_names([member.name for member in found], f"recipe {recipe.name!r}: members and features")
    return found


def refuse_shared_names(names: Sequence[str], what: str) -> None:
    """Raise UsageError where two runs would have the same folder."""
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{what} give two runs the name {repeated!r}: rename one")


def _is_for(override: str, member: str, members: Mapping[str, Any]) -> bool:
    """Does a ``key=value`` change this member: because it names the member, or because it names none?"""
    first = override.partition("=")[0].partition(".")[0].strip()
    return first == member or first not in members
