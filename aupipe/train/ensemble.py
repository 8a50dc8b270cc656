"""Train the members of an ensemble recipe on every fold, and combine them by a weighted mean.

Members are weighted by `aupipe.train.member_weights` on what their runs held out: a score on recordings that a member
was trained on says nothing about its use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.store import Store
from aupipe.store.api import open_once
from aupipe.tasks import Task, as_task
from aupipe.train.combination import mean
from aupipe.train.crossval import Fold
from aupipe.train.ensemble_recipe import EnsembleRecipe, Member, expand_members, refuse_shared_names
from aupipe.train.fit import fit
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.folder_lock import refuse_running
from aupipe.train.member_weights import choose_weights
from aupipe.train.model import FILE, Model, load_model, mean_of, save_ensemble
from aupipe.train.model_prediction import predict_unseen
from aupipe.train.postprocess import apply_postprocess, fit_where_possible
from aupipe.train.predictions import Predictions
from aupipe.train.run import POST_FILE, Run, holds_run, save_postprocess
from aupipe.types import Labels, Recording

LOST_S = 600.0  # so long what is tried again waits for a machine that was lost and still trains

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnsembleRun:
    """One run of an ensemble: a member that is trained on a fold with a seed. Its text is the name of its folder."""

    fold: Fold
    seed: int
    member: Member

    def __str__(self) -> str:
        return "-".join(filter(None, [self.fold.name, self.member.name]))


def plan_runs(
    recipe: EnsembleRecipe, folds: Sequence[tuple[Fold, int]], features: Mapping[str, str]
) -> list[EnsembleRun]:
    """A run per fold (with its seed) and member. Raises UsageError where two would have the same folder."""
    members = expand_members(recipe, features)
    runs = [EnsembleRun(fold, seed, member) for fold, seed in folds for member in members]
    refuse_shared_names(list(map(str, runs)), "folds, members and features")
    return runs


@dataclass(frozen=True)
class RunTrainer:
    """Trains runs into folders below ``out``; may be sent to another process. A finished run is kept, another goes on.

    ``store``: an open one, or its path, which is then opened in the process that trains. ``options``: further fields of
    `aupipe.train.fit_config.FitConfig`.
    """

    store: Store | str
    task: Task
    labels: Mapping[str, Labels]
    out: Path
    aux_labels: Mapping[str, Mapping[str, Labels]] = field(default_factory=dict)
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, run: EnsembleRun) -> str:
        """Train a run, and say in a line what came of it; all of it would be much to send. Raises as `fit` does."""
        refuse_running(self.out / str(run), LOST_S)
        trained = self.train(run)
        scores = trained.scores
        held_out = f", {scores.metric} {scores.mean:.3f} on what it held out" if scores is not None else ""
        return f"epoch {trained.best_epoch}{held_out}"

    def train(self, run: EnsembleRun, progress: Callable[[str], None] | None = None) -> Run:
        """The finished run. Raises UsageError as `fit` does."""
        fold, folder = run.fold, self.out / str(run)
        if progress and not holds_run(folder):
            progress(
                f"{folder.name}: {counted(len(fold.train), 'recording')} to train on, {len(fold.validation)} held out"
            )
        data = FitData(fold.train, fold.validation, self.labels, run.member.features, self.aux_labels, self.command)
        config = FitConfig(run.member.recipe, self.task, run.seed, **self.options)
        return fit(open_once(self.store), data, config, folder, resume=True, progress=progress)


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
    trainer = RunTrainer(store, as_task(task), labels, out, aux_labels or {}, command, options)
    trained = [trainer.train(run, progress) for run in plan_runs(recipe, folds, features)]
    runs = [trained[number :: len(members)] for number in range(len(members))]  # per member, in the order of the folds
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
