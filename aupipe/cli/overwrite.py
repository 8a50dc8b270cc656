"""Checks before a command writes: what exists is replaced only with ``--overwrite``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from aupipe.dataset import label_name
from aupipe.errors import UsageError
from aupipe.files import refuse_existing
from aupipe.types import Recording

TABLES = ("csv", "parquet", "events")  # formats of one file with the full names of the recordings
SUFFIXES = {"tracks": ".txt", "eaf": ".eaf", "textgrid": ".TextGrid"}  # formats of a file for each recording


def overwrite_option(what: str, *names: str) -> Callable[[Any], Any]:
    """``--overwrite``, for commands that write a file the user names."""
    return click.option(*names, "--overwrite", "overwrite", is_flag=True, help=f"Replace {what} if already there.")


def refuse_nonempty(folder: Path, why: str = "") -> None:
    """Raises UsageError where a command that writes a new folder would write into one with other content."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty{why}: choose another folder")


def refuse_lost_predictions(recordings: Sequence[Recording], form: str, out: Path, overwrite: bool) -> None:
    """Raises UsageError where predictions would overwrite each other, or what exists at ``out``.

    All formats but tables name a recording without its file suffix, as the challenge does.
    """
    from aupipe.train.prediction_files import same_file, track_file

    if form in TABLES:
        refuse_existing(out, overwrite)
        return
    named: dict[str, str] = {}
    for recording in recordings:
        name = label_name(recording)
        first = named.setdefault(name, recording.id)
        if first != recording.id:
            raise UsageError(
                f"{first} and {recording.id} would both be written as {name!r}: predict one of them, or use "
                "--format csv, which writes full names"
            )
    if form == "abaw":
        refuse_existing(out, overwrite)
        return
    if twins := same_file(named):
        first, second = (named[name] for name in twins)
        raise UsageError(
            f"{first} and {second} would be written to one file on a case-insensitive file system: "
            "predict them one by one, each with its own --out"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: --format {form} writes a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UsageError(f"{out} is not empty: choose another folder, or give --overwrite to write into it")
    for name in named:
        refuse_existing(track_file(out, name, SUFFIXES[form]), overwrite)
