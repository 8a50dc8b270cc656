"""The videos that a command is given: folders, files, or a list of them; and the data set they belong to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from aupipe.cli.options import Command, require_config, resolve, with_options
from aupipe.config import Config
from aupipe.dataset import dataset_of, is_in_dataset, open_dataset
from aupipe.dataset_model import Dataset
from aupipe.errors import UsageError


def videos_arguments(command: Command) -> Command:
    """``VIDEOS...`` and ``--from-list``."""
    options = [
        click.argument("videos", nargs=-1, type=click.Path(path_type=Path)),
        click.option(
            "--from-list",
            type=click.Path(path_type=Path, allow_dash=True),
            metavar="FILE",
            help="Also the videos, folders and ids of recordings that FILE names, one a line; - reads them from stdin.",
        ),
    ]
    return with_options(command, options)


def open_inputs(
    config_file: Path | None,
    store: Path | None,
    videos: Sequence[Path],
    from_list: Path | None,
    **overrides: Any,
) -> tuple[Config, Callable[[], Dataset]]:
    """The configuration of a command, and what opens the recordings it was given; all of the data set where none were.

    Videos of the configured data set are its recordings, with their ids. Others make a data set of their own, with ids
    relative to the folder that was given, or to the one that holds all of them. Without a configuration, the store is
    ``features`` in that folder. Both raise UsageError for what is not there.
    """
    config = resolve(config_file, store, **overrides)
    named = [str(video) for video in videos] + (read_list(from_list) if from_list is not None else [])
    if not named:
        require_config(config)
        return config, partial(open_dataset, config.dataset)
    if config.file is not None:
        is_inside = {name: is_in_dataset(Path(name), config.dataset) for name in named}
        inside = [name for name in named if is_inside[name]]
        outside = [name for name in named if not is_inside[name] and Path(name).exists()]
        if inside and outside:
            raise UsageError(f"{inside[0]} is in the configured data set and {outside[0]} is not: give them separately")
        if not outside:
            return config, lambda: open_dataset(config.dataset).within(named)
    root = _folder_of(named)
    overrides |= {"dataset.videos": root, "dataset.layout": "folder"}
    if config.file is None and store is None:
        # A recording's id is its path in the folder: two folders in one store would overwrite each other.
        store = root / "features"
    config = resolve(config_file, store, **overrides)
    return config, partial(dataset_of, root, [Path(name) for name in named], config.dataset)


def read_list(path: Path) -> list[str]:
    """The lines of a list that are not empty and do not begin with ``#``; of stdin for ``-``.

    Paths that are not absolute are below the current folder, else below the list's. Raises UsageError.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"--from-list {path}: cannot be read: {why}") from None
    lines = [line.strip() for line in text.splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise UsageError(f"--from-list {path}: it names no video")
    beside = path.parent if str(path) != "-" else Path()
    return [name if os.path.exists(name) or not (beside / name).exists() else str(beside / name) for name in named]


def _folder_of(named: Sequence[str]) -> Path:
    """The folder that holds videos and folders which are in no data set. Raises UsageError where one is missing."""
    if missing := next((name for name in named if not Path(name).exists()), None):
        raise UsageError(f"no file or folder {missing}")
    folders = [path if path.is_dir() else path.parent for path in map(Path, named)]
    return Path(os.path.commonpath([*map(os.path.abspath, folders)])) if len(folders) > 1 else folders[0]
