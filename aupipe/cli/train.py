"""train: one run, one per seed, or one per fold."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.allocator import keep_freed_memory
from aupipe.cli.data import Data, gather
from aupipe.cli.extract import pick_devices
from aupipe.cli.options import (
    config_options,
    device_options,
    existing_store,
    json_option,
    require_config,
    resolve,
    split_list,
)
from aupipe.cli.order import (
    ORDER_FILE,
    Order,
    check_names,
    data_differences,
    finished_order,
    folds_of,
    identify_data,
    is_finished,
    numbers,
    read_order,
    write_order,
)
from aupipe.cli.output import echo, echo_json
from aupipe.config import Config
from aupipe.errors import AupipeError, UsageError
from aupipe.types import TASKS, Task

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.crossval import Fold
    from aupipe.train.ensemble_recipe import Member
    from aupipe.train.model import Model
    from aupipe.train.run import Run


@click.command()
@click.option("--recipe", metavar="NAME|FILE", help="What to train, over [train] recipe: tcn, best, or a TOML file.")
@click.option("--task", type=click.Choice(TASKS), help="Over [train] task.")
@click.option(
    "--feature", "features", multiple=True, help="Features to train on, over the recipe's; several with commas."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A value of the recipe, e.g. epochs=20.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run. Default: runs/<time>-<recipe>-<task>.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with what was stopped there.")
@click.option(
    "--seed", "seeds", default="0", show_default=True, help="Several with commas: a run each, then their mean."
)
@click.option("--folds", metavar="N|FILE", help="Cross-validation by video: so many folds, or JSON {name: [ids]}.")
@click.option(
    "--on",
    type=click.Choice(["train", "all"]),
    default="train",
    help="What folds divide: the training split, or with validation.",
)
@click.option(
    "--per-feature",
    "--apart",
    "per_feature",
    is_flag=True,
    help="A run per feature, and their weighted mean. --apart is its former name.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Torch threads; more are slower on a busy machine.",
)
@click.option("--amp", is_flag=True, help="Run the head in bfloat16.")
@click.option("--compile", "compiled", is_flag=True, help="Run the head through torch.compile.")
@click.option("--deterministic", is_flag=True, help="On a GPU too: refuse what cannot be computed twice alike.")
@click.option("--allow-missing", is_flag=True, help="Train without the recordings that lack features.")
@device_options
@config_options
@json_option
def train(
    recipe: str | None,
    task: Task | None,
    features: tuple[str, ...],
    overrides: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    seeds: str,
    folds: str | None,
    on: str,
    per_feature: bool,
    threads: int,
    amp: bool,
    compiled: bool,
    deterministic: bool,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Train a head on stored features; the epoch that is best on the validation split is kept.

    A recipe of several members (best), several seeds, folds and --per-feature make a run each and their mean; members
    and features are weighted by what held-out recordings say of them.

    \b
    Examples:
      aupipe train --recipe tcn --task au
      aupipe train --recipe tcn-transformer --task va --set epochs=20 --set optimiser.lr=1e-4
      aupipe train --recipe best --seed 0,1,2
      aupipe train --recipe best --folds 5          # then evaluate and predict by the mean of the five
      aupipe train --recipe baseline --feature hog,blendshapes --per-feature --folds 5
      aupipe train --resume runs/20260101-120000-best-au
    """
    from aupipe.train.ensemble_recipe import load_ensemble_recipe

    if resume is not None:
        given: dict[str, Any] = {
            "--recipe": recipe,
            "--task": task,
            "--feature": features,
            "--set": overrides,
            "--out": out,
        }
        given |= {"--out": out, "--folds": folds, "--amp": amp}
        if extra := [name for name, value in given.items() if value]:
            raise UsageError(f"--resume goes on with what was begun: leave out {', '.join(extra)}")
        order, out = read_order(resume), resume
        config = require_config(resolve(config_file, store, **{"train.task": order.task}))
    else:
        config = require_config(resolve(config_file, store, **{"train.recipe": recipe, "train.task": task}))
        chosen = load_ensemble_recipe(config.train.recipe, [*overrides, *(["amp=true"] if amp else [])], per_feature)
        order = Order(
            chosen.to_json(),
            config.train.task,
            tuple(split_list(features) or config.train.features),
            numbers(seeds),
            folds_of(folds),
            on,
            allow_missing,
            deterministic,
            threads,
        )
    opened, device = existing_store(config), pick_devices(gpu, cpu)[0]
    _carry_out(config, opened, order, out, resume is not None, device, compiled, as_json)


