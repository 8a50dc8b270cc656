"""Recipes trained side by side and joined, each with the weight that recordings it was not trained on give it.

A recipe file with ``[member.NAME]`` tables is a committee: each table names a ``recipe`` and what changes of it, and
with ``apart = true`` it is trained once per feature, so that no feature drowns another. A plain recipe is a committee
of one. Members are weighted by greedy selection with replacement (Caruana et al., "Ensemble selection from libraries of
models", ICML 2004): what a member is good for shows on held-out recordings, not on those it has learnt by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aupipe.errors import UsageError
from aupipe.train.crossval import Fold
from aupipe.train.data import refuse_twins
from aupipe.train.ensemble import mean
from aupipe.train.evaluate import pooled
from aupipe.train.model import FILE, Model, held_out_of, load_model, save_ensemble
from aupipe.train.postprocess import best_f1, fit_postprocess
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import Recipe, apply_overrides, describe_missing, read_tables, recipe_from
from aupipe.train.run import POST_FILE, RUN_FILE, Run, load_run, save_postprocess
from aupipe.types import Labels, Task

ROUNDS = 20  # members taken at most: weights are multiples of a twentieth or coarser
WORTH = 1e-4  # of the score, that taking one more member has to bring


@dataclass(frozen=True)
class Member:
    """One recipe of a committee; ``apart``: a run for each of its features."""

    name: str
    recipe: Recipe
    apart: bool = False


@dataclass(frozen=True)
class Committee:
    """``members`` in the order of their file."""

    name: str
    members: tuple[Member, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The names its members ask for; none where one of them takes whatever is given."""
        each = [member.recipe.features for member in self.members]
        return tuple(dict.fromkeys(name for names in each for name in names)) if all(each) else ()

    def beside(self, task: Task) -> tuple[Task, ...]:
        """The tasks that some member trains along with ``task``."""
        return tuple(dict.fromkeys(other for m in self.members for other in m.recipe.beside(task)))

    @property
    def needs(self) -> Mapping[str, str]:
        """How the features that members ask for are made."""
        return {feature: line for member in self.members for feature, line in member.recipe.needs.items()}

    def on(self, features: Sequence[str]) -> Committee:
        """The same with these features instead of those its members ask for."""
        members = [replace(m, recipe=replace(m.recipe, features=tuple(features))) for m in self.members]
        return replace(self, members=tuple(members))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `committee_from_json` turns back into an equal committee."""
        return {
            "name": self.name,
            "members": [
                {"name": m.name, "apart": m.apart, "recipe": {"name": m.recipe.name, **m.recipe.to_json()}}
                for m in self.members
            ],
        }


@dataclass(frozen=True)
class Seat:
    """What is trained once per fold: a member on its features, or on one of them. ``name``: '' for the only seat."""

    name: str
    recipe: Recipe
    features: Mapping[str, str]


def load_committee(name_or_path: str | Path, overrides: Sequence[str] = (), apart: bool = False) -> Committee:
    """A recipe or committee by its name or from a TOML file, with ``key=value`` changes applied.

    In a committee ``NAME.key=value`` is for one member, other changes are for all. ``apart``: each member is trained
    once per feature. Raises UsageError as `load_recipe` does, and for a member that is itself a committee.
    """
    name, tables = read_tables(name_or_path)
    if "member" not in tables:
        recipe = recipe_from(apply_overrides(tables, overrides), name)
        return Committee(name, (Member(name, recipe, apart),))
    own = tables.pop("member")
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        raise UsageError(f"recipe {name!r}: expected a table per member, [member.NAME]")
    members = []
    for label, changes in own.items():
        where = f"recipe {name!r}: [member.{label}]"
        if not isinstance(changes.get("recipe"), str):
            raise UsageError(f"{where}: the key 'recipe' is missing")
        alone = changes.pop("apart", False)
        if not isinstance(alone, bool):
            raise UsageError(f"{where}: apart = {alone!r}: expected true or false")
        base, below = read_tables(changes.pop("recipe"))
        if "member" in below:
            raise UsageError(f"{where}: {base!r} is a committee itself")
        mine = [text.removeprefix(f"{label}.") for text in overrides if _is_for(text, label, own)]
        merged = apply_overrides(_merged(_merged(below, tables), changes), mine)
        members.append(Member(label, recipe_from(merged, base), alone or apart))
    return Committee(name, tuple(members))


def committee_from_json(content: Mapping[str, Any]) -> Committee:
    """What `Committee.to_json` gave. Raises UsageError for anything else."""
    try:
        members = []
        for item in content["members"]:
            tables = dict(item["recipe"])
            members.append(Member(item["name"], recipe_from(tables, tables.pop("name")), item["apart"]))
        return Committee(content["name"], tuple(members))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"what was asked for is not readable as recipes ({error!r}): begin anew") from error


def seats(committee: Committee, features: Mapping[str, str]) -> list[Seat]:
    """What is trained per fold on ``features`` (name -> id).

    Raises UsageError where a member asks for another, where two are the same numbers, and where two seats would have
    one name.
    """
    found = []
    refuse_twins({name: features[name] for name in committee.features or features if name in features})
    for member in committee.members:
        if missing := describe_missing(member.recipe, list(features)):
            raise UsageError(missing)
        asked = member.recipe.features or tuple(features)
        label = member.name if len(committee.members) > 1 else ""
        for names in [(name,) for name in asked] if member.apart else [asked]:
            name = "-".join(filter(None, [label, *(names if member.apart else ())]))
            recipe = replace(member.recipe, features=names)
            found.append(Seat(name, recipe, {each: features[each] for each in names}))
    _refuse_doubles([seat.name for seat in found], f"recipe {committee.name!r}: members and features")
    return found


def _refuse_doubles(names: Sequence[str], whose: str) -> None:
    """Raises UsageError where two runs would be one folder."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{whose} give two runs the name {twice!r}: rename one")


