"""train: one run, one per seed, or one per fold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
from aupipe.cli.order import ORDER_FILE, Order, folds_of, numbers, read_order, write_order
from aupipe.config import Config
from aupipe.errors import AupipeError, UsageError
from aupipe.types import Recording, Task

if TYPE_CHECKING:
    from aupipe.store.base import Store
    from aupipe.train.crossval import Fold
    from aupipe.train.run import Run

TASKS = ("au", "expr", "va")


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
@click.option("--apart", is_flag=True, help="A run per feature, and their mean: no feature drowns another.")
@click.option("--threads", default=1, show_default=True, help="Torch threads; more are slower on a busy machine.")
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
    apart: bool,
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

    \b
    Examples:
      aupipe train --recipe tcn --task au
      aupipe train --recipe tcn-transformer --task va --set epochs=20 --set optimiser.lr=1e-4
      aupipe train --recipe best --seed 0,1,2
      aupipe train --recipe best --folds 5          # then evaluate and predict by the mean of the five
      aupipe train --recipe baseline --feature hog,blendshapes --apart --folds 5
      aupipe train --resume runs/20260101-120000-best-au
    """
    from aupipe.train.recipe import load_recipe

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
        chosen = load_recipe(config.train.recipe, [*overrides, *(["amp=true"] if amp else [])])
        order = Order(
            chosen.name,
            chosen.to_json(),
            config.train.task,
            tuple(split_list(features) or config.train.features),
            numbers(seeds),
            folds_of(folds),
            on,
            apart,
            allow_missing,
            deterministic,
            threads,
        )
        out = out or _new_run_folder(config, chosen.name)
    try:
        _carry_out(config, existing_store(config), order, out, pick_devices(gpu, cpu)[0], compiled, as_json)
    except KeyboardInterrupt:
        click.echo(f"stopped. Go on with: aupipe train --resume {out}", err=True)
        raise


def _carry_out(
    config: Config, store: Store, order: Order, out: Path, device: str, compiled: bool, as_json: bool
) -> None:
    """Train what was ordered, or what is left of it, and show how it went."""
    from aupipe.train.recipe import recipe_from
    from aupipe.train.run import load_run

    if order.folds is not None and len(order.seeds) > 1:
        raise UsageError("folds with several seeds: give one of the two")
    recipe = recipe_from(order.recipe, order.name)
    data = gather(config, store, recipe, order.task, order.features, order.allow_missing)
    options: dict[str, Any] = {
        "labels": data.labels,
        "features": data.features,
        "recipe": replace(recipe, features=tuple(data.features)),
        "task": order.task,
        "device": device,
        "threads": order.threads,
        "allow_missing": order.allow_missing,
        "deterministic": order.deterministic,
        "compiled": compiled,
    }
    if (out / "run.json").is_file() and not (out / ORDER_FILE).is_file():
        raise UsageError(f"{out}: a run is there already: give another folder")
    fresh = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    write_order(order, out)
    try:
        if order.folds is None and len(order.seeds) == 1 and not order.apart:
            if (out / "run.json").is_file() and load_run(out).finished:
                click.echo(f"{out} is trained already", err=True)
                run = load_run(out)
            else:
                run = _fit(store, data.train, data.validation, out, order.seeds[0], options)
            _show_run(run, store, data, as_json)
        else:
            _show_several(_fit_several(store, data, order, out, options), out, store, data, order, as_json)
    except AupipeError:
        if fresh and {item.name for item in out.iterdir()} == {ORDER_FILE}:  # refused before anything was trained
            (out / ORDER_FILE).unlink()
            out.rmdir()
        raise


def _fit(
    store: Store, train: Sequence[Recording], validation: Sequence[Recording], out: Path, seed: int, options: Any
) -> Run:
    from aupipe.train.fit import fit

    def progress(line: str) -> None:
        click.echo(line, err=True)

    return fit(store, train=train, validation=validation, out=out, seed=seed, resume=True, progress=progress, **options)


