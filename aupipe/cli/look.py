"""overlay and preview: a recording with what was found in it, as a video and as a contact sheet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.completion import RECORDING
from aupipe.cli.options import config_options, existing_store, require_config, resolve
from aupipe.cli.output import echo
from aupipe.cli.overwrite import overwrite_option
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.quantities import counted

if TYPE_CHECKING:
    from aupipe.report.drawing import Faces
    from aupipe.report.faces import RecordingFaces
    from aupipe.types import Recording

FACES = click.option(
    "--faces",
    type=click.Choice(["show", "blur", "none"]),
    default="show",
    show_default=True,
    help="Show faces, blur them (this is no anonymisation), or leave out all pictures and sound.",
)


@click.command()
@click.argument("recording", type=RECORDING)
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write. Default: NAME-overlay.mp4, in this folder."
)
@FACES
@click.option(
    "--height",
    type=click.IntRange(0, 4320),
    default=0,
    metavar="PX",
    help="Height of the picture. Default: that of the video.",
)
@overwrite_option("the file")
@config_options
def overlay(
    recording: str,
    out: Path | None,
    faces: Faces,
    height: int,
    overwrite: bool,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Write RECORDING as a video (H.264) with the subject's box, other faces, and the state of each row.

    Frame k of it is row k of the store, at the recording's own times. A row shows the subject, other faces only, or
    nobody.

    \b
    Examples:
      aupipe overlay clips/a.mp4
      aupipe overlay clips/a.mp4 --out a.mp4 --faces blur --height 360
    """
    from aupipe.report.overlay import write_overlay
    from aupipe.report.sheet import describe

    chosen, stored = _open(recording, config_file, store)
    out = out or _default(chosen, "overlay.mp4")
    write_overlay(chosen, stored, out, faces, height, overwrite)
    echo(f"wrote {out}: {describe(stored)}")


@click.command()
@click.argument("recording", type=RECORDING)
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write. Default: NAME-preview.jpg, in this folder."
)
@FACES
@click.option("--tiles", type=click.IntRange(1, 600), default=24, show_default=True, metavar="N", help="Pictures.")
@overwrite_option("the file")
@config_options
def preview(
    recording: str,
    out: Path | None,
    faces: Faces,
    tiles: int,
    overwrite: bool,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Write a contact sheet of RECORDING: frames evenly in time, and those where the subject is lost or jumps.

    \b
    Example:
      aupipe preview clips/a.mp4
    """
    from aupipe.report.sheet import describe, write_sheet

    chosen, stored = _open(recording, config_file, store)
    out = out or _default(chosen, "preview.jpg")
    rows = write_sheet(chosen, stored, out, faces, tiles, overwrite)
    echo(f"wrote {out}: {counted(len(rows), 'picture')}; {describe(stored)}")


def _open(name: str, config_file: Path | None, store: Path | None) -> tuple[Recording, RecordingFaces]:
    from aupipe.extract.planning.features import build_feature_set
    from aupipe.report.frames import stored_faces

    config = require_config(resolve(config_file, store))
    opened = existing_store(config)
    recording, *others = open_dataset(config.dataset).select([name])
    if others:
        raise UsageError(f"{name} has several recordings, name one: {', '.join(r.id for r in (recording, *others))}")
    return recording, stored_faces(opened, build_feature_set(config, known=opened.features()), recording)


def _default(recording: Recording, ending: str) -> Path:
    """A name of its own for a recording, in the current folder."""
    return Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '_', recording.id)}-{ending}")
