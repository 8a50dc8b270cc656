"""Reports of `aupipe train`: damaged recordings, scores of a run or of an ensemble, and the next command."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from aupipe.cli.context import bootstrap_scores, trivial_scores
from aupipe.cli.data import Data
from aupipe.cli.output import echo, echo_json

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.model import Model
    from aupipe.train.run import Run


def warn_damaged(data: Data) -> None:
    """Print which recordings come from damaged media: their labels may be shifted against their rows."""
    if data.damaged:
        names = ", ".join(list(data.damaged)[:3]) + ", ..." * (len(data.damaged) > 3)
        total = len(data.train) + len(data.validation)
        text = f"{len(data.damaged)} of {total} recordings come from damaged media ({names})"
        echo(f"aupipe: {text}: aupipe status --damaged", err=True)


def show_run(run: Run, store: Store, data: Data, as_json: bool) -> None:
    """Print the scores of one run on the validation split, and where it is."""
    from aupipe.train.predict import predict

    recordings = [r for r in data.validation if r.id in run.validation]
    labels = {r.id: data.labels[r.id] for r in data.validation if r.id in data.labels}
    interval = bootstrap_scores(predict(run, store, recordings), labels, run.task, recordings)
    if as_json:
        document: dict[str, Any] = {"run": str(run.path), "best_epoch": run.best_epoch, "scores": run.scores.to_json()}
        document["damaged"] = data.damaged
        echo_json(document | {"spread": interval.to_json() if interval else None})
        return
    echo(*run.scores.table(trivial_scores(labels, run.task), name=run.recipe.name, interval=interval).split("\n"))
    echo(f"run: {run.path} (best epoch {run.best_epoch}, chosen on these same recordings)")
    if (run.path / "postprocess.json").is_file():
        echo("postprocess.json was fitted on these recordings too: apply it to others")
    echo(f"next: aupipe predict {run.path}")


def show_ensemble(model: Model, store: Store, data: Data, name: str, members: list[str], as_json: bool) -> None:
    """Print the held-out scores of an ensemble, mean and deviation of its runs, and their weights."""
    from aupipe.train.crossval import summarise
    from aupipe.train.evaluate import evaluate
    from aupipe.train.model_prediction import predict_held_out

    summary = summarise(model.runs)
    all_recordings = data.train + data.validation
    found = predict_held_out(model, store, all_recordings)
    labels = {name: data.labels[name] for name in found if name in data.labels}
    weighed = " and their weights" if model.weighed_on else ""
    caveat = f"each by members not trained on it, their epoch{weighed} chosen on it"
    scores = replace(evaluate(found, labels, model.task), caveats=(caveat,))
    interval = bootstrap_scores(found, labels, model.task, [r for r in all_recordings if r.id in found])
    folds = len(model.runs) // len(members)  # a weight is the same in all of them
    weights = dict(zip(members, model.weights[::folds], strict=False))
    if as_json:
        document = {"model": str(model.path), "runs": [str(run.path) for run in model.runs], "weights": weights}
        document |= {"summary": asdict(summary), "scores": scores.to_json(), "damaged": data.damaged}
        echo_json(document | {"spread": interval.to_json() if interval else None})
        return
    echo(*scores.table(trivial_scores(labels, model.task), name=name, interval=interval).split("\n"))
    echo(str(summary))
    if weights:
        echo("weights: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    echo(f"ensemble: {model.path} (the {'weighted ' if weights else ''}mean of {len(model.runs)})")
    post = model.post
    if {r.id for r in data.validation} & {*model.weighed_on, *(post.tuned_on if post else ())}:
        echo(f"next: aupipe predict {model.path} (an unbiased score needs --folds, or another split)")
    else:
        echo(f"next: aupipe evaluate {model.path}")