def train_committee(
    store: Any,
    committee: Committee,
    folds: Sequence[tuple[Fold, int]],
    *,
    features: Mapping[str, str],
    labels: Mapping[str, Labels],
    task: Task,
    out: Path,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Model:
    """A run per fold (with its seed) and seat in folders below ``out``, and their weighted mean as a model in ``out``.

    ``options`` are further arguments of `aupipe.train.fit.fit`. Finished runs are kept and a killed one is continued,
    so that the same call again goes on where it was stopped. Weights, thresholds and smoothing are fitted on what the
    runs held out, which they are then not scored on.

    Raises UsageError as `fit` and `save_ensemble` do, and where a folder below ``out`` holds a finished run of
    something else.
    """
    from aupipe.train.fit import fit

    chairs = seats(committee, features)
    names = ["-".join(filter(None, [fold.name, seat.name])) for fold, _ in folds for seat in chairs]
    _refuse_doubles(names, "folds, members and features")
    runs: list[list[Run]] = [[] for _ in chairs]
    for fold, seed in folds:
        for own, seat in zip(runs, chairs, strict=True):
            folder = out / "-".join(filter(None, [fold.name, seat.name]))
            if (folder / RUN_FILE).is_file() and (run := load_run(folder)).finished:
                check_run(run, seat, task, seed, fold, bool(options.get("allow_missing")))
                own.append(run)
                continue
            if progress:
                progress(f"{folder.name}: {len(fold.train)} recordings to train on, {len(fold.validation)} held out")
            given: dict[str, Any] = {
                "features": seat.features,
                "recipe": seat.recipe,
                "labels": labels,
                "task": task,
                "seed": seed,
            }
            split: dict[str, Any] = {"train": fold.train, "validation": fold.validation}
            own.append(fit(store, out=folder, resume=True, progress=progress, **split, **given, **options))
    flat = [run for own in runs for run in own]
    options_of = chairs[0].recipe.postprocess.get(task)
    model = load_model(out) if (out / FILE).is_file() else None
    if model is not None and [run.id for run in model.runs] != [run.id for run in flat]:
        raise UsageError(f"{out}: the ensemble there is of other runs: give another folder")
    if model is not None and (options_of is None or (out / POST_FILE).is_file()):
        return model
    everyone = list({item.id: item for fold, _ in folds for item in fold.validation}.values())
    where = {key: options[key] for key in ("device", "threads") if key in options}
    held = [held_out_of(own, store, everyone, **where) for own in runs]
    # With allow_missing a member may have gone without a recording that another one had.
    shared = [name for name in held[0] if all(name in found for found in held)]
    held = [{name: found[name] for name in shared} for found in held]
    known = {name: labels[name] for name in shared if name in labels}
    weights = choose_weights(held, known, task) if len(chairs) > 1 else (1.0,)
    shares = [weight for weight, own in zip(weights, runs, strict=True) for _ in own]
    post = fit_postprocess(mean(held, weights), labels, task, options_of) if options_of is not None else None
    weighed: dict[str, Any] = {"weights": shares, "weighed_on": sorted(known)} if len(chairs) > 1 else {}
    model = model or save_ensemble(out, flat, **weighed)
    if post is not None:
        save_postprocess(model, post)
    return model


def check_run(run: Run, seat: Seat, task: Task, seed: int, fold: Fold, some_missing: bool) -> None:
    """Raises UsageError unless a finished run is what would be trained here."""
    found: dict[str, tuple[Any, Any]] = {
        "task": (run.task, task),
        "recipe": (run.recipe, seat.recipe),
        "features": (dict(run.features), dict(seat.features)),
        "seed": (run.seed, seed),
    }
    for split in ("train", "validation"):
        own, asked = set(getattr(run, split)), {recording.id for recording in getattr(fold, split)}
        found[f"{split} recordings"] = (own, own & asked if some_missing else asked)
    if other := [name for name, (before, now) in found.items() if before != now]:
        raise UsageError(f"{run.path} is a finished run of another {', '.join(other)}: give another folder")


def choose_weights(
    members: Sequence[Mapping[str, Predictions]], labels: Mapping[str, Labels], task: Task
) -> tuple[float, ...]:
    """How often each member was taken: beginning with the best, the one that helps the mean most, until none does.

    Helping means the official score on ``labels``, for AU with every threshold at its best there. ``members`` predict
    the same recordings, which none of them was trained on.
    """

    def reached(counts: Sequence[float]) -> float:
        used = [(item, count) for item, count in zip(members, counts, strict=True) if count]
        joined = mean([item for item, _ in used], [count for _, count in used])
        return best_f1(joined, labels) if task == "au" else pooled(joined, labels, task).mean

    counts, best = np.zeros(len(members)), -np.inf
    for _ in range(ROUNDS):
        found = [reached(list(counts + np.eye(len(members))[i])) for i in range(len(members))]
        if max(found) < best + WORTH:
            break
        best = max(found)
        counts[int(np.argmax(found))] += 1
    return tuple(float(count) for count in counts)


def _is_for(override: str, member: str, members: Mapping[str, Any]) -> bool:
    """Is a ``key=value`` for this member: by its name, or because it names none?"""
    first = override.partition("=")[0].partition(".")[0].strip()
    return first == member or first not in members


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables with ``above`` laid over ``below``; a table of another ``kind`` replaces the one below it."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        if isinstance(value, Mapping) and isinstance(lower, Mapping) and value.get("kind") in (None, lower.get("kind")):
            value = _merged(lower, value)
        merged[key] = value
    return merged
