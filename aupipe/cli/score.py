"""predict, evaluate, tune: what is done with a trained run, or with several as one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.data import chosen, labels_of
from aupipe.cli.options import config_options, device_options, json_option
from aupipe.cli.output import echo, echo_json
from aupipe.cli.overwrite import overwrite_option, refuse_lost_predictions
from aupipe.cli.scene import CUTS, POST, SPLITS, Scene, bounds, open_scene, post_of, trivial
from aupipe.dataset import label_name
from aupipe.errors import UsageError
from aupipe.files import refuse_existing, write_file
from aupipe.types import Labels, Recording

if TYPE_CHECKING:
    from aupipe.train.evaluate import Scores
    from aupipe.train.intervals import BootstrapInterval
    from aupipe.train.model import Model
    from aupipe.train.predictions import Threshold


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("recordings", nargs=-1)
@click.option("--split", type=SPLITS, help="Instead of naming recordings.")
@click.option(
    "--format", "form", type=click.Choice(["csv", "parquet", "abaw", "tracks"]), default="csv", show_default=True
)
@click.option("--sample", type=click.Path(path_type=Path, exists=True), help="The organisers' sample file, for abaw.")
@click.option("--out", type=click.Path(path_type=Path), help="File, or folder for tracks. Default: in RUN.")
@overwrite_option("what is at --out")
@click.option(
    "--fill",
    type=click.Choice(["model", "interpolate"]),
    help="Frames without a face: what the head says of them (default), or the line between the nearest seen frames.",
)
@POST
@CUTS
@click.option("--allow-missing", is_flag=True, help="Leave out recordings that lack features.")
@device_options
@config_options
def predict(
    run: Path,
    recordings: tuple[str, ...],
    split: str | None,
    form: str,
    sample: Path | None,
    out: Path | None,
    overwrite: bool,
    fill: Any,
    post: str,
    cuts_file: Path | None,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Per-frame predictions of a RUN or an ensemble: tables, the challenge's submission file, or one file per track.

    Scores are filled and smoothed as was fitted for RUN; the decisions of abaw and tracks use its thresholds.

    \b
    Examples:
      aupipe predict runs/20260101-120000-tcn-au --split validation
      aupipe predict runs/... clip.mp4 --format parquet --fill interpolate
      aupipe predict runs/... --split test --format abaw --sample CVPR_6th_ABAW_AU_test_set_sample.txt
    """
    from aupipe.train.model import load_model
    from aupipe.train.postprocess import Options, PostProcess, apply_postprocess
    from aupipe.train.prediction_files import write_abaw, write_csv, write_parquet, write_tracks

    model = load_model(run)
    scene = open_scene(config_file, store, gpu, cpu, allow_missing, cuts_file)
    picked = chosen(scene.dataset, model.task, split, recordings)
    default = {"csv": "predictions.csv", "parquet": "predictions.parquet", "abaw": "submission.txt"}
    out = out or model.path / default.get(form, "predictions")
    refuse_lost_predictions(picked, form, out, overwrite)
    predictions = scene.predict(model, picked)
    fitted = post_of(model, post)
    if fill is not None:
        fitted = fitted or PostProcess(model.task, Options())
        fitted = replace(fitted, options=replace(fitted.options, fill=fill))
    threshold: Threshold = 0.5
    if fitted is not None:
        predictions = apply_postprocess(fitted, predictions, scene.cuts)
        threshold = fitted.threshold or 0.5
        echo(f"aupipe: {fitted.describe()}", err=True)
    named = {label_name(item): predictions[item.id] for item in picked if item.id in predictions}
    if form == "csv":
        write_csv(predictions, out, overwrite)
    elif form == "parquet":
        write_parquet(predictions, out, overwrite)
    elif form == "abaw":
        write_abaw(named, out, model.task, sample, threshold, overwrite)
    else:
        write_tracks(named, out, model.task, threshold, overwrite)
    frames = sum(len(item) for item in predictions.values())
    seen = sum(int(item.face_found.sum()) for item in predictions.values())
    share = f"face seen in {seen / max(frames, 1):.1%}"
    checked = f"; its rows are those of {sample}" if form == "abaw" and sample else ""
    echo(f"wrote {out}: {frames:,} frames of {len(predictions)} recordings, {share}{checked}")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--split", type=SPLITS, default="validation", show_default=True)
