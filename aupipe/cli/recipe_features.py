"""The features of a recipe in a project: its [[encoder]] tables beside those of aupipe.toml, and the text of tables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.cli.output import echo
from aupipe.config import DEFAULT_ENCODERS, Config, load_config
from aupipe.dataset import open_dataset
from aupipe.documents import parse_toml
from aupipe.encoder_kinds import ENCODERS
from aupipe.encoder_tables import EncoderConfig, encoder_table, read_encoders
from aupipe.errors import UsageError
from aupipe.extract.weights import is_random
from aupipe.files import as_argument, write_file
from aupipe.registry import nearest
from aupipe.tasks import OFFICIAL, Task, as_task

if TYPE_CHECKING:
    from aupipe.train.recipe import DataNeeds


def task_of(config: Config, name: str) -> Task:
    """The label set of this name. Raises UsageError where the data set has none."""
    known = OFFICIAL | {task.name: task for task, _ in config.dataset.tasks}
    return known[name] if name in known else open_dataset(config.dataset).task(name)


def extract_command(config: Config, recipe: DataNeeds, task: str) -> str:
    """The command that makes the features of a recipe for a task; '' for a recipe without tables."""
    if not recipe.encoders:
        return ""
    said = config.train.recipe  # a file, perhaps, of which a recipe knows only the stem
    name = said if Path(said).stem == recipe.name else recipe.name
    return f"aupipe extract --recipe {shlex.quote(name)} --task {shlex.quote(task)}"


def with_encoders(config: Config, encoders: Iterable[EncoderConfig], warn: bool = True) -> Config:
    """The configuration with these encoders besides its own.

    Where it has another one of the same name, its own stays, and is printed with the difference. One with random
    weights, as `aupipe reproduce --weights random` writes it, goes before: every command then reads the same feature.
    """
    encoders = list(encoders)
    random = {one.name for one in encoders if is_random(str(one.params.get("weights", "")))}
    default = config.origin.get("encoder") == "default"
    own = {} if default else {one.name: one for one in config.encoders if one.name not in random}
    found = list(own.values())
    for encoder in encoders:
        if encoder.name not in own:
            found.append(encoder)
        elif warn and (other := differing_keys(own[encoder.name], encoder)):
            echo(f"aupipe: feature {encoder.name!r} is that of {config.file}, not the recipe's: {other}", err=True)
    known = {one.name for one in found}
    found += [] if not default else [one for one in DEFAULT_ENCODERS if one.name not in known]
    return replace(config, encoders=tuple(found))


def recipe_encoders(name_or_path: str, tasks: Sequence[Task], config: Config) -> tuple[EncoderConfig, ...]:
    """The encoders of the features that a recipe names for these tasks, each once.

    A feature without a table in the recipe is that of the configuration. Raises UsageError for a recipe that names no
    features, for a feature without any table, and where two names are one feature.
    """
    from aupipe.train.ensemble_recipe import load_ensemble_recipe

    found: dict[str, EncoderConfig] = {}
    for task in tasks:
        recipe = load_ensemble_recipe(name_or_path, task=task)
        found |= {one.name: one for one in recipe.encoders}
        found |= {name: config.encoder(name) for name in recipe.features if name not in found}
    if not found:
        raise UsageError(
            f"recipe {name_or_path!r} names no features: it trains on those of aupipe.toml, so leave it out"
        )
    refuse_same(found.values(), f"recipe {name_or_path!r}")
    return tuple(found.values())


def narrow_to_recipe(config: Config, recipe: str, task: str | None, names: list[str]) -> tuple[Config, list[str]]:
    """The configuration with the encoders of a recipe, and their names, or of them those in ``names``.

    Raises UsageError as `recipe_encoders` does, and for a name that is no feature of the recipe.
    """
    tasks = recipe_tasks(recipe, task_of(config, task) if task else None)
    encoders = recipe_encoders(recipe, tasks, config)
    known = [one.name for one in encoders]
    if other := next((name for name in names if name not in known), None):
        raise UsageError(
            f"recipe {recipe!r} has no feature {other!r}.{nearest(other, known)} It has {', '.join(known)}"
        )
    return with_encoders(config, encoders), names or known


def recipe_tasks(name_or_path: str, task: Task | None) -> list[Task]:
    """``task``, or else the tasks of the recipe's paper, or all official ones."""
    from aupipe.train.recipe_paper import read_paper

    paper = read_paper(name_or_path, task)
    names = paper.tasks if paper and paper.tasks else tuple(OFFICIAL)
    return [task] if task else [OFFICIAL[name] for name in names]


def refuse_same(encoders: Iterable[EncoderConfig], where: str) -> None:
    """Raise UsageError where two encoders are the same but for their names, defaults included."""
    from aupipe.extract.encoders import build_encoder

    named: dict[Any, str] = {}
    for one in encoders:
        first = named.setdefault((one.kind, build_encoder(one)), one.name)
        if first != one.name:
            raise UsageError(
                f"{where}: features {first!r} and {one.name!r} are the same numbers: only their names differ"
            )


