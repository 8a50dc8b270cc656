"""train: one run, or one per seed, fold, member or feature and their ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.allocator import keep_freed_memory
from aupipe.cli.check import warn_flagged
from aupipe.cli.context import WHERE, warn_random
from aupipe.cli.data import gather
from aupipe.cli.options import (
    FiniteRange,
    config_options,
    device_options,
    existing_store,
    json_option,
    pick_devices,
    require_config,
    resolve,
    split_list,
)
from aupipe.cli.output import echo
from aupipe.cli.recipe_features import extract_command, task_of
from aupipe.cli.signals import say_how_to_continue
from aupipe.cli.train_log import remove_untrained, training_log
from aupipe.cli.train_report import show_ensemble, show_run, warn_damaged, warn_idle
from aupipe.cli.train_request import (
    TrainRequest,
    data_differences,
    find_finished,
    identify_data,
    is_finished,
    new_run_folder,
    parse_folds,
    parse_seeds,
    refuse_repeated,
    resumed_request,
    write_request,
)
from aupipe.cli.train_split import check_split_options, describe_worth, divide, needed_splits
from aupipe.cli.train_sweep import SweepCommand, points_of, read_sweep, run_sweep, show_sweep, with_points
from aupipe.config import Config
from aupipe.errors import AupipeError, UsageError

if TYPE_CHECKING:
    from aupipe.store import Store


@click.command(cls=SweepCommand)
@click.option(
    "--recipe", metavar="NAME|FILE", help="Recipe: a name such as tcn or best, or a TOML file. Default: [train] recipe."
)
@click.option("--task", help="au, expr, va, or another label set of the data set. Default: [train] task.")
@click.option(
    "--feature",
    "features",
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
@click.option("--jobs", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes of a --sweep.")
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
@device_options
@config_options
@json_option
def train(
    recipe: str | None,
    task: str | None,
    features: tuple[str, ...],
    overrides: tuple[str, ...],
    sweep: tuple[str, ...],
    jobs: int,
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
    gpu: str | None,
    cpu: bool,
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
      aupipe train --resume runs/20260101-120000-best-au
    """
    from aupipe.train.ensemble_recipe import ensemble_recipe_from_json, load_ensemble_recipe

    if resume is not None:
        given: dict[str, Any] = {"--recipe": recipe, "--task": task, "--feature": features, "--set": overrides}
        given |= {"--out": out, "--folds": folds, "--fold": only, "--dev": dev, "--where": where, "--amp": amp}
        given |= {"--sweep": sweep}
        if extra := [name for name, value in given.items() if value]:
            raise UsageError(f"--resume uses the settings of that run: leave out {', '.join(extra)}")
        request, out = resumed_request(resume), resume
        kept = {"train.recipe": request.recipe_file or None, "train.task": request.task}
        config = require_config(resolve(config_file, store, **kept))
    else:
        config = require_config(resolve(config_file, store, **{"train.recipe": recipe, "train.task": task}))
        changes, label_set = [*overrides, *(["amp=true"] if amp else [])], task_of(config, config.train.task)
        chosen = load_ensemble_recipe(config.train.recipe, changes, per_feature, label_set)
        warn_idle(config.train.recipe, changes, per_feature, label_set)
        request = TrainRequest(
            chosen.to_json(),
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
            sweep=read_sweep(sweep, config.train.recipe, changes, per_feature, label_set),
        )
    command = extract_command(config, ensemble_recipe_from_json(request.recipe), request.task)
    opened, devices = existing_store(config, command), pick_devices(gpu, cpu)
    _train(config, opened, request, out, resume is not None, devices, compiled, jobs, as_json)


