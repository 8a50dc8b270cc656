"""report data: pages of a data set and of its recordings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.completion import RECORDING
from aupipe.cli.look import FACES
from aupipe.cli.options import config_options, device_options, existing_store, media_notes, require_config, resolve
from aupipe.cli.output import echo
from aupipe.cli.report_predictions import RunPredictions
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.quantities import counted

if TYPE_CHECKING:
    from aupipe.extract.planning.features import FeatureSet
    from aupipe.report.drawing import Faces
    from aupipe.store import Store
    from aupipe.types import Recording

MOST_WORKERS = 8  # threads that make pages: each decodes and encodes a video


def page_count(context: click.Context, option: click.Parameter, value: str) -> int | None:
    """``20``, ``all`` (None) or ``none`` (0)."""
    if value in ("all", "none"):
        return None if value == "all" else 0
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r}: expected a number, all or none")
    return int(value)


@click.command("data")
@click.argument("recordings", nargs=-1, type=RECORDING)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports/data"),
    show_default=True,
    help="Folder to write. An older report in it is replaced, a folder with any other file refused.",
)
@click.option(
    "--pages",
    default="20",
    show_default=True,
    metavar="N|all|none",
    callback=page_count,
    help="How many recordings, the worst first, have a page with a video and a contact sheet.",
)
@FACES
@click.option(
    "--sound",
    type=click.Choice(["keep", "none"]),
    default="keep",
    show_default=True,
    help="Keep the sound in the videos, or leave it out: a voice is known as a face is.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Show RUN's predictions beside the labels, held out where RUN has not been trained on a recording.",
)
@device_options
@config_options
def data_report(
    recordings: tuple[str, ...],
    out: Path,
    pages: int | None,
    faces: Faces,
    sound: str,
    run: Path | None,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Write pages to look at a data set: what was found in it, and each recording on a time line.

    The page of the data set lists all recordings, worst first, with the checks of `aupipe check`. That of a recording
    has its video, box and landmarks, face, sound, labels and predictions. All are files that need no network.
    RECORDINGS: only these, measured against all.

    \b
    Examples:
      aupipe report data
      aupipe report data clips/a.mp4 --run runs/20260101-120000-tcn-au
      aupipe report data --pages all --faces blur --sound none --out shared
    """
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.report.checks.corpus import check_corpus
    from aupipe.report.data_report import DataReport, choose_pages
    from aupipe.report.page import require_extra
    from aupipe.report.recording_page import FILE, VIDEO_FILE
    from aupipe.report.redaction import without_folders
    from aupipe.report.report_folder import refuse_other_content
    from aupipe.store.clocks import clock_of

    require_extra()
    refuse_other_content(out)
    config = require_config(resolve(config_file, store))
    opened = existing_store(config)
    dataset = open_dataset(config.dataset, clock_of(opened))
    features = build_feature_set(config, known=opened.features())
    chosen = dataset.select(recordings) if recordings else list(dataset.recordings)
    clocks = {features.graph(recording).clock.id for recording in chosen}
    if not any(True for clock in clocks for _ in opened.all_published(clock)):
        raise UsageError(f"{config.store.path}: nothing is stored of these recordings: aupipe extract")
    predicted = RunPredictions(run, config_file, store, gpu, cpu) if run is not None else None
    held_out = predicted.held_out() if predicted is not None else None
    checks = check_corpus(dataset, dataset.recordings, features, opened, held_out)
    names, paged = choose_pages(checks, [recording.id for recording in chosen], pages)
    wanted = set(paged)
    shown = [recording for recording in dataset.recordings if recording.id in wanted]
    folders = [config.dataset.videos, config.dataset.root, config.dataset.annotations, config.store.path]
    folders += [source.file.parent for _, source in config.dataset.tasks if source.file]
    made = DataReport(
        dataset,
        features,
        opened,
        checks,
        without_folders(folders),
        predicted.of(shown) if predicted else {},
        predicted.notes(shown) if predicted else {},
        _media_notes(opened, features, shown),
        faces,
        sound == "keep",
    )
    for name, reason in made.write(out, names, paged, min(len(os.sched_getaffinity(0)), MOST_WORKERS)):
        echo(f"aupipe: {name}: {reason}", err=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    count = len(list(out.glob(f"rec/*/{FILE}")))
    videos = any(out.glob(f"rec/*/{VIDEO_FILE}"))
    flagged = sum(name in checks.flagged for name in names)
    echo(
        f"wrote {out / 'index.html'}: {counted(len(names), 'recording')}, {flagged:,} flagged; "
        f"{counted(count, 'page')}, faces {faces if videos else 'none'}, sound {sound if videos else 'none'}; "
        f"{size / 1e6:.1f} MB"
    )


def _media_notes(store: Store, features: FeatureSet, recordings: Sequence[Recording]) -> dict[str, list[str]]:
    """Video -> what is odd in its media, from one feature of each modality: the others' records say the same."""
    graphs = [features.graph(recording) for recording in recordings]
    sound = (next((spec.id for spec, _ in graph.encoders if spec.modality == "audio"), "") for graph in graphs)
    keys = dict.fromkeys(
        (r.video_id, s) for r, g, s in zip(recordings, graphs, sound, strict=True) for s in (g.clock.id, s)
    )
    return media_notes(record for key in keys if key[1] and (record := store.record(*key)) is not None)
