"""ensemble: several trained runs as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.output import echo
from aupipe.cli.overwrite import refuse_nonempty
from aupipe.cli.scene import read_pairs
from aupipe.errors import UsageError

if TYPE_CHECKING:
    from aupipe.train.model import Model


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
    help="CSV name,member: a recording or its video, and a RUN by its number from 1 or as it is named here.",
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

    Each RUN is one member, also where it is an ensemble: it counts, votes and is routed to as one, by its own rule. A
    single RUN that is an ensemble (folds, seeds) stands for its members.

    \b
    Examples:
      aupipe ensemble runs/best-au runs/tcn-au --out runs/both
      aupipe ensemble runs/best-folds --rule vote --ties positive --out runs/voted
      aupipe ensemble runs/talk runs/reaction --rule routed --routes scenes.csv --default 1 --out runs/by-scene
    """
    from aupipe.train.model import load_model, save_ensemble

    refuse_nonempty(out)
    members = [load_model(path) for path in runs]
    names = [str(path) for path in runs]
    if len(members) == 1 and members[0].members:
        members = _members_of(members[0])
        names = [str(member.path) for member in members]
    shares = _floats(weights) if weights else ()
    table = _read_routes(routes, names) if routes else None
    default = default_member - 1 if default_member else None
    model = save_ensemble(out, members, rule, ties=ties, weights=shares, routes=table, default=default)
    echo(f"{model.name}: {model.path}")
    echo(f"next: aupipe evaluate {model.path}")


def _members_of(model: Model) -> list[Model]:
    """The members of a single ensemble, to be joined anew. Raises UsageError where another rule has joined them."""
    if model.rule != "mean" or model.weights:
        why = "weighted members" if model.weights else f"members joined by {model.rule}"
        raise UsageError(f"{model.path} has {why}: give further RUNs, or its members themselves")
    return list(model.members)


def _read_routes(path: Path, names: list[str]) -> dict[str, int]:
    """Recording or video -> place of its RUN, which a row names by its number from 1 or as it was given."""
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    places = {str(number): number - 1 for number in range(1, len(names) + 1)}
    places |= {name: place for place, name in enumerate(names) if not name.isdigit() and names.count(name) == 1}
    found: dict[str, int] = {}
    for name, member in read_pairs(path, "name,member"):
        if member not in places:
            raise UsageError(f"{path}: member {member!r}: expected one of {known}")
        if found.setdefault(name, places[member]) != places[member]:
            raise UsageError(f"{path}: {name!r} has two routes")
    return found


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--weights {text}: expected numbers with commas between") from None
