"""Scoring of trained models, for the commands that print it or write pages of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.completion import MODEL
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
from aupipe.cli.data import select_recordings
from aupipe.cli.options import Command, config_options, device_options, with_options
from aupipe.errors import UsageError
from aupipe.types import Labels, Recording

if TYPE_CHECKING:
    from aupipe.train.evaluation import Evaluation
    from aupipe.train.model import Model
    from aupipe.train.scores import Scores

TUNED_MEMBERS = "chose weights, or thresholds or smoothing of its members"


@dataclass(frozen=True)
class ScoreRequest:
    """What `score_options` give."""

    runs: tuple[Path, ...]
    split: str
    where: tuple[str, ...]
    post: str
    on_tuned: bool
    held_out: bool
    draws: int
    cuts_file: Path | None
    allow_missing: bool
    gpu: str | None
    cpu: bool
    config_file: Path | None
    store: Path | None


@dataclass(frozen=True)
class Scored:
    """Models scored on the same recordings; ``trivial``: the score of a constant prediction, by its name."""

    context: Context
    recordings: list[Recording]
    evaluations: list[Evaluation]
    trivial: Mapping[str, Scores]


def score_options(command: Command) -> Command:
    """The runs, what they are scored on, and how: the fields of `ScoreRequest`."""
    options: list[Callable[[Command], Command]] = [
        click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=MODEL),
        click.option("--split", type=SPLITS, default="validation", show_default=True),
        WHERE,
        POST,
        click.option(
            "--on-tuned",
            is_flag=True,
            help="Also score recordings on which thresholds, smoothing or ensemble weights were fitted.",
        ),
        click.option(
            "--held-out",
            is_flag=True,
            help="Score each recording by the members of the cross-validation that were not trained on it.",
        ),
        click.option(
            "--draws",
            type=click.IntRange(0, 1_000_000),
            default=1000,
            show_default=True,
            help="Number of bootstrap draws over videos; 0: no intervals.",
        ),
        SHOT_STARTS,
        click.option(
            "--allow-missing", is_flag=True, help="Skip recordings that lack features; this lowers the coverage."
        ),
        device_options,
        config_options,
    ]
    return with_options(command, options)


def score_models(request: ScoreRequest) -> Scored:
    """Score models on the recordings of a split. Raises UsageError for models of several tasks, and without labels."""
    from aupipe.train.model import load_model

    models = [load_model(run) for run in request.runs]
    task = models[0].task
    if other := next((model for model in models if model.task != task), None):
        sets = [f"{model.path} is of task {model.task} ({', '.join(model.task.names)})" for model in (other, models[0])]
        raise UsageError(f"{' and '.join(sets)}: score them one by one")
    context = open_context(
        request.config_file, request.store, request.gpu, request.cpu, request.allow_missing, request.cuts_file
    )
    selected = select_recordings(context.dataset, task.name, request.split, (), request.where)
    labels = context.dataset.labels_of(selected, task.name)
    if not labels:
        raise UsageError(f"none of the {len(selected)} selected recordings has annotations of task {task}")
    selected = [item for item in selected if item.id in labels]
    found = [_score(context, model, selected, labels, request) for model in models]
    return Scored(context, selected, found, trivial_scores(labels, task))


def _score(
    context: Context,
    model: Model,
    recordings: list[Recording],
    labels: Mapping[str, Labels],
    request: ScoreRequest,
) -> Evaluation:
    """A model's scores with caveats, and their intervals. Raises UsageError for recordings it was fitted on."""
    from aupipe.train.evaluate import check_unseen, evaluate, evaluate_post
    from aupipe.train.evaluation import Evaluation
    from aupipe.train.model_prediction import routed_parts
    from aupipe.train.postprocess import apply_postprocess
    from aupipe.train.search_result import choice_caveats

    used = {"trained_on": set[str](), "chosen_on": set[str](), "tuned_on": set[str]()}
    for part, own in routed_parts(model, recordings):
        for name, ids in used.items():
            ids |= getattr(part, name) & {r.id for r in own}
    if not request.held_out:
        check_unseen(used["trained_on"], list(labels), "trained this model", request.on_tuned)
        check_unseen(used["tuned_on"], list(labels), TUNED_MEMBERS, request.on_tuned)
    predictions = context.predict(model, recordings, request.held_out)
    fitted = choose_postprocess(model, request.post)
    if request.held_out:
        labels = {name: item for name, item in labels.items() if name in predictions}
        check_unseen(used["tuned_on"], list(labels), TUNED_MEMBERS, request.on_tuned)
    if fitted is None:
        scores = evaluate(predictions, labels, model.task)
    else:
        scores = evaluate_post(predictions, labels, fitted, context.shot_starts, request.on_tuned)
        predictions = apply_postprocess(fitted, predictions, context.shot_starts)
    caveats = [f"{run.path.name} IS NOT FINISHED" for run in model.runs if not run.finished]
    if names := random_features(spec for run in model.runs for spec in run.specs.values()):
        caveats.append(f"features of RANDOM encoder weights: {names}")
    if not request.held_out and used["trained_on"]:
        caveats.append("TRAINED ON THESE RECORDINGS: it does not estimate the score on others")
    if both := used["chosen_on"] & set(labels):
        caveats.append(f"{len(both)} of these recordings chose the epoch")
    own_parts = [(part, {r.id for r in own} & set(labels)) for part, own in routed_parts(model, recordings)]
    caveats += dict.fromkeys(caveat for part, ids in own_parts for caveat in choice_caveats(part, ids))
    tuned = scores.tuned_on_itself or bool(used["tuned_on"] & set(labels))
    scores = replace(scores, caveats=tuple(caveats), tuned_on_itself=tuned)
    interval = bootstrap_scores(predictions, labels, model.task, recordings, request.draws)
    return Evaluation(model, predictions, labels, scores, interval, fitted)
