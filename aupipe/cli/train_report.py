"""Reports of `aupipe train`: damaged recordings, scores of a run or of an ensemble, and the next command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from aupipe.cli.context import bootstrap_scores, trivial_scores
from aupipe.cli.data import Data
from aupipe.cli.output import echo, echo_json
from aupipe.cli.train_split import Worth
from aupipe.quantities import counted
from aupipe.tasks import Task
from aupipe.types import Recording

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.model import Model
    from aupipe.train.run import Run


def warn_damaged(data: Data) -> None:
    """Print which recordings come from damaged media: their labels may be shifted against their rows."""
    if data.damaged:
        names = ", ".join(list(data.damaged)[:3]) + ", ..." * (len(data.damaged) > 3)
        total = len(data.train) + len(data.validation)
        text = f"{len(data.damaged)} of {counted(total, 'recording')} come from damaged media ({names})"
        echo(f"aupipe: {text}: aupipe status --damaged", err=True)


def warn_idle(name: str, changes: Sequence[str], per_feature: bool, task: Task) -> None:
    """Print which ``--set`` change nothing: the recipe has the value already, or a run of the task does not use it."""
    from aupipe.train.ensemble_recipe import EnsembleRecipe, load_ensemble_recipe
    from aupipe.train.idle_settings import idle_overrides, settings_in_use

    def read(texts: Sequence[str]) -> EnsembleRecipe:
        return load_ensemble_recipe(name, texts, per_feature, task)

    def used(recipe: EnsembleRecipe) -> list[dict[str, Any]]:
        return [settings_in_use(member.recipe, task) for member in recipe.members]

    for change in idle_overrides(read, changes, used) if changes else ():
        echo(f"aupipe: --set {change} changes nothing: the recipe has this value, or {task} does not use it", err=True)


def show_run(run: Run, store: Store, data: Data, held_out: Sequence[Recording], worth: Worth, as_json: bool) -> None:
    """Print the scores of one run on the recordings it held out, what they are worth, and where the run is."""
    from aupipe.train.predict import predict
    from aupipe.train.run import load_postprocess

    recordings = [r for r in held_out if r.id in run.validation]
    labels = {r.id: data.labels[r.id] for r in held_out if r.id in data.labels}
    found = predict(run, store, recordings) if recordings else {}
    interval = bootstrap_scores(found, labels, run.task, recordings)
    if as_json:
        scores = run.scores.to_json() if run.scores is not None else None
        document: dict[str, Any] = {"run": str(run.path), "best_epoch": run.best_epoch, "scores": scores}
        document |= {"worth": worth.text, "damaged": data.damaged}
        echo_json("run", document | {"spread": interval.to_json() if interval else None})
        return
    if run.scores is not None:
        trivial = trivial_scores(labels, run.task)
        echo(*run.scores.table(trivial, name=run.recipe.name, interval=interval).split("\n"))
    chosen = "chosen on these same recordings" if run.scores is not None else "the last one"
    echo(f"run: {run.path} (epoch {run.best_epoch}, {chosen})", worth.text)
    post = load_postprocess(run)
    if post is not None and post.tuned_on:
        echo("postprocess.json was fitted on these recordings too: apply it to others")
    echo(worth.next_command(run.path))


def show_ensemble(
    model: Model, store: Store, data: Data, name: str, members: list[str], worth: Worth, as_json: bool
) -> None:
    """Print the held-out scores of an ensemble, what they are worth, their deviation over runs, and its weights."""
    from aupipe.train.crossval import summarise
    from aupipe.train.evaluate import evaluate
    from aupipe.train.model_prediction import predict_unseen

    summary = summarise(model.runs) if len(model.runs) > 1 and all(run.scores for run in model.runs) else None
    all_recordings = data.train + data.validation
    found = predict_unseen(model, store, all_recordings)
    labels = {name: data.labels[name] for name in found if name in data.labels}
    weighed = " and their weights" if model.weighed_on else ""
    caveat = f"each by members not trained on it, their epoch{weighed} chosen on it"
    scores = replace(evaluate(found, labels, model.task), caveats=(caveat,)) if found else None
    interval = bootstrap_scores(found, labels, model.task, [r for r in all_recordings if r.id in found])
    folds = len(model.runs) // len(members)  # a weight is the same in all of them
    weights = dict(zip(members, model.weights[::folds], strict=False))
    if as_json:
        document: dict[str, Any] = {
            "model": str(model.path),
            "runs": [str(run.path) for run in model.runs],
            "weights": weights,
        }
        document |= {"summary": asdict(summary) if summary else None}
        document |= {"scores": scores.to_json() if scores else None, "worth": worth.text, "damaged": data.damaged}
        echo_json("ensemble", document | {"spread": interval.to_json() if interval else None})
        return
    if scores is not None:
        echo(*scores.table(trivial_scores(labels, model.task), name=name, interval=interval).split("\n"))
    if summary is not None:
        echo(str(summary))
    if weights:
        echo("weights: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    echo(f"ensemble: {model.path} (the {'weighted ' if weights else ''}mean of {len(model.runs)})", worth.text)
    echo(worth.next_command(model.path))
