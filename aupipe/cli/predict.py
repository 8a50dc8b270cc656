"""predict: predictions of a trained run or ensemble, frame by frame or as intervals, in several file formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.completion import MODEL, RECORDING
from aupipe.cli.context import POST, SHOT_STARTS, SPLITS, WHERE, choose_postprocess, open_context
from aupipe.cli.data import select_recordings
from aupipe.cli.options import config_options, device_options, interval_options
from aupipe.cli.output import echo
from aupipe.cli.overwrite import SUFFIXES, TABLES, overwrite_option, refuse_lost_predictions
from aupipe.dataset import label_name
from aupipe.errors import UsageError
from aupipe.files import PRIVATE, as_argument, write_file
from aupipe.quantities import counted, first_of
from aupipe.types import Recording

if TYPE_CHECKING:
    from aupipe.tasks import Task
    from aupipe.train.predictions import Predictions

INTERVALS = ("events", "eaf", "textgrid")  # formats of intervals, not of frames
DEFAULT = {"csv": "predictions.csv", "parquet": "predictions.parquet", "abaw": "submission.txt", "events": "events.csv"}
DEFAULT |= {"tracks": "predictions", "eaf": "eaf", "textgrid": "textgrid"}  # folders


@click.command()
@click.argument("run", type=MODEL)
@click.argument("recordings", nargs=-1, type=RECORDING)
@click.option("--split", type=SPLITS, help="Predict the recordings of a split, instead of named ones.")
@WHERE
@click.option("--format", "form", type=click.Choice(list(DEFAULT)), default="csv", show_default=True)
@click.option(
    "--sample",
    type=click.Path(path_type=Path, exists=True),
    help="The organisers' sample file, for the format abaw: gives the rows and their order.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write; a folder for tracks, eaf and textgrid. Default: in the folder of RUN.",
)
@overwrite_option("what is at --out")
@click.option(
    "--fill",
    type=click.Choice(["model", "interpolate"]),
    help="Frames without a face: the model's score (default), or linear interpolation between frames with a face.",
)
@interval_options
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
    min_duration: float,
    max_gap: float,
    post: str,
    cuts_file: Path | None,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Write predictions of a RUN or an ensemble.

    Formats of frames: tables (csv, parquet), the challenge's submission file (abaw), one file per track (tracks).
    Formats of intervals, in which an AU or a class is shown: a table (events), and one file per recording for ELAN
    (eaf) or Praat (textgrid). The post-processing fitted for RUN is applied; decisions use its thresholds.

    \b
    Examples:
      aupipe predict runs/20260101-120000-tcn-au --split validation
      aupipe predict runs/... clip.mp4 --format parquet --fill interpolate
      aupipe predict runs/... clip.mp4 --format eaf --min-duration 0.2 --max-gap 0.1
      aupipe predict runs/... --split test --format abaw --sample CVPR_6th_ABAW_AU_test_set_sample.txt
    """
    from aupipe.train.model import load_model
    from aupipe.train.postprocess import Options, PostProcess, apply_postprocess
    from aupipe.train.run import RUN_FILE

    if out is not None and form in TABLES and out.suffix.lower() != (suffix := Path(DEFAULT[form]).suffix):
        other = next((one for one in TABLES if Path(DEFAULT[one]).suffix == out.suffix.lower()), "")
        remedy = f"give --format {other}" if other else "give it that suffix"
        raise UsageError(f"--out {out}: --format {form} writes a {suffix} file: {remedy}")
    if not run.is_dir() and run.name != RUN_FILE:
        asked = " ".join([as_argument(run), *map(as_argument, recordings)])
        raise UsageError(f"{run}: no trained model, which stands first: `aupipe predict RUN {asked}`{_trained()}")
    model = load_model(run)
    if form in INTERVALS and not model.task.whole:
        raise UsageError(f"{', '.join(model.task.names)} are numbers, which have no intervals: use --format csv")
    if form not in INTERVALS and (min_duration or max_gap):
        raise UsageError(f"--min-duration and --max-gap are of intervals: --format {', '.join(INTERVALS)}")
    context = open_context(config_file, store, gpu, cpu, allow_missing, cuts_file)
    selected = select_recordings(context.dataset, model.task.name, split, recordings, where)
    out = out or model.path / DEFAULT[form]
    refuse_lost_predictions(selected, form, out, overwrite)
    predictions = context.predict(model, selected)
    fitted = choose_postprocess(model, post)
    if fill is not None:
        fitted = fitted or PostProcess(model.task, Options())
        fitted = replace(fitted, options=replace(fitted.options, fill=fill))
    if fitted is not None:
        predictions = apply_postprocess(fitted, predictions, context.shot_starts)
        echo(f"aupipe: {fitted.describe()}", err=True)
    if form in INTERVALS:
        said = _write_intervals(form, predictions, selected, out, model.task, (min_duration, max_gap), overwrite)
    else:
        said = _write_frames(form, predictions, selected, out, model.task, sample, overwrite)
    found = sum(int(item.face_found.sum()) for item in predictions.values())
    frames = sum(len(item) for item in predictions.values())
    checked = f"; its rows are those of {sample}" if form == "abaw" and sample else ""
    of = counted(len(predictions), "recording")
    echo(f"wrote {out}: {said} of {of}, face found in {found / max(frames, 1):.1%}{checked}")