def differing_keys(own: EncoderConfig, other: EncoderConfig) -> str:
    """The parameters in which two encoders of one name differ, as ``model = 'b0', not 'b2'``; '' for equal ones."""
    from aupipe.extract.encoders import build_encoder

    if own.kind == other.kind and build_encoder(own) == build_encoder(other):
        return ""
    here, there = encoder_table(own), encoder_table(other)
    names = [name for name in dict.fromkeys([*here, *there]) if here.get(name) != there.get(name)]
    return "; ".join(f"{name} = {here.get(name, 'default')!r}, not {there.get(name, 'default')!r}" for name in names)


def add_encoders(text: str, encoders: Sequence[EncoderConfig], where: Path) -> tuple[str, list[str]]:
    """The text of a configuration with the tables that it lacks at its end, and their names; its lines stay.

    A file without encoders gets those too that it has by default, as it would lose them.

    Raises UsageError for tables of the same name that differ, and for a file that tables cannot be added to.
    """
    content = parse_toml(text.encode())
    own = {one.name: one for one in read_encoders(content.get("encoder", []), str(where))}
    wanted = {one.name: one for one in encoders}
    if not own:
        wanted |= {one.name: one for one in DEFAULT_ENCODERS if one.name not in wanted}
    wrong = {name: differing_keys(own[name], one) for name, one in wanted.items() if name in own}
    if shown := [f"{name!r} ({keys})" for name, keys in wrong.items() if keys]:
        raise UsageError(f"{where} has other features of these names: {'; '.join(shown)}: rename them, and try again")
    missing = [one for name, one in wanted.items() if name not in own]
    added = "\n\n".join([text.rstrip("\n"), *map(encoder_text, missing)]) + "\n"
    try:
        if read_encoders(parse_toml(added.encode())["encoder"], str(where)) != (*own.values(), *missing):
            raise ValueError
    except ValueError:
        raise UsageError(f"{where}: [[encoder]] tables cannot be added at its end: write encoders as tables") from None
    return added, [one.name for one in missing]


def add_recipe(target: Path, recipe: str, task: str | None) -> list[str]:
    """Add the tables of a recipe's features to a configuration file; what was done, in lines for the user."""
    config = load_config(target)
    chosen = task_of(config, task) if task else None
    encoders = recipe_encoders(recipe, recipe_tasks(recipe, chosen), config)
    text, added = add_encoders(target.read_text(encoding="utf-8"), encoders, target)
    if added:
        write_file(target, text, overwrite=True)
    there = [one.name for one in encoders if one.name not in added]
    lines = [f"added to {target}: {', '.join(added)}" if added else f"{target}: nothing to add"]
    lines += [f"there already: {', '.join(there)}"] if there else []
    kind = _detector_of(recipe, chosen).get("kind", config.faces.detector)
    if kind != config.faces.detector:
        lines.append(f"faces stay with {config.faces.detector}; recipe {recipe} names {kind}: [faces] detector")
    return [*lines, f"next: aupipe extract --recipe {as_argument(recipe)}{f' --task {task}' if task else ''}"]


def configured_by(recipe: str, task: str | None) -> tuple[dict[str, str], str]:
    """Options of `template` for a recipe, and the detector that it names, or ''."""
    chosen = as_task(task) if task else None
    encoders = recipe_encoders(recipe, recipe_tasks(recipe, chosen), Config())
    params = dict(_detector_of(recipe, chosen))
    kind = str(params.pop("kind", ""))
    options = {"recipe": recipe, "encoders": "\n".join(f"{encoder_text(one)}\n" for one in encoders)}
    options |= {"task": task} if task else {}
    return options | ({"detector_table": f"[detector]\n{table_text(params)}\n"} if params else {}), kind


def _detector_of(recipe: str, task: Task | None) -> Mapping[str, Any]:
    """The [detector] table of a recipe; empty where it has none."""
    from aupipe.train.ensemble_recipe import load_ensemble_recipe

    return load_ensemble_recipe(recipe, task=task).detector


def encoder_text(encoder: EncoderConfig) -> str:
    """An ``[[encoder]]`` table as TOML, without what follows from its kind.

    A kind of another package keeps its modality: the file is then read without importing that package.
    """
    table = encoder_table(encoder)
    if encoder.kind in ENCODERS.table:
        del table["modality"]
    if encoder.name == encoder.kind:
        del table["name"]
    return "[[encoder]]\n" + table_text(table)


def recipe_file_text(tables: Mapping[str, Any]) -> str:
    """A recipe file of these tables."""
    plain = {key: value for key, value in tables.items() if key != "encoder" and not isinstance(value, Mapping)}
    encoders = ["[[encoder]]\n" + table_text(table) for table in tables.get("encoder", ())]
    return "\n\n".join([table_text(plain), *_sections(tables, ""), *encoders]) + "\n"


def _sections(tables: Mapping[str, Any], prefix: str) -> list[str]:
    """The tables among the values, each with its heading; those in them after it."""
    found = []
    for key, value in tables.items():
        if isinstance(value, Mapping) and value:
            plain = {name: one for name, one in value.items() if not isinstance(one, Mapping)}
            found += [f"[{prefix}{key}]\n{table_text(plain)}"] if plain else []
            found += _sections(value, f"{prefix}{key}.")
    return found


def table_text(table: Mapping[str, Any]) -> str:
    """Keys and their values as lines of TOML."""
    return "\n".join(f"{key} = {value_text(value)}" for key, value in table.items())


def value_text(value: Any) -> str:
    """A value as TOML, which writes texts and numbers as JSON does."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {value_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
