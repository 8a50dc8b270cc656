"""weights list, pull, import, verify: checkpoints of encoders and detectors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from aupipe.cli.completion import RECIPE, TASK
from aupipe.cli.options import json_option
from aupipe.cli.output import echo, echo_err, echo_json
from aupipe.config import load_config
from aupipe.errors import UsageError, WeightsMissingError
from aupipe.local_models import configure_weights


@click.group()
def weights() -> None:
    """Manage the checkpoints of encoders and detectors, in the folder of AUPIPE_WEIGHTS, or of [weights] path."""
    configure_weights(load_config().weights)


@weights.command("list")
@json_option
def list_known(as_json: bool) -> None:
    """List the known checkpoints: licence, source, and whether each is in the folder.

    \b
    Example:
      aupipe weights list
    """
    from aupipe.extract.weights.folder import list_weights

    rows = []
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
            "url": known.url,
            "size": known.size or None,
            "tried": known.tried,
        }
        rows.append(row)
        if as_json:
            continue
        commercial = {True: "commercial use yes", False: "commercial use no", None: "commercial use not stated"}
        echo(f"{'here   ' if row['here'] else 'missing'}  {line.name}")
        echo(f"         for {known.used_by}; {known.licence}; {commercial[known.commercial]}; {known.how}")
        if known.url:
            size = f"{known.size:,} bytes" if known.size else "size not known"
            digest = f"sha256 {known.sha256[:12]}" if known.sha256 else "sha256 not known"
            tried = "" if known.tried else "; address not tried"
            echo(f"         pull: {known.url} ({size}, {digest}{tried})")
    if as_json:
        echo_json("weights", {"weights": rows}, indent=1)


@weights.command()
@click.argument("names", nargs=-1)
@click.option("--recipe", type=RECIPE, help="What this recipe's encoders and detector need.")
@click.option("--task", type=TASK, help="With --recipe: the task. Default: all tasks of the recipe's paper.")
@click.option("--accept-license", is_flag=True, help="Accept licences that do not allow all uses: once for each.")
@json_option
def pull(names: tuple[str, ...], recipe: str | None, task: str | None, accept_license: bool, as_json: bool) -> int:
    """Download known checkpoints into the folder. No other command downloads anything.

    A download that was stopped goes on when it is run again. Proxies are those of the environment (https_proxy). With
    AUPIPE_MIRROR, an address, files come from there, under their names. Files with an address: see `aupipe weights
    list`; no address was tried when the list was written. Models of the Hugging Face hub: `hf download MODEL`.

    \b
    Examples:
      aupipe weights pull face_detection_yunet_2023mar.onnx
      aupipe weights pull --recipe aud-tgn --accept-license
      AUPIPE_MIRROR=http://files.lab/weights aupipe weights pull vggish-10086976.pth
    """
    from aupipe.cli.recipe_weights import pull_recipe
    from aupipe.extract.weights.pull import pull_weights

    if not names and recipe is None:
        raise UsageError("name the weights to pull (`aupipe weights list`), or --recipe NAME")

    fetched: list[str] = []

    def fetch(name: str) -> None:
        with _bar(name, as_json) as progress:
            path = pull_weights(name, accept_license=accept_license, progress=progress, tell=echo_err)
        fetched.append(str(path))
        if as_json:
            echo_json("item", {"name": name, "path": str(path)})
        else:
            echo(f"wrote {path}")

    for name in names:
        fetch(name)
    missing = pull_recipe(recipe, task, fetch) if recipe is not None else []
    for line in missing:
        echo(f"aupipe: not fetched: {line}", err=True)
    if as_json:
        echo_json("summary", {"fetched": len(fetched), "missing": missing})
    return WeightsMissingError.exit_code if missing else 0


@contextmanager
def _bar(name: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; without one, a line when the download begins and one when it ends."""
    from tqdm import tqdm

    shown: list[int] = []
    if quiet or sys.stderr.isatty():
        with tqdm(desc=name, unit="B", unit_scale=True, disable=quiet, file=sys.stderr) as bar:

            def move(here: int, total: int) -> None:
                bar.total = total or None
                bar.update(here - bar.n)

            yield move
        return

    def note(here: int, total: int) -> None:
        if not shown:
            echo_err(f"{name}: fetching" + (f" {total / 1e6:,.1f} MB" if total else ""))
        shown[:] = [here]

    yield note
    if shown:
        echo_err(f"{name}: {shown[0] / 1e6:,.1f} MB are here")


@weights.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", help="File name in the folder, for a single FILE.")
def import_files(files: tuple[Path, ...], name: str | None) -> None:
    """Copy downloaded FILES into the folder. Checkpoints become safetensors; their code is never executed.

    \b
    Example:
      aupipe weights import ~/Downloads/Resnet50_Final.pth
    """
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

    wrong, rows = 0, []
    for found in verify_weights():
        wrong += found.check in ("not the published file", "changed", "unreadable")
        rows.append({"path": str(found.path), "sha256": found.sha256, "check": found.check, "licence": found.licence})
        if not as_json:
            echo(f"{found.check:22}  {found.sha256[:12]}  {found.licence:24}  {found.path}")
    if as_json:
        echo_json("verified", {"files": rows, "wrong": wrong}, indent=1)
    return WeightsMissingError.exit_code if wrong else 0
