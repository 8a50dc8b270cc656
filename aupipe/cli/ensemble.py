"""ensemble: combine several trained runs into one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.context import read_pairs
from aupipe.cli.output import echo
from aupipe.cli.overwrite import refuse_nonempty
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
    help="How a tied vote is decided: by the mean score, or always positive or negative.",
)
@click.option("--weights", help="Weights of the mean: numbers separated by commas, one per RUN.")
@click.option(
    "--routes",
    type=click.Path(path_type=Path, exists=True),
    help="CSV with the columns name,member: a recording or video, and its RUN, by number from 1 or as given here.",
)
@click.option(
    "--default", "default_member", type=click.IntRange(min=1), help="Number of the RUN for recordings without a route."
)
def ensemble(
    runs: tuple[Path, ...],
    out: Path,
    rule: Any,
    ties: Any,
    weights: str | None,
    routes: Path | None,
    default_member: int | None,
) -> None:
    """Combine RUNs of one task into an ensemble, which is then used like a RUN.

    The RUNs may differ in folds, seeds or recipes. Each RUN is one member, also where it is an ensemble itself: it then
    applies its own rule first. A single RUN that is an ensemble (of folds or seeds) is replaced by its members.

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
    numbers = _floats(weights) if weights else ()
    table = _read_routes(routes, names) if routes else None
    default = default_member - 1 if default_member else None
    model = save_ensemble(out, members, rule, ties=ties, weights=numbers, routes=table, default=default)
    echo(f"{model.name}: {model.path}")
    echo(f"next: aupipe evaluate {model.path}")


def _members_of(model: Model) -> list[Model]:
    """The members of an ensemble. Raises UsageError for an ensemble by another rule than the plain mean."""
    if model.rule != "mean" or model.weights:
        why = "weighted members" if model.weights else f"members combined by {model.rule}"
        raise UsageError(f"{model.path} has {why}: give more RUNs, or its members themselves")
    return list(model.members)


def _read_routes(path: Path, names: list[str]) -> dict[str, int]:
    """Recording or video -> index of its RUN, which a row names by number from 1 or as it was given."""
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    indices = {str(number): number - 1 for number in range(1, len(names) + 1)}
    indices |= {name: index for index, name in enumerate(names) if not name.isdigit() and names.count(name) == 1}
    found: dict[str, int] = {}
    for name, member in read_pairs(path, "name,member"):
        if member not in indices:
            raise UsageError(f"{path}: member {member!r}: expected one of {known}")
        if found.setdefault(name, indices[member]) != indices[member]:
            raise UsageError(f"{path}: {name!r} has two routes")
    return found


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--weights {text}: expected numbers separated by commas") from None
