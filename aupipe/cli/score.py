"""evaluate: score trained runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.context import (
    POST,
    SHOT_STARTS,
    SPLITS,
    WHERE,
    Context,
    bootstrap_scores,
    choose_postprocess,
    open_context,
    random_features,
    trivial_scores,
)
from aupipe.cli.data import read_labels, select_recordings
from aupipe.cli.options import config_options, device_options, json_option
from aupipe.cli.output import echo, echo_json
from aupipe.errors import UsageError
from aupipe.types import Labels, Recording

if TYPE_CHECKING:
    from aupipe.train.intervals import BootstrapInterval
    from aupipe.train.model import Model
    from aupipe.train.scores import Scores

TUNED_MEMBERS = "chose weights, or thresholds or smoothing of its members"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--split", type=SPLITS, default="validation", show_default=True)
@WHERE
@POST
@click.option(
    "--on-tuned",
    is_flag=True,
    help="Also score recordings on which thresholds, smoothing or ensemble weights were fitted.",
)
@click.option(
    "--held-out",
    is_flag=True,
    help="Score each recording by the members of the cross-validation that were not trained on it.",
)
@click.option(
    "--draws",
    type=click.IntRange(0, 1_000_000),
    default=1000,
    show_default=True,
    help="Number of bootstrap draws over videos; 0: no intervals.",
)
@SHOT_STARTS
@click.option("--allow-missing", is_flag=True, help="Skip recordings that lack features; this lowers the coverage.")
@device_options
@config_options
@json_option
def evaluate(
    runs: tuple[Path, ...],
    split: str,
    where: tuple[str, ...],
    post: str,
    on_tuned: bool,
    held_out: bool,
    draws: int,
    cuts_file: Path | None,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Score RUNs or ensembles as the challenge does: pooled over all annotated frames, each counted once.

    Confidence intervals are bootstrapped over videos. The post-processing fitted for a RUN is applied; recordings it
    was fitted on are refused without --on-tuned. Several RUNs are shown side by side, with the interval of each
    difference to the first.

    \b
    Examples:
      aupipe evaluate runs/20260101-120000-tcn-au --split validation
      aupipe evaluate runs/best-folds runs/tcn-folds            # ensembles of folds; a paired comparison
      aupipe evaluate runs/tcn-folds --split train --held-out
    """
    from aupipe.train.intervals import compare
    from aupipe.train.model import load_model

    models = [load_model(run) for run in runs]
    task = models[0].task
    if other := next((model for model in models if model.task != task), None):
        sets = [f"{model.path} is of task {model.task} ({', '.join(model.task.names)})" for model in (other, models[0])]
        raise UsageError(f"{' and '.join(sets)}: score them one by one")
    context = open_context(config_file, store, gpu, cpu, allow_missing, cuts_file)
    selected = select_recordings(context.dataset, task.name, split, (), where)
    labels = read_labels(context.dataset, selected, task.name)
    if not labels:
        raise UsageError(f"none of the {len(selected)} selected recordings has annotations of task {task}")
    selected = [item for item in selected if item.id in labels]
    found = [_score(context, model, selected, labels, post, on_tuned, held_out, draws) for model in models]
    if as_json:
        lines = [
            {"run": str(model.path), **scores.to_json(), "spread": interval.to_json() if interval else None}
            | ({"where": where} if where else {})
            for model, (scores, interval) in zip(models, found, strict=True)
        ]
        echo_json(lines[0] if len(lines) == 1 else lines)
        return
    (scores, interval), *rest = found
    names = [model.name if len(models) == 1 else f"{number} {model.name}" for number, model in enumerate(models, 1)]
    others = {name: one for name, (one, _) in zip(names[1:], rest, strict=True)}
    echo(*scores.table({**others, **trivial_scores(labels, task)}, name=names[0], interval=interval).split("\n"))
    for name, (one, other_interval) in zip(names[1:], rest, strict=True):
        echo(f"{name}: {one.footnote()}")
        if interval and other_interval and interval.sums.groups == other_interval.sums.groups:
            low, high = compare(other_interval, interval)
            echo(f"{name} minus {names[0]}: {one.mean - scores.mean:+.3f}, 95% {low:+.3f} to {high:+.3f}")
        elif interval and other_interval:
            echo(f"{name} and {names[0]} were scored on different videos, so they are not compared")


def _score(
    context: Context,
    model: Model,
    recordings: list[Recording],
    labels: Mapping[str, Labels],
    post: str,
    on_tuned: bool,
    held_out: bool,
    draws: int,
) -> tuple[Scores, BootstrapInterval | None]:
    """Scores of a model with caveats, and their intervals. Raises UsageError for recordings it was fitted on."""
    from aupipe.train.evaluate import check_unseen, evaluate_post
    from aupipe.train.evaluate import evaluate as score
    from aupipe.train.model_prediction import routed_parts
    from aupipe.train.postprocess import apply_postprocess

    used = {"trained_on": set[str](), "chosen_on": set[str](), "tuned_on": set[str]()}
    for part, own in routed_parts(model, recordings):
        for name, ids in used.items():
            ids |= getattr(part, name) & {r.id for r in own}
    if not held_out:
        check_unseen(used["trained_on"], list(labels), "trained this model", on_tuned)
        check_unseen(used["tuned_on"], list(labels), TUNED_MEMBERS, on_tuned)
    predictions = context.predict(model, recordings, held_out)
    fitted = choose_postprocess(model, post)
    if held_out:
        labels = {name: item for name, item in labels.items() if name in predictions}
        check_unseen(used["tuned_on"], list(labels), TUNED_MEMBERS, on_tuned)
    if fitted is None:
        scores = score(predictions, labels, model.task)
    else:
        scores = evaluate_post(predictions, labels, fitted, context.shot_starts, on_tuned)
        predictions = apply_postprocess(fitted, predictions, context.shot_starts)
    caveats = [f"{run.path.name} IS NOT FINISHED" for run in model.runs if not run.finished]
    if names := random_features(spec for run in model.runs for spec in run.specs.values()):
        caveats.append(f"features of RANDOM encoder weights: {names}")
    if not held_out and used["trained_on"]:
        caveats.append("TRAINED ON THESE RECORDINGS: it does not estimate the score on others")
    if both := used["chosen_on"] & set(labels):
        caveats.append(f"{len(both)} of these recordings chose the epoch")
    tuned = scores.tuned_on_itself or bool(used["tuned_on"] & set(labels))
    scores = replace(scores, caveats=tuple(caveats), tuned_on_itself=tuned)
    return scores, bootstrap_scores(predictions, labels, model.task, recordings, draws)