def _fit_several(store: Store, data: Data, order: Order, out: Path, options: Any) -> list[Run]:
    """A run per seed or fold and, if apart, per feature, each in a folder of its own; finished ones are kept."""
    from aupipe.train.crossval import Fold
    from aupipe.train.run import load_run

    if order.folds is None:
        members = [(Fold(f"seed{seed}", tuple(data.train), tuple(data.validation)), seed) for seed in order.seeds]
    else:
        members = [(fold, order.seeds[0]) for fold in _divide(data, order)]
    parts = [(f"-{name}", {name: key}) for name, key in data.features.items()] if order.apart else [("", data.features)]
    runs = []
    for (fold, seed), (suffix, features) in product(members, parts):
        folder = out / f"{fold.name}{suffix}"
        if (folder / "run.json").is_file() and load_run(folder).finished:
            runs.append(load_run(folder))
            continue
        sizes = f"{len(fold.train)} recordings to train on, {len(fold.validation)} held out"
        click.echo(f"{folder.name}: {sizes}", err=True)
        recipe = replace(options["recipe"], features=tuple(features))
        own = {**options, "features": features, "recipe": recipe}
        runs.append(_fit(store, fold.train, fold.validation, folder, seed, own))
    return runs


def _divide(data: Data, order: Order) -> list[Fold]:
    from aupipe.train.crossval import custom_folds, group_folds

    recordings = data.train + (data.validation if order.on == "all" else [])
    if isinstance(order.folds, int):
        frames = {name: len(labels) for name, labels in data.labels.items()}
        return group_folds(recordings, order.folds, order.seeds[0], frames)
    return custom_folds(recordings, order.folds or {})


def _show_run(run: Run, store: Store, data: Data, as_json: bool) -> None:
    from aupipe.cli.scene import bounds, trivial
    from aupipe.train.predict import predict

    recordings = [r for r in data.validation if r.id in run.validation]
    labels = {r.id: data.labels[r.id] for r in data.validation if r.id in data.labels}
    spread = bounds(predict(run, store, recordings), labels, run.task, 0.5, recordings)
    if as_json:
        document = {"run": str(run.path), "best_epoch": run.best_epoch, "scores": run.scores.to_json()}
        click.echo(json.dumps(document | {"spread": spread.to_json() if spread else None}))
        return
    click.echo(run.scores.table(trivial(labels, run.task), name=run.recipe.name, spread=spread))
    click.echo(f"run: {run.path} (best epoch {run.best_epoch}, chosen on these very recordings)")
    if (run.path / "postprocess.json").is_file():
        click.echo("postprocess.json was fitted on these recordings too: it is for others")
    click.echo(f"next: aupipe predict {run.path}")


def _show_several(runs: list[Run], out: Path, store: Store, data: Data, order: Order, as_json: bool) -> None:
    """Mean and spread of the runs, their ensemble, and what held-out recordings say of it."""
    from aupipe.cli.scene import bounds, trivial
    from aupipe.train.crossval import summarise
    from aupipe.train.evaluate import evaluate
    from aupipe.train.model import FILE, load_model, predict_held_out, save_ensemble
    from aupipe.train.postprocess import fit_postprocess
    from aupipe.train.run import save_postprocess

    model = load_model(out) if (out / FILE).is_file() else save_ensemble(out, runs)
    summary = summarise(runs)
    everyone = data.train + data.validation
    found = predict_held_out(model, store, everyone)
    labels = {name: data.labels[name] for name in found if name in data.labels}
    scores = replace(
        evaluate(found, labels, order.task), caveats=("each by members not trained on it, their epoch chosen on it",)
    )
    options = runs[0].recipe.postprocess.get(order.task)
    # Runs of several seeds share their validation split: tuned on that, it is for another split.
    if options is not None and not (out / "postprocess.json").is_file():
        save_postprocess(model, fit_postprocess(found, labels, order.task, options))
    spread = bounds(found, labels, order.task, 0.5, [r for r in everyone if r.id in found])
    if as_json:
        document = {"model": str(out), "runs": [str(run.path) for run in runs], "summary": asdict(summary)}
        click.echo(json.dumps(document | {"scores": scores.to_json(), "spread": spread.to_json() if spread else None}))
        return
    click.echo(scores.table(trivial(labels, order.task), name=order.name, spread=spread))
    click.echo(str(summary))
    click.echo(f"ensemble: {out} (the mean of {len(runs)})")
    click.echo(f"next: aupipe evaluate {out}")


def train_run(
    config: Config, store: Store, recipe: Any, *, names: Sequence[str], out: Path, device: str = "cpu", seed: int = 0
) -> Run:
    """Train on the configuration's splits and features."""
    data = gather(config, store, recipe, config.train.task, names or config.train.features)
    options = {"labels": data.labels, "features": data.features, "task": config.train.task, "device": device}
    recipe = replace(recipe, features=tuple(data.features))
    return _fit(store, data.train, data.validation, out, seed, {**options, "recipe": recipe})


def _new_run_folder(config: Config, recipe: str) -> Path:
    base = config.file.parent if config.file else Path.cwd()
    return base / "runs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{recipe}-{config.train.task}"