def _trained() -> str:
    """The models in ``runs``, for a message."""
    from aupipe.train.model_listing import model_folders

    found = [str(folder) for folder in model_folders(Path("runs"))] if Path("runs").is_dir() else []
    return f"; trained: {first_of(found)}" if found else "; `aupipe train` makes one"


def _write_frames(
    form: str,
    predictions: Mapping[str, Predictions],
    selected: Sequence[Recording],
    out: Path,
    task: Task,
    sample: Path | None,
    overwrite: bool,
) -> str:
    """Write a format of frames; what was written, in words."""
    from aupipe.train.prediction_files import write_abaw, write_csv, write_parquet, write_tracks

    named = {label_name(item): predictions[item.id] for item in selected if item.id in predictions}
    if form == "csv":
        write_csv(predictions, out, overwrite)
    elif form == "parquet":
        write_parquet(predictions, out, overwrite)
    elif form == "abaw":
        write_abaw(named, out, task, sample, overwrite)
    else:
        write_tracks(named, out, task, overwrite)
    return f"{counted(sum(len(item) for item in predictions.values()), 'frame')}"


def _write_intervals(
    form: str,
    predictions: Mapping[str, Predictions],
    selected: Sequence[Recording],
    out: Path,
    task: Task,
    limits: tuple[float, float],
    overwrite: bool,
) -> str:
    """Write a format of intervals; what was written, in words, with what was joined and left out."""
    from aupipe.train.occurrence_files import eaf_text, events_table, textgrid_text
    from aupipe.train.occurrences import find_occurrences
    from aupipe.train.prediction_files import track_file, write_each

    found = {name: find_occurrences(item, *limits) for name, item in predictions.items()}
    texts: dict[str, str] = {}
    for recording in selected if form != "events" else ():
        if recording.id not in found:
            continue
        name = label_name(recording)
        if form == "textgrid":
            texts[name] = textgrid_text(found[recording.id], task.name)
        else:
            texts[name] = eaf_text(found[recording.id], task.name, track_file(out, name).parent, recording.video)
    if form == "events":
        write_file(out, events_table(found), overwrite, PRIVATE)
    else:
        write_each(texts, out, SUFFIXES[form], overwrite)
    joined, short = (sum(getattr(own, what) for own in found.values()) for what in ("joined", "left_out"))
    said = f"{sum(len(own.found) for own in found.values()):,} intervals"
    said += f" ({joined:,} gaps of at most {limits[1]:g} s closed)" * bool(joined)
    said += f" ({short:,} shorter than {limits[0]:g} s left out)" * bool(short)
    early = sum(one.start_s < 0 for own in found.values() for one in own.found) if form != "events" else 0
    return said + f" ({early:,} begin before 0 s and are cut there)" * bool(early)