def _train(
    config: Config,
    store: Store,
    request: TrainRequest,
    out: Path | None,
    resumed: bool,
    devices: Sequence[str],
    compiled: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Train what is requested, or the rest of it, into ``out`` (None: a new folder), and print the scores."""
    keep_freed_memory()
    from aupipe.train.ensemble_recipe import ensemble_recipe_from_json, expand_members
    from aupipe.train.fit import fit
    from aupipe.train.fit_config import FitConfig, FitData
    from aupipe.train.folder_lock import lock_folder
    from aupipe.train.run import load_run

    check_split_options(request, jobs)
    refuse_repeated(request.features)
    begun = request if resumed else find_finished(out, request) if out is not None else None
    ensemble, points = ensemble_recipe_from_json(request.recipe), points_of(request)
    needs = with_points(ensemble, points)
    # A resumed run keeps its features, also where the configuration has changed. Points have theirs.
    kept = tuple(request.data.get("features", ())) if resumed else ()
    names = kept if points else request.features or kept
    where, needed = request.where, needed_splits(request)
    data = gather(config, store, needs, request.task, names, request.allow_missing, where, needed)
    for member in needs.members:
        refuse_repeated(member.recipe.features)
    warn_damaged(data)
    warn_random([store.spec(feature) for feature in data.features.values()])
    flagged = warn_flagged([recording.id for recording in (*data.train, *data.validation)], store)
    if request.features:  # they replace those of the recipes
        ensemble = ensemble.on(request.features)
    options: dict[str, Any] = {
        "device": devices[0],
        "threads": request.threads,
        "allow_missing": request.allow_missing,
        "deterministic": request.deterministic,
        "compiled": compiled,
    }
    shared: dict[str, Any] = {name: getattr(data, name) for name in ("features", "labels", "aux_labels", "command")}
    members = expand_members(ensemble, data.features)
    for point in points:
        expand_members(point.recipe, data.features)  # refuses what is not there
    folds = divide(data, request)
    request = replace(request, data=identify_data(data, store))
    if begun is not None and (other := data_differences(begun, request)):
        remedy = "train into another folder" if resumed else "choose another --out"
        raise UsageError(f"{out} was begun on other data ({'; '.join(other)}): {remedy}")
    fresh = out is None or not out.exists()
    out = out or new_run_folder(config, ensemble.name)
    out.mkdir(parents=True, exist_ok=True)
    if begun is None:
        write_request(request, out)
    try:
        if is_finished(out):
            echo(f"{out} is trained already", err=True)
        if points:
            if not is_finished(out):
                with lock_folder(out), training_log(out, config, request, data, flagged, devices[0]) as tell:
                    run_sweep(request, data, [fold for fold, _ in folds], store, out, options, devices, jobs, tell)
            show_sweep(out, as_json)
        elif request.folds is None and len(request.seeds) == 1 and len(members) == 1:
            fold, seed = folds[0]
            if is_finished(out):
                run = load_run(out)
            else:
                splits = FitData(fold.train, fold.validation, **shared | {"features": members[0].features})
                how = FitConfig(members[0].recipe, data.task, seed, **options)
                with training_log(out, config, request, data, flagged, devices[0]) as tell:
                    run = fit(store, splits, how, out, resume=True, progress=tell)
            worth = describe_worth(data, request, len(run.validation), False)
            show_run(run, store, data, fold.validation, worth, as_json)
        else:
            from aupipe.train.ensemble import train_ensemble

            with lock_folder(out), training_log(out, config, request, data, flagged, devices[0]) as tell:
                options |= {"task": data.task, "out": out, "progress": tell}
                model = train_ensemble(store, ensemble, folds, **shared, **options)
            held_out = len({name for run in model.runs for name in run.validation})
            worth = describe_worth(data, request, held_out, bool(model.weighed_on))
            show_ensemble(model, store, data, ensemble.name, [member.name for member in members], worth, as_json)
    except (AupipeError, OSError):
        if begun is None:
            remove_untrained(out, fresh)
        raise
    except KeyboardInterrupt:
        say_how_to_continue(f"to continue: aupipe train --resume {out}")
        raise
