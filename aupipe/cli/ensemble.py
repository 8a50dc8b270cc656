"""ensemble: several trained runs as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aupipe.cli.output import echo
from aupipe.cli.scene import read_pairs
from aupipe.errors import UsageError


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the ensemble.")
@click.option("--rule", type=click.Choice(["mean", "vote", "routed"]), default="mean", show_default=True)
@click.option(
    "--ties",
    type=click.Choice(["mean", "positive", "negative"]),
    default="mean",
    show_default=True,
    help="Of a vote: by the mean score, or always yes or no.",
)
@click.option("--weights", help="Of a mean: numbers with commas, one per RUN.")
@click.option(
    "--routes",
    type=click.Path(path_type=Path, exists=True),
    help="CSV name,member: a recording or its video, and a RUN by number from 1.",
)
@click.option("--default", "default_member", type=click.IntRange(min=1), help="The RUN of recordings without a route.")
def ensemble(
    runs: tuple[Path, ...],
    out: Path,
    rule: Any,
    ties: Any,
    weights: str | None,
    routes: Path | None,
    default_member: int | None,
) -> None:
    """Join RUNs of one task, across folds, seeds or recipes; the result is used like a RUN.

    Where one of them has weighted members (train --recipe best), all RUNs count alike, each with its weights.

    \b
    Examples:
      aupipe ensemble runs/best-au runs/tcn-au --out runs/both
      aupipe ensemble runs/best-folds --rule vote --ties positive --out runs/voted
      aupipe ensemble runs/talk runs/reaction --rule routed --routes scenes.csv --default 1 --out runs/by-scene
    """
    from aupipe.train.model import load_model, save_ensemble

    models = [load_model(path) for path in runs]
    members = [run for model in models for run in model.runs]
    shares = _floats(weights) if weights else ()
    weighed = sorted({name for model in models for name in model.weighed_on})
    if own := [model for model in models if model.weights]:
        if rule != "mean" or weights:
            raise UsageError(f"{own[0].path}: its members have weights of their own: join it by --rule mean alone")
        shares = tuple(share for model in models for share in model.shares)
    table = {name: _member(text, routes) for name, text in read_pairs(routes, "name,member")} if routes else None
    default = default_member - 1 if default_member else None
    model = save_ensemble(
        out, members, rule, ties=ties, weights=shares, weighed_on=weighed, routes=table, default=default
    )
    echo(f"{model.name}: {model.path}")
    echo(f"next: aupipe evaluate {model.path}")


def _member(text: str, path: Path | None) -> int:
    if not text.isdigit() or text == "0":
        raise UsageError(f"{path}: member {text!r}: expected a RUN by number, from 1")
    return int(text) - 1


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--weights {text}: expected numbers with commas between") from None