@POST
@click.option(
    "--on-tuned", is_flag=True, help="Score recordings that a threshold, a smoothing or the weights come from."
)
@click.option("--held-out", is_flag=True, help="Of folds: each recording by the members not trained on it.")
@click.option(
    "--draws",
    type=click.IntRange(0, 1_000_000),
    default=1000,
    show_default=True,
    help="Of the bootstrap over videos; 0: no intervals.",
)
@CUTS
@click.option(
    "--allow-missing", is_flag=True, help="Go on without recordings that lack features: they lower the coverage."
)
@device_options
@config_options
@json_option
def evaluate(
    runs: tuple[Path, ...],
    split: str,
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

    Intervals come from drawing whole videos. What was fitted for a RUN is applied; recordings that it was fitted on are
    refused, unless told. Several RUNs stand side by side, with the interval of each difference to the first.

    \b
    Examples:
      aupipe evaluate runs/20260101-120000-tcn-au --split validation
      aupipe evaluate runs/best-folds runs/tcn-folds            # ensembles of folds; a paired comparison
      aupipe evaluate runs/best-folds --split train --held-out
    """
    from aupipe.train.intervals import compare
    from aupipe.train.model import load_model

    models = [load_model(run) for run in runs]
    task = models[0].task
    if other := next((model for model in models if model.task != task), None):
        raise UsageError(f"{other.path} is of task {other.task}, {models[0].path} of {task}")
    scene = open_scene(config_file, store, gpu, cpu, allow_missing, cuts_file)
    picked = chosen(scene.dataset, task, split, ())
    labels = labels_of(scene.dataset, picked, task)
    if not labels:
        raise UsageError(f"the {split} split of task {task} has no annotations here")
    picked = [item for item in picked if item.id in labels]
    found = [_scored(scene, model, picked, labels, post, on_tuned, held_out, draws) for model in models]
    if as_json:
        lines = [
            {"run": str(model.path), **scores.to_json(), "spread": spread.to_json() if spread else None}
            for model, (scores, spread) in zip(models, found, strict=True)
        ]
        echo_json(lines[0] if len(lines) == 1 else lines)
        return
    (scores, spread), *rest = found
    names = [model.name if len(models) == 1 else f"{number} {model.name}" for number, model in enumerate(models, 1)]
    beside = {name: one for name, (one, _) in zip(names[1:], rest, strict=True)}
    echo(*scores.table({**beside, **trivial(labels, task)}, name=names[0], interval=spread).split("\n"))
    for name, (one, bound) in zip(names[1:], rest, strict=True):
        echo(f"{name}: {one.footnote()}")
        if spread and bound:
            low, high = compare(bound, spread)
            echo(f"{name} minus {names[0]}: {one.mean - scores.mean:+.3f}, 95% {low:+.3f} to {high:+.3f}")


def _scored(
    scene: Scene,
    model: Model,
    recordings: list[Recording],
    labels: Mapping[str, Labels],
    post: str,
    on_tuned: bool,
    held_out: bool,
    draws: int,
) -> tuple[Scores, BootstrapInterval | None]:
    from aupipe.train.evaluate import check_unseen, evaluate_post
    from aupipe.train.evaluate import evaluate as score
    from aupipe.train.postprocess import apply_postprocess

    names = list(labels)
    if not held_out:
        check_unseen(model.trained_on, names, "trained this model", on_tuned)
        check_unseen(model.tuned_on, names, "chose weights or thresholds of its members", on_tuned)
    predictions = scene.predict(model, recordings, held_out)
    fitted = post_of(model, post)
    if held_out:
        labels = {name: item for name, item in labels.items() if name in predictions}
    threshold: Threshold = 0.5
    if fitted is None:
        scores = score(predictions, labels, model.task)
    else:
        scores = evaluate_post(predictions, labels, fitted, scene.cuts, on_tuned)
        predictions = apply_postprocess(fitted, predictions, scene.cuts)
        threshold = fitted.threshold or 0.5
    caveats = []
    if not held_out and model.trained_on & set(names):
        caveats.append("TRAINED ON THESE RECORDINGS, so it says nothing of others")
    if both := model.chosen_on & set(names):
        caveats.append(f"{len(both)} of these recordings chose the epoch")
    scores = replace(scores, caveats=tuple(caveats))
    return scores, bounds(predictions, labels, model.task, threshold, recordings, draws)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", type=SPLITS, default="validation", show_default=True, help="What it is fitted on.")
@click.option("--held-out", is_flag=True, help="On what the members of a cross-validation held out.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="threshold, smooth, width, side, aucorr, match_variance, fill, max_gap.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write. Default: RUN's own, postprocess.json.")
@overwrite_option("what was fitted before")
@CUTS
@click.option("--allow-missing", is_flag=True, help="Leave out recordings that lack features.")
@device_options
@config_options
@json_option
def tune(
    run: Path,
    split: str,
    held_out: bool,
    overrides: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
    cuts_file: Path | None,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Fit thresholds and smoothing of a RUN or an ensemble on one split, to be applied to another.

    Without --set: what RUN's recipe asks for, else a threshold per AU, a Gaussian (EXPR), matched variance (VA).

    \b
    Examples:
      aupipe tune runs/best-folds --held-out --set smooth=gaussian --set threshold=tune --overwrite
      aupipe evaluate runs/best-folds --split validation
    """
    from aupipe.tables import build
    from aupipe.train.evaluate import evaluate_post
    from aupipe.train.model import load_model
    from aupipe.train.postprocess import DEFAULTS, Options, fit_postprocess
    from aupipe.train.recipe import apply_overrides
    from aupipe.train.run import POST_FILE, save_postprocess

    model = load_model(run)
    target = out or model.path / POST_FILE
    refuse_existing(target, overwrite)
    options = model.runs[0].recipe.postprocess.get(model.task, DEFAULTS[model.task])
    if overrides:
        options = build(Options, apply_overrides({}, overrides), "--set")
    scene = open_scene(config_file, store, gpu, cpu, allow_missing, cuts_file)
    everyone = list(scene.dataset.recordings) if held_out else chosen(scene.dataset, model.task, split, ())
    labels = labels_of(scene.dataset, everyone, model.task)
    predictions = scene.predict(model, [item for item in everyone if item.id in labels], held_out)
    labels = {name: item for name, item in labels.items() if name in predictions}
    fitted = fit_postprocess(predictions, labels, model.task, options, scene.cuts)
    if out is None:
        save_postprocess(model, fitted, overwrite)
    else:
        write_file(out, json.dumps(fitted.to_json(), indent=1), overwrite)
    scores = evaluate_post(predictions, labels, fitted, scene.cuts, on_tuned=True)
    if as_json:
        echo_json({"post": fitted.to_json(), "scores": scores.to_json()})
        return
    echo(f"{fitted.describe()}: {scores.metric} {scores.mean:.3f} there, which flatters")
    echo(f"wrote {target}; " + (f"use it with --post {out}" if out else "predict and evaluate use it"))
