"""weights list, pull, import, verify: checkpoints of encoders and detectors."""

from __future__ import annotations

import os
from pathlib import Path

import click

from aupipe.cli.options import json_option
from aupipe.cli.output import echo, echo_json
from aupipe.errors import WeightsMissingError


@click.group()
def weights() -> None:
    """Manage the checkpoints of encoders and detectors, in the folder that AUPIPE_WEIGHTS names."""


@weights.command("list")
@json_option
def list_known(as_json: bool) -> None:
    """List the known checkpoints: licence, source, and whether each is in the folder.

    \b
    Example:
      aupipe weights list
    """
    from aupipe.extract.weights.folder import list_weights

    for line in list_weights():
        known = line.known
        row = {
            "name": line.name,
            "here": line.path is not None,
            "used_by": known.used_by,
            "sha256": known.sha256,
            "licence": known.licence,
            "commercial": known.commercial,
            "how": known.how,
        }
        if as_json:
            echo_json(row)
            continue
        commercial = {True: "commercial use yes", False: "commercial use no", None: "commercial use not stated"}
        echo(f"{'here   ' if row['here'] else 'missing'}  {line.name}")
        echo(f"         for {known.used_by}; {known.licence}; {commercial[known.commercial]}; {known.how}")


@weights.command()
@click.argument("names", nargs=-1, required=True)
def pull(names: tuple[str, ...]) -> None:
    """Download known checkpoints from the Hugging Face hub. No other command uses the network.

    \b
    Example:
      aupipe weights pull NAME
    """
    os.environ["HF_HUB_OFFLINE"] = "0"
    from aupipe.extract.weights.folder import pull_weights

    for name in names:
        echo(f"wrote {pull_weights(name)}")


@weights.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", help="File name in the folder, for a single FILE.")
def import_files(files: tuple[Path, ...], name: str | None) -> None:
    """Copy downloaded FILES into the folder. Checkpoints become safetensors; their code is never executed.

    \b
    Example:
      aupipe weights import ~/Downloads/Resnet50_Final.pth
    """
    from aupipe.errors import UsageError
    from aupipe.extract.weights.folder import import_weights

    if name and len(files) > 1:
        raise UsageError("--name needs a single FILE")
    for file in files:
        if not file.is_file():
            raise UsageError(f"no file {file}")
        echo(f"wrote {import_weights(file, name)}")


@weights.command()
@json_option
def verify(as_json: bool) -> int:
    """Compare the sha256 of every file in the folder with the known one. Exit code 12 where one differs.

    \b
    Example:
      aupipe weights verify
    """
    from aupipe.extract.weights.folder import verify_weights

    wrong = 0
    for found in verify_weights():
        wrong += found.check in ("not the published file", "unreadable")
        if as_json:
            row = {"path": str(found.path), "sha256": found.sha256, "check": found.check, "licence": found.licence}
            echo_json(row)
        else:
            echo(f"{found.check:22}  {found.sha256[:12]}  {found.licence:24}  {found.path}")
    return WeightsMissingError.exit_code if wrong else 0
