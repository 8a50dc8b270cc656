"""predict: per-frame predictions of a trained run or ensemble, in several file formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from aupipe.cli.context import POST, SHOT_STARTS, SPLITS, WHERE, choose_postprocess, open_context
from aupipe.cli.data import select_recordings
from aupipe.cli.options import config_options, device_options
from aupipe.cli.output import echo
from aupipe.cli.overwrite import overwrite_option, refuse_lost_predictions
from aupipe.dataset import label_name


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("recordings", nargs=-1)
@click.option("--split", type=SPLITS, help="Predict the recordings of a split, instead of named ones.")
@WHERE
@click.option(
    "--format", "form", type=click.Choice(["csv", "parquet", "abaw", "tracks"]), default="csv", show_default=True
)
@click.option(
    "--sample",
    type=click.Path(path_type=Path, exists=True),
    help="The organisers' sample file, for the format abaw: gives the rows and their order.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write; a folder for tracks. Default: in the folder of RUN."
)
@overwrite_option("what is at --out")
@click.option(
    "--fill",
    type=click.Choice(["model", "interpolate"]),
    help="Frames without a face: the model's score (default), or linear interpolation between frames with a face.",
)
@POST
@SHOT_STARTS
@click.option("--allow-missing", is_flag=True, help="Leave out recordings that lack features.")
@device_options
@config_options
def predict(
    run: Path,
    recordings: tuple[str, ...],
    split: str | None,
    where: tuple[str, ...],
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
    """Write per-frame predictions of a RUN or an ensemble.

    The formats are tables (csv, parquet), the challenge's submission file (abaw), and one file per track (tracks).
    The post-processing fitted for RUN is applied; the decisions in abaw and tracks use its thresholds.

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
    context = open_context(config_file, store, gpu, cpu, allow_missing, cuts_file)
    selected = select_recordings(context.dataset, model.task.name, split, recordings, where)
    default = {"csv": "predictions.csv", "parquet": "predictions.parquet", "abaw": "submission.txt"}
    out = out or model.path / default.get(form, "predictions")
    refuse_lost_predictions(selected, form, out, overwrite)
    predictions = context.predict(model, selected)
    fitted = choose_postprocess(model, post)
    if fill is not None:
        fitted = fitted or PostProcess(model.task, Options())
        fitted = replace(fitted, options=replace(fitted.options, fill=fill))
    if fitted is not None:
        predictions = apply_postprocess(fitted, predictions, context.shot_starts)
        echo(f"aupipe: {fitted.describe()}", err=True)
    named = {label_name(item): predictions[item.id] for item in selected if item.id in predictions}
    if form == "csv":
        write_csv(predictions, out, overwrite)
    elif form == "parquet":
        write_parquet(predictions, out, overwrite)
    elif form == "abaw":
        write_abaw(named, out, model.task, sample, overwrite)
    else:
        write_tracks(named, out, model.task, overwrite)
    frames = sum(len(item) for item in predictions.values())
    found = sum(int(item.face_found.sum()) for item in predictions.values())
    share = f"face found in {found / max(frames, 1):.1%}"
    checked = f"; its rows are those of {sample}" if form == "abaw" and sample else ""
    echo(f"wrote {out}: {frames:,} frames of {len(predictions)} recordings, {share}{checked}")