def _carry_out(
    config: Config,
    store: Store,
    order: Order,
    out: Path | None,
    resumed: bool,
    device: str,
    compiled: bool,
    as_json: bool,
) -> None:
    """Train what was ordered into ``out`` (None: a new folder), or what is left of it, and show how it went."""
    keep_freed_memory()
    from aupipe.train.ensemble_recipe import ensemble_recipe_from_json, expand_members
    from aupipe.train.run import load_run

    if order.folds is not None and len(order.seeds) > 1:
        raise UsageError("folds with several seeds: give one of the two")
    check_names(order.features)
    begun = order if resumed else finished_order(out, order) if out is not None else None
    recipe = ensemble_recipe_from_json(order.recipe)
    # What was begun goes on with its features, whatever has been configured since.
    names = order.features or (tuple(order.data.get("features", ())) if resumed else ())
    data = gather(config, store, recipe, order.task, names, order.allow_missing)
    _tell_damaged(data)
    if order.features:  # over those the recipes name
        recipe = recipe.on(order.features)
    options: dict[str, Any] = {
        "labels": data.labels,
        "aux_labels": data.also,
        "task": order.task,
        "device": device,
        "threads": order.threads,
        "allow_missing": order.allow_missing,
        "deterministic": order.deterministic,
        "compiled": compiled,
        "progress": lambda line: echo(line, err=True),
    }
    members = expand_members(recipe, data.features)
    order = replace(order, data=identify_data(data, store))
    if begun is not None and (other := data_differences(begun, order)):
        remedy = "train anew into another folder" if resumed else "choose another --out"
        raise UsageError(f"{out} was begun on other data ({'; '.join(other)}): {remedy}")
    fresh = out is None or not out.exists()
    out = out or _new_run_folder(config, recipe.name)
    out.mkdir(parents=True, exist_ok=True)
    if begun is None:
        write_order(order, out)
    try:
        if is_finished(out):
            echo(f"{out} is trained already", err=True)
        if order.folds is None and len(order.seeds) == 1 and len(members) == 1:
            run = load_run(out) if is_finished(out) else _fit(store, data, out, members[0], order.seeds[0], options)
            _show_run(run, store, data, as_json)
        else:
            from aupipe.train.ensemble import train_ensemble

            model = train_ensemble(store, recipe, _folds(data, order), features=data.features, out=out, **options)
            _show_several(model, store, data, recipe.name, [member.name for member in members], as_json)
    except (AupipeError, OSError):
        if begun is None and {item.name for item in out.iterdir()} == {ORDER_FILE}:  # refused before any training
            (out / ORDER_FILE).unlink()
            if fresh:
                out.rmdir()
        raise
    except KeyboardInterrupt:
        echo(f"stopped. Go on with: aupipe train --resume {out}", err=True)
        raise


def _tell_damaged(data: Data) -> None:
    """Say which of the recordings were made from damaged media: labels may lie beside their rows."""
    if data.damaged:
        names = ", ".join(list(data.damaged)[:3]) + ", ..." * (len(data.damaged) > 3)
        total = len(data.train) + len(data.validation)
        said = f"{len(data.damaged)} of {total} recordings come from damaged media ({names})"
        echo(f"aupipe: {said}: aupipe status --damaged", err=True)


def _fit(store: Store, data: Data, out: Path, member: Member, seed: int, options: Any) -> Run:
    from aupipe.train.fit import fit

    split: dict[str, Any] = {"train": data.train, "validation": data.validation}
    own: dict[str, Any] = {"features": member.features, "recipe": member.recipe, "seed": seed}
    return fit(store, out=out, resume=True, **split, **own, **options)


