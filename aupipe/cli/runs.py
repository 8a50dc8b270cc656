"""runs: which models have been trained."""

from __future__ import annotations

from pathlib import Path

import click

from aupipe.cli.options import json_option
from aupipe.cli.output import echo, echo_json
from aupipe.config import load_config
from aupipe.errors import UsageError

NOTES = {  # on scores that are not of one run, by `score_of`: as they are named in the list
    "mean of runs": "the mean of their scores, each on what the run held out; the table of `aupipe train` scores all "
    "these frames together",
    "nested": "of a search: what its choice is worth on recordings that it has not seen",
}


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path(path_type=Path))
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Configuration file.")
@json_option
def runs(folders: tuple[Path, ...], config_file: Path | None, as_json: bool) -> None:
    """List trained models, oldest first: score, task, recipe, date, folder. The members of an ensemble are not listed.

    FOLDER: where to look, and below. Default: runs, beside aupipe.toml.

    The score is that of training, on the recordings that also chose the epoch; `aupipe evaluate` gives others.

    \b
    Examples:
      aupipe runs
      aupipe runs runs/2026 --json
    """
    from aupipe.train.model_listing import list_models

    config = load_config(config_file)
    default = (config.file.parent if config.file else Path.cwd()) / "runs"
    found = []
    for folder in folders or (default,):
        if folder.is_dir():
            found += list_models(folder)
        elif folders:
            raise UsageError(f"{folder}: no such folder")
    if as_json:
        echo_json("models", {"models": [one.to_json() for one in found]}, indent=1)
        return
    if not found:
        echo(f"no trained models in {', '.join(map(str, folders or (default,)))}: aupipe train")
        return
    echo(f"{'written (UTC)':17} {'score':>10} {'task':8} {'recipe':28} folder")
    for one in found:
        score = f"{one.score:.3f} {one.metric}" if one.score is not None else "-"
        about = one.recipe + (f", {one.score_of}" if one.score_of in NOTES else "")
        state = f"  {one.error}" if one.error else "" if one.finished else "  unfinished: aupipe train --resume"
        when = one.written_utc[:16].replace("T", " ")
        echo(f"{when:17} {score:>10} {one.task:8} {about:28} {_short(one.path)}{state}")
    for kind, note in NOTES.items():
        if any(one.score_of == kind for one in found):
            echo(f"{kind}: {note}")


def _short(path: Path) -> str:
    """As one would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
