"""analyse: from videos to a table with times, intervals and a picture, without labels and without a project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.classifiers import Classifiers, choose_classifiers, guesses_of, refuse_other_features
from aupipe.cli.inputs import open_inputs, videos_arguments
from aupipe.cli.options import (
    FiniteRange,
    config_options,
    device_options,
    given_command,
    interval_options,
    is_verbose,
    json_option,
    media_notes,
    open_or_create,
    pick_devices,
)
from aupipe.cli.output import echo, echo_json
from aupipe.cli.overwrite import overwrite_option
from aupipe.cli.run_report import STOPPED, run_plan
from aupipe.cli.selection import select
from aupipe.config import Config, EncoderConfig
from aupipe.errors import RecordingError, UsageError, WeightsMissingError
from aupipe.files import refuse_existing
from aupipe.quantities import counted
from aupipe.video_folders import ABOUT_HEADER

if TYPE_CHECKING:
    from aupipe.extract.planning.features import FeatureSet
    from aupipe.report.analysis.files import Targets, Written
    from aupipe.report.analysis.table import Layout
    from aupipe.report.analysis.tiers import Rules
    from aupipe.store import Store
    from aupipe.types import Recording


@dataclass(frozen=True)
class Analysis:
    """What is asked for: the recordings and features, and what of the features cannot be computed here."""

    config: Config
    recordings: list[Recording]
    features: FeatureSet
    missing: dict[str, str]  # feature -> why, and what to do
    hidden: frozenset[str]  # features that models read and nobody asked for
    classifiers: Classifiers


@click.command()
@videos_arguments
@click.option(
    "--out",
    "outs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Table (.csv, .parquet, .xlsx) or intervals (.eaf, .TextGrid) to write; may be repeated. "
    "Default: analysis.csv, in this folder.",
)
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    metavar="RUN|FILE|NAME",
    help="Also a trained RUN, the [[encoder]] tables of a TOML file, or that [[encoder]] of aupipe.toml.",
)
@click.option("--detector", metavar="NAME", help="Face detector. Default: [faces] detector, else mtcnn.")
@click.option(
    "--threshold",
    type=FiniteRange(0, 1),
    default=0.5,
    show_default=True,
    help="Of intervals: the blendshape from which an AU is active.",
)
@interval_options
@click.option("--no-picture", is_flag=True, help="Write no picture of each video.")
@overwrite_option("the files")
@device_options
@config_options
@json_option
def analyse(
    videos: tuple[Path, ...],
    from_list: Path | None,
    outs: tuple[Path, ...],
    classifiers: tuple[str, ...],
    detector: str | None,
    threshold: float,
    min_duration: float,
    max_gap: float,
    no_picture: bool,
    overwrite: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> int:
    """Write a table of VIDEOS: a row per frame, with its time, faces, head geometry, blendshapes, speech and level.

    Needs no project and no labels. Rows are kept in a store, as by `aupipe extract`: a second call computes nothing.
    Times and the level of the sound are measured; all else is what networks guess, which may be wrong. With a table
    comes NAME.columns.csv: which columns are measurements, which are guesses of what, trained on what; -v prints it.
    Each video gets a picture of one page. Intervals are tiers of ELAN (.eaf) or Praat (.TextGrid), a file for each
    video: when the face is seen, when somebody speaks, when an AU is active by its blendshapes, and classes.

    \b
    Examples:
      aupipe analyse clip.mp4
      aupipe analyse clips --out results.xlsx --out results.eaf
      aupipe analyse clip.mp4 --classifier emotions.toml --out clip.parquet
    """
    from aupipe.report.analysis.files import find_targets
    from aupipe.report.analysis.tiers import Rules

    if not videos and from_list is None:
        raise UsageError("name the videos, or folders of them: aupipe analyse clip.mp4")
    asked = _open(videos, from_list, classifiers, detector, config_file, store)
    targets = find_targets(outs or (Path("analysis.csv"),), asked.recordings, pictures=not no_picture)
    for path in targets.files:
        refuse_existing(path, overwrite, ", or --no-picture" if path in targets.pictures.values() else "")
    code, opened, device = _compute(asked, gpu, cpu, as_json)
    if code in STOPPED:
        return code
    rules = Rules(threshold, min_duration, max_gap)
    written, layout = _write(asked, opened, device, targets, rules, overwrite)
    _report(asked, written, layout, targets, opened, as_json)
    return code or (RecordingError.exit_code if written.left_out else 0)


def _open(
    videos: tuple[Path, ...],
    from_list: Path | None,
    classifiers: tuple[str, ...],
    detector: str | None,
    config_file: Path | None,
    store: Path | None,
) -> Analysis:
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.report.analysis.columns import FEATURES

    config, opener = open_inputs(config_file, store, videos, from_list, **{"faces.detector": detector})
    chosen = choose_classifiers(config, classifiers)
    encoders, missing = _computable(chosen.encoders)
    own = [(one.kind, dict(one.params)) for one in FEATURES]
    hidden = {one.name for one in encoders if one.name in chosen.inputs and (one.kind, dict(one.params)) not in own}
    config = replace(config, encoders=encoders)
    recordings, features = select(config, opener, [], [])
    if aligned := next((one for one in recordings if one.aligned), None):
        raise UsageError(f"{aligned.id} has aligned crops and no whole pictures, in which faces could be looked for")
    if all(one.video is None for one in recordings):
        silent = [one.name for one in encoders if one.modality == "audio"]
        missing |= dict.fromkeys(silent, "images have no sound")
        features = build_feature_set(config, ["visual"], [])
    features = replace(features, mask_missing_audio=True)
    return Analysis(config, recordings, features, missing, frozenset(hidden), chosen)


def _computable(asked: tuple[EncoderConfig, ...]) -> tuple[tuple[EncoderConfig, ...], dict[str, str]]:
    """The encoders of an analysis and those ``asked`` for; without those of the first whose weights are not here."""
    from aupipe.extract.encoders import build_encoder
    from aupipe.report.analysis.columns import FEATURES

    found, missing = list(asked), dict[str, str]()
    for one in FEATURES:
        if any((other.kind, dict(other.params)) == (one.kind, dict(one.params)) for other in asked):
            continue
        try:
            build_encoder(one).identify_weights()
        except WeightsMissingError as error:
            missing[one.name] = str(error)
            continue
        taken = any(other.name == one.name for other in asked)
        found.append(replace(one, name=f"analyse-{one.name}") if taken else one)
    return tuple(found), missing


def _compute(asked: Analysis, gpu: str | None, cpu: bool, as_json: bool) -> tuple[int, Store, str]:
    """Make what the store does not have yet: the exit code of that, the store, and the device for trained models."""
    from aupipe.extract.planning.plan import make_plan

    opened = open_or_create(asked.config, create=False)
    plan = make_plan(asked.recordings, asked.features, opened, retry_failed=True)
    plan.refuse_others()
    refuse_other_features(asked.classifiers, plan.parts, asked.recordings)
    models = asked.classifiers.models
    devices = pick_devices(gpu, cpu) if plan.jobs or models else ["cpu"]
    opened = opened or open_or_create(asked.config, create=True)
    assert opened is not None
    if not as_json:
        kept = f"rows are kept in {Path(opened.path).absolute()}; what is there is not computed again"
        echo(f"aupipe: {kept} ({plan.counts['done']} of {counted(len(plan.items), 'item')} there)", err=True)
    if not plan.jobs:
        return 0, opened, devices[0]
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.executors.local import local_executor

    executor = local_executor(plan.parts, opened.path, devices, ExecutionOptions(), False)
    retry = given_command("aupipe analyse", leave_out=("as_json", "overwrite"))
    retry += " --overwrite"  # the other videos are written now
    about: dict[str, Any] = {"configuration": asked.config.digest, "retry": retry, "damage_hint": ""}
    code = run_plan(plan, opened, executor, ", ".join(devices), as_json=as_json, **about)
    return code, opened, devices[0]


def _write(
    asked: Analysis, store: Store, device: str, targets: Targets, rules: Rules, overwrite: bool
) -> tuple[Written, Layout]:
    from aupipe.report.analysis.files import write_analysis
    from aupipe.report.analysis.table import lay_out

    features = replace(asked.features, known=tuple(store.features()))
    predictions = guesses_of(asked.classifiers, store, asked.recordings, device)
    layout = lay_out(features, store, asked.recordings, asked.classifiers.columns, asked.hidden)
    written = write_analysis(targets, layout, features, store, asked.recordings, predictions, rules, overwrite)
    return written, layout


def _report(asked: Analysis, written: Written, layout: Layout, targets: Targets, store: Store, as_json: bool) -> None:
    """Print what was written, what of it is measured and what is guessed, and what could not be given."""
    own = {name for one in asked.recordings for name in (one.id, one.video_id)}
    found = media_notes(record for record in store.records() if record.recording in own)
    notes = {name: [*lines, *found.get(name, ())] for name, lines in written.notes.items()}
    for model in asked.classifiers.models.values():
        for name in notes.keys() & model.trained_on:
            notes[name].append(f"{model.path.name} was TRAINED on a recording of this name, so its guesses flatter it")
    damaged = {record.recording: record.damage for record in store.damaged() if record.recording in own}
    for name, damage in damaged.items():
        notes.setdefault(name, []).append(f"damaged: {damage}")
    if as_json:
        columns = [dict(zip(ABOUT_HEADER, column.row(), strict=True)) for column in layout.columns]
        about: dict[str, Any] = {"store": str(Path(store.path).absolute())}
        about |= {"files": list(map(str, written.files)), "rows": written.rows, "columns": columns}
        about |= {"not_computed": asked.missing, "left_out": written.left_out, "no_picture": targets.no_picture}
        echo_json("analysis", about | {"recordings": notes})
        return
    recordings = counted(len(written.rows), "recording")
    for path in written.files:
        rows = f"{sum(written.rows.values()):,} rows of {recordings}, {len(layout.columns)} columns"
        said = {"table": f": {rows}", "columns": ": what each column is"}.get(targets.kind(path), "")
        echo(f"wrote {path}{said}")
    for name, reason in asked.missing.items():  # of the ways to get a file the first, unless all are asked for
        echo(f"not computed: {name}: {reason if is_verbose() else reason.partition('; or ')[0]}")
    if targets.no_picture:
        echo(f"no picture: {targets.no_picture}")
    for name, reason in written.left_out.items():
        echo(f"left out {name}: {reason}")
    for name, lines in notes.items():
        for line in lines:
            echo(f"note  {name}: {line}")
    echo(*_kinds(asked, layout, targets))


def _kinds(asked: Analysis, layout: Layout, targets: Targets) -> list[str]:
    """What of the files is measured and what is guessed: of the columns in short, without -v."""
    from aupipe.report.analysis.columns import in_short, in_words

    if is_verbose():
        return in_words(layout.columns)
    if not targets.tables:
        return ["tiers are guesses of networks (-v: of which, trained on what)"]
    named = {one.name for one in asked.classifiers.encoders} | asked.classifiers.models.keys()
    chosen = [column for block in layout.blocks if block.name in named for column in block.columns]
    where = str(targets.about[0]) if targets.about else f"the sheet columns of {targets.tables[0]}"
    return in_short(layout.columns, chosen, where)