def _folds(data: Data, order: Order) -> list[tuple[Fold, int]]:
    """What is trained and held out, each with its seed: the split of the data, or folds."""
    from aupipe.train.crossval import Fold, custom_folds, group_folds

    if order.folds is None:
        several = len(order.seeds) > 1
        names = {seed: f"seed{seed}" if several else "" for seed in order.seeds}
        return [(Fold(name, tuple(data.train), tuple(data.validation)), seed) for seed, name in names.items()]
    recordings = data.train + (data.validation if order.on == "all" else [])
    if isinstance(order.folds, int):
        frames = {name: len(labels) for name, labels in data.labels.items()}
        folds = group_folds(recordings, order.folds, order.seeds[0], frames)
    else:
        folds = custom_folds(recordings, order.folds)
    return [(fold, order.seeds[0]) for fold in folds]


def _show_run(run: Run, store: Store, data: Data, as_json: bool) -> None:
    from aupipe.cli.scene import bounds, trivial
    from aupipe.train.predict import predict

    recordings = [r for r in data.validation if r.id in run.validation]
    labels = {r.id: data.labels[r.id] for r in data.validation if r.id in data.labels}
    spread = bounds(predict(run, store, recordings), labels, run.task, 0.5, recordings)
    if as_json:
        document: dict[str, Any] = {"run": str(run.path), "best_epoch": run.best_epoch, "scores": run.scores.to_json()}
        document["damaged"] = data.damaged
        echo_json(document | {"spread": spread.to_json() if spread else None})
        return
    echo(*run.scores.table(trivial(labels, run.task), name=run.recipe.name, interval=spread).split("\n"))
    echo(f"run: {run.path} (best epoch {run.best_epoch}, chosen on these very recordings)")
    if (run.path / "postprocess.json").is_file():
        echo("postprocess.json was fitted on these recordings too: it is for others")
    echo(f"next: aupipe predict {run.path}")


def _show_several(model: Model, store: Store, data: Data, name: str, members: list[str], as_json: bool) -> None:
    """Mean and spread of the runs, their weights, and what held-out recordings say of the whole."""
    from aupipe.cli.scene import bounds, trivial
    from aupipe.train.crossval import summarise
    from aupipe.train.evaluate import evaluate
    from aupipe.train.model_prediction import predict_held_out

    summary = summarise(model.runs)
    everyone = data.train + data.validation
    found = predict_held_out(model, store, everyone)
    labels = {name: data.labels[name] for name in found if name in data.labels}
    weighed = " and their weights" if model.weighed_on else ""
    caveat = f"each by members not trained on it, their epoch{weighed} chosen on it"
    scores = replace(evaluate(found, labels, model.task), caveats=(caveat,))
    spread = bounds(found, labels, model.task, 0.5, [r for r in everyone if r.id in found])
    folds = len(model.runs) // len(members)  # a weight is the same in all of them
    weights = dict(zip(members, model.weights[::folds], strict=False))
    if as_json:
        document = {"model": str(model.path), "runs": [str(run.path) for run in model.runs], "weights": weights}
        document |= {"summary": asdict(summary), "scores": scores.to_json(), "damaged": data.damaged}
        echo_json(document | {"spread": spread.to_json() if spread else None})
        return
    echo(*scores.table(trivial(labels, model.task), name=name, interval=spread).split("\n"))
    echo(str(summary))
    if weights:
        echo("weights: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    echo(f"ensemble: {model.path} (the {'weighted ' if weights else ''}mean of {len(model.runs)})")
    post = model.post
    if {r.id for r in data.validation} & {*model.weighed_on, *(post.tuned_on if post else ())}:
        echo(f"next: aupipe predict {model.path} (an honest score needs --folds, or another split)")
    else:
        echo(f"next: aupipe evaluate {model.path}")


def _new_run_folder(config: Config, recipe: str) -> Path:
    """Make a folder that nobody else has, also where several commands begin in one second."""
    base = config.file.parent if config.file else Path.cwd()
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{recipe}-{config.train.task}"
    for number in count(1):
        out = base / "runs" / (name if number == 1 else f"{name}-{number}")
        out.parent.mkdir(exist_ok=True)
        try:
            out.mkdir()
        except FileExistsError:
            continue
        return out
    raise AssertionError
