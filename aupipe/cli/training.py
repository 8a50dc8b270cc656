"""The training that a request asks for: one run, several and their mean, or a search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.allocator import keep_freed_memory
from aupipe.cli.check import warn_flagged
from aupipe.cli.context import warn_random
from aupipe.cli.data import gather
from aupipe.cli.output import echo
from aupipe.cli.recipe_features import task_of
from aupipe.cli.train_log import training_log, unfinished
from aupipe.cli.train_parts import train_runs
from aupipe.cli.train_report import show_ensemble, show_run, warn_damaged
from aupipe.cli.train_request import (
    TrainRequest,
    extended_request,
    find_finished,
    identify_data,
    is_finished,
    new_run_folder,
    refuse_other_data,
    refuse_repeated,
    reopen_search,
    write_request,
)
from aupipe.cli.train_split import describe_worth, divide, needed_splits
from aupipe.cli.train_sweep import points_of, run_sweep, show_sweep, with_points
from aupipe.cli.work import Place
from aupipe.config import Config
from aupipe.errors import UsageError
from aupipe.train.folder_lock import lock_folder

if TYPE_CHECKING:
    from aupipe.store import Store


def run_request(
    config: Config,
    store: Store,
    request: TrainRequest,
    out: Path | None,
    resumed: bool,
    place: Place,
    compiled: bool,
    extend: bool,
    as_json: bool,
) -> None:
    """Train what is requested, or the rest of it, into ``out`` (None: a new folder), and print the scores.

    ``extend``: ``out`` holds a finished search, which gets the points of the request besides its own.
    """
    keep_freed_memory()
    from aupipe.train.ensemble import EnsembleRun, plan_runs, train_ensemble
    from aupipe.train.ensemble_recipe import ensemble_recipe_from_json, expand_members
    from aupipe.train.fit import fit
    from aupipe.train.fit_config import FitConfig, FitData
    from aupipe.train.run import load_run

    devices = place.devices()
    refuse_repeated(request.features)
    begun = request if resumed else find_finished(out, request, extend) if out is not None else None
    if extend:
        request = extended_request(out, begun, request, task_of(config, request.task))
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
    folds, several = divide(data, request), bool(points) or request.folds is not None
    if not (several := several or len(request.seeds) * len(members) > 1) and place.jobs > 1:
        raise UsageError("--jobs is for several runs: --sweep, --folds, several --seed or members")
    request = replace(request, data=identify_data(data, store))
    refuse_other_data(begun, request, out, "train into another folder" if resumed else "choose another --out")
    fresh = out is None or not out.exists()
    out = out or new_run_folder(config, ensemble.name)
    out.mkdir(parents=True, exist_ok=True)
    if begun is None:
        write_request(request, out)
    elif extend:
        reopen_search(request, out)
    with unfinished(out, fresh, begun is None):
        if is_finished(out):
            echo(f"{out} is trained already", err=True)
        if points:
            if not is_finished(out):
                with lock_folder(out), training_log(out, config, request, data, flagged, place.words(devices)) as tell:
                    run_sweep(request, data, [fold for fold, _ in folds], store, out, options, place, devices, tell)
            show_sweep(out, as_json)
        elif not several:
            fold, seed = folds[0]
            if is_finished(out):
                run = load_run(out)
            else:
                splits = FitData(fold.train, fold.validation, **shared | {"features": members[0].features})
                how = FitConfig(members[0].recipe, data.task, seed, **options)
                with training_log(out, config, request, data, flagged, place.words(devices)) as tell:
                    if place.is_elsewhere:
                        alone = EnsembleRun(fold, seed, replace(members[0], name=""))
                        train_runs([alone], data, store, out, options, place, devices, tell)
                    run = fit(store, splits, how, out, resume=True, progress=tell)
            worth = describe_worth(data, request, len(run.validation), False)
            show_run(run, store, data, fold.validation, worth, as_json)
        else:
            with lock_folder(out), training_log(out, config, request, data, flagged, place.words(devices)) as tell:
                if place.is_elsewhere and not is_finished(out):
                    runs = plan_runs(ensemble, folds, data.features)
                    train_runs(runs, data, store, out, options, place, devices, tell)
                shared |= {"task": data.task, "out": out, "progress": tell}
                model = train_ensemble(store, ensemble, folds, **shared, **options)
            held_out = len({name for run in model.runs for name in run.validation})
            worth = describe_worth(data, request, held_out, bool(model.weighed_on))
            show_ensemble(model, store, data, ensemble.name, [member.name for member in members], worth, as_json)
