"""train: one run, or one per seed, fold, member or feature and their ensemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from aupipe.cli.completion import FEATURES, RECIPE, TASK
from aupipe.cli.context import WHERE
from aupipe.cli.options import (
    FiniteRange,
    config_options,
    existing_store,
    json_option,
    require_config,
    resolve,
    split_list,
)
from aupipe.cli.recipe_features import extract_command, task_of
from aupipe.cli.train_report import warn_idle
from aupipe.cli.train_request import TrainRequest, parse_folds, parse_seeds, refuse_other_content, resumed_request
from aupipe.cli.train_split import check_split_options
from aupipe.cli.train_sweep import SweepCommand, read_sweep
from aupipe.cli.training import run_request
from aupipe.cli.work import Place, place_options
from aupipe.errors import UsageError


@click.command(cls=SweepCommand)
@click.option(
    "--recipe",
    type=RECIPE,
    help="Recipe: a name such as tcn or best, or a TOML file. Default: [train] recipe.",
)
@click.option("--task", type=TASK, help="au, expr, va, or another label set of the data set. Default: [train] task.")
@click.option(
    "--feature",
    "features",
    type=FEATURES,
    multiple=True,
    help="Features to train on; several separated by commas. Default: the recipe's.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value of the recipe, e.g. epochs=20."
)
@click.option(
    "--sweep",
    multiple=True,
    metavar="KEY=VALUE,VALUE ...",
    help="Search over these values, by nested cross-validation (--folds), e.g. lr=1e-4,3e-4 head.width=32,64.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Processes that train several runs beside each other; with --scheduler, on each machine.",
)
@click.option("--extend", is_flag=True, help="Add the values of --sweep to the finished search in --out.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run. Default: runs/<time>-<recipe>-<task>.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="Continue the stopped training in this folder."
)
@click.option(
    "--seed",
    "seeds",
    default="0",
    show_default=True,
    help="Random seed; several separated by commas: one run each, and their mean.",
)
@click.option(
    "--folds", metavar="N|FILE", help="Cross-validation by video: the number of folds, or a JSON file {name: [ids]}."
)
@click.option("--fold", "only", multiple=True, metavar="NAME", help="Train only these of the --folds, such as fold2.")
@click.option(
    "--on",
    type=click.Choice(["train", "all"]),
    default="train",
    help="all: the validation split too. Without --folds or --dev nothing is held out then: all epochs are trained, "
    "and no score is known.",
)
@click.option(
    "--dev",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=None,
    metavar="SHARE",
    help="Choose the epoch on this share of the people or videos of the training split, such as 0.1.",
)
@WHERE
@click.option(
    "--per-feature",
    "--apart",
    "per_feature",
    is_flag=True,
    help="Train one run per feature, and combine them in a weighted mean. --apart is the former name.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Threads of torch; more are slower on a busy machine.",
)
@click.option("--amp", is_flag=True, help="Run the head in bfloat16.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the head with torch.compile.")
@click.option(
    "--deterministic", is_flag=True, help="Use deterministic algorithms only, also on a GPU; fail where there is none."
)
@click.option("--allow-missing", is_flag=True, help="Train without the recordings that lack features.")
@place_options
@config_options
@json_option
def train(
    recipe: str | None,
    task: str | None,
    features: tuple[str, ...],
    overrides: tuple[str, ...],
    sweep: tuple[str, ...],
    extend: bool,
    out: Path | None,
    resume: Path | None,
    seeds: str,
    folds: str | None,
    only: tuple[str, ...],
    on: str,
    dev: float | None,
    where: tuple[str, ...],
    per_feature: bool,
    threads: int,
    amp: bool,
    compiled: bool,
    deterministic: bool,
    allow_missing: bool,
    place: Place,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Train a head on stored features, and keep the epoch with the best score on the validation split.

    A recipe with several members (best), several seeds, --folds and --per-feature train several runs and their mean,
    the ensemble. Members and features are weighted by their scores on held-out recordings.

    \b
    Examples:
      aupipe train --recipe tcn --task au
      aupipe train --recipe tcn-transformer --task va --set epochs=20 --set optimiser.lr=1e-4
      aupipe train --recipe best --seed 0,1,2
      aupipe train --recipe best --folds 5          # evaluate and predict then use the mean of the five
      aupipe train --recipe usc-multimodal --dev 0.1          # the validation split is left for the score
      aupipe train --recipe tmf-ensemble --on all --where scene=reaction --set epochs=20
      aupipe train --recipe baseline --feature hog,blendshapes --per-feature --folds 5
      aupipe train --recipe tcn --sweep lr=1e-4,3e-4 head.width=32,64 --folds 5 --jobs 4
      aupipe train --recipe baseline --folds 5 --cpu --scheduler scheduler.json   # on the workers of a Dask scheduler
      aupipe train --resume runs/20260101-120000-best-au
    """
    from aupipe.train.ensemble_recipe import ensemble_recipe_from_json, load_ensemble_recipe

    if resume is not None:
        given: dict[str, Any] = {"--recipe": recipe, "--task": task, "--feature": features, "--set": overrides}
        given |= {"--out": out, "--folds": folds, "--fold": only, "--dev": dev, "--where": where, "--amp": amp}
        given |= {"--sweep": sweep, "--extend": extend}
        if extra := [name for name, value in given.items() if value]:
            raise UsageError(f"--resume uses the settings of that run: leave out {', '.join(extra)}")
        request, out = resumed_request(resume), resume
        kept = {"train.recipe": request.recipe_file or None, "train.task": request.task}
        config = require_config(resolve(config_file, store, **kept))
    else:
        config = require_config(resolve(config_file, store, **{"train.recipe": recipe, "train.task": task}))
        request = TrainRequest(
            {},
            config.train.task,
            tuple(split_list(features) or config.train.features),
            parse_seeds(seeds),
            parse_folds(folds),
            on,
            allow_missing,
            deterministic,
            threads,
            tuple(split_list(only)),
            dev or 0.0,
            where,
            recipe_file=str(Path(file).absolute()) if (file := config.train.recipe).endswith(".toml") else "",
        )
        check_split_options(request, bool(sweep))  # this, and what is at --out, before libraries are loaded
        refuse_other_content(out)
        how = [*overrides, *(["amp=true"] if amp else [])], per_feature, task_of(config, config.train.task)
        chosen = load_ensemble_recipe(config.train.recipe, *how)
        warn_idle(config.train.recipe, *how)
        request = replace(request, recipe=chosen.to_json(), sweep=read_sweep(sweep, config.train.recipe, *how))
    command = extract_command(config, ensemble_recipe_from_json(request.recipe), request.task)
    opened = existing_store(config, command)
    run_request(config, opened, request, out, resume is not None, place, compiled, extend, as_json)
