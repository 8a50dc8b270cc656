"""Train the members of an ensemble recipe on every fold, and combine them by a weighted mean.

Members are weighted by `aupipe.train.member_weights` on what their runs held out: a score on recordings that a member
was trained on says nothing about its use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.store import Store
from aupipe.tasks import Task, as_task
from aupipe.train.combination import mean
from aupipe.train.crossval import Fold
from aupipe.train.ensemble_recipe import EnsembleRecipe, Member, expand_members, refuse_shared_names
from aupipe.train.fit import fit
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.member_weights import choose_weights
from aupipe.train.model import FILE, Model, load_model, mean_of, save_ensemble
from aupipe.train.model_prediction import predict_unseen
from aupipe.train.postprocess import apply_postprocess, fit_where_possible
from aupipe.train.predictions import Predictions
from aupipe.train.run import POST_FILE, Run, holds_run, save_postprocess
from aupipe.types import Labels, Recording

log = logging.getLogger(__name__)


def train_ensemble(
    store: Store,
    recipe: EnsembleRecipe,
    folds: Sequence[tuple[Fold, int]],
    *,
    features: Mapping[str, str],
    labels: Mapping[str, Labels],
    task: Task | str,
    out: Path,
    aux_labels: Mapping[str, Mapping[str, Labels]] | None = None,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Model:
    """A run per fold (with its seed) and member, in folders below ``out``; their weighted mean as a model in ``out``.

    ``options`` are further fields of `aupipe.train.fit_config.FitConfig`. Finished runs are kept and an unfinished one
    is resumed, so the same call again continues where it stopped. Weights, thresholds and smoothing are fitted on what
    the runs held out; those recordings are refused when the model is scored.

    Raises UsageError as `fit` and `save_ensemble` do, and where a folder below ``out`` holds a finished run of
    something else.
    """
    members = expand_members(recipe, features)
    names = [_folder_name(fold, member) for fold, _ in folds for member in members]
    refuse_shared_names(names, "folds, members and features")
    runs: list[list[Run]] = [[] for _ in members]  # per member, in the order of the folds
    for fold, seed in folds:
        for own, member in zip(runs, members, strict=True):
            folder = out / _folder_name(fold, member)
            if progress and not holds_run(folder):
                seen = counted(len(fold.train), "recording")
                progress(f"{folder.name}: {seen} to train on, {len(fold.validation)} held out")
            data = FitData(fold.train, fold.validation, labels, member.features, aux_labels or {}, command)
            config = FitConfig(member.recipe, as_task(task), seed, **options)
            own.append(fit(store, data, config, folder, resume=True, progress=progress))
    flat = [run for own in runs for run in own]
    options_of = members[0].recipe.postprocess_for(as_task(task))
    model = load_model(out) if (out / FILE).is_file() else None
    if model is not None and [run.id for run in model.runs] != [run.id for run in flat]:
        raise UsageError(f"{out}: holds an ensemble of other runs: give another folder")
    if model is not None and (options_of is None or (out / POST_FILE).is_file()):
        return model
    everyone = list({item.id: item for fold, _ in folds for item in fold.validation}.values())
    where = {key: options[key] for key in ("device", "threads") if key in options}
    held = held_out_of_all([mean_of(own) for own in runs], store, everyone, **where)
    known = {name: labels[name] for name in held[0] if name in labels}
    weights = choose_weights(held, known, task) if len(members) > 1 and known else (1.0,) * len(members)
    shares = [weight for weight, own in zip(weights, runs, strict=True) for _ in own]
    if not known and len(members) > 1:
        log.warning("no recording was held out, so all members have the same weight")
    post = fit_where_possible(mean(held, weights), labels, task, options_of) if options_of is not None else None
    weighted: dict[str, Any] = {"weights": shares, "weighed_on": sorted(known)} if len(members) > 1 and known else {}
    model = model or save_ensemble(out, flat, member_post=False, **weighted)  # post is fitted on the mean
    if post is not None:
        save_postprocess(model, post)
    return model


def held_out_of_all(
    members: Sequence[Model], store: Store, recordings: Sequence[Recording], member_post: bool = False, **options: Any
) -> list[dict[str, Predictions]]:
    """What each member predicts of the recordings that every member held out; ``options`` are those of `predict`.

    ``member_post``: after the member's own post-processing.
    """
    held = [predict_unseen(member, store, recordings, **options) for member in members]
    posts = [member.post if member_post else None for member in members]
    # With allow_missing one member may lack a recording that another one has.
    shared = [name for name in held[0] if all(name in found for found in held)]
    held = [{name: found[name] for name in shared} for found in held]
    return [apply_postprocess(post, found) if post else found for post, found in zip(posts, held, strict=True)]


def _folder_name(fold: Fold, member: Member) -> str:
    return "-".join(filter(None, [fold.name, member.name]))
