"""ensemble: combine several trained runs into one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from aupipe.cli.completion import MODEL
from aupipe.cli.context import Context, open_context, read_pairs
from aupipe.cli.options import config_options, device_options, require_config, resolve
from aupipe.cli.output import echo
from aupipe.cli.overwrite import refuse_nonempty
from aupipe.dataset import open_dataset
from aupipe.dataset_model import Dataset, nearest_recording
from aupipe.errors import UsageError
from aupipe.quantities import counted, first_of
from aupipe.tasks import Task

if TYPE_CHECKING:
    from aupipe.train.model import Model


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=MODEL)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the ensemble.")
@click.option(
    "--rule",
    type=click.Choice(["mean", "equal", "weighted", "vote", "routed"]),
    default="mean",
    show_default=True,
    help="equal: the mean without weights; weighted: by --weights, else by what the RUNs held out.",
)
@click.option(
    "--ties",
    type=click.Choice(["mean", "positive", "negative"]),
    default="mean",
    show_default=True,
    help="How a tied vote on an AU is decided: by the mean score, or always positive or negative.",
)
@click.option("--weights", help="Weights of the mean: numbers separated by commas, one per RUN.")
@click.option("--by", default="", metavar="COLUMN", help="Route by this column of the data set, such as scene.")
@click.option(
    "--route",
    "given_routes",
    multiple=True,
    metavar="NAME=RUN",
    help="A value of the column --by, else a recording or video, and its RUN, by number from 1 or as given here.",
)
@click.option(
    "--routes",
    type=click.Path(path_type=Path, exists=True),
    help="The same as a CSV file with the columns name,member.",
)
@click.option("--default", "default_member", metavar="RUN", help="The RUN for recordings without a route.")
@click.option(
    "--post",
    type=click.Choice(["own", "none"]),
    default="own",
    show_default=True,
    help="Post-processing of the RUNs before they are combined: own, as fitted for each; none.",
)
@click.option("--allow-missing", is_flag=True, help="Fit weights without the recordings that lack features.")
@device_options
@config_options
@click.pass_context
def ensemble(
    click_context: click.Context,
    runs: tuple[Path, ...],
    out: Path,
    rule: Any,
    ties: Any,
    weights: str | None,
    by: str,
    given_routes: tuple[str, ...],
    routes: Path | None,
    default_member: str | None,
    post: str,
    allow_missing: bool,
    gpu: str | None,
    cpu: bool,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Combine RUNs of one task into an ensemble, which is then used like a RUN.

    The RUNs may differ in folds, seeds or recipes. Each RUN is one member, also where it is an ensemble itself: it then
    applies its own rule first. Each keeps the post-processing that was fitted for it; AUs of a mean are compared with
    the mean of the thresholds. A single RUN that is an ensemble (of folds or seeds) is replaced by its members.

    \b
    Examples:
      aupipe ensemble runs/best-au runs/tcn-au --out runs/both
      aupipe ensemble runs/best-folds --rule vote --ties positive --out runs/voted
      aupipe ensemble runs/talk runs/reaction --rule routed --by scene --route reaction=2 --default 1 --out runs/scenes
    """
    from aupipe.train.model import load_model, save_ensemble

    refuse_nonempty(out)
    members = [load_model(path) for path in runs]
    names = [str(path) for path in runs]
    if len(members) == 1 and members[0].members:
        if members[0].post is not None:
            echo(f"aupipe: {runs[0]} is replaced by its members: its own post-processing is not used", err=True)
        members = _members_of(members[0], rule)
        names = [str(member.path) for member in members]
    numbers = _floats(weights) if weights else ()
    if rule == "equal" and numbers:
        raise UsageError("--rule equal has no --weights: leave one of them out")
    weighed_on: list[str] = []
    if rule == "weighted" and not numbers:
        context = open_context(config_file, store, gpu, cpu, allow_missing, None)
        numbers, weighed_on = _fit_weights(context, members, post == "own")
        echo("weights: " + ", ".join(f"{name} {number:g}" for name, number in zip(names, numbers, strict=True)))
    table, default = None, None
    if rule == "routed":
        dataset = open_dataset(require_config(resolve(config_file, store)).dataset)
        table = _read_routes(dataset, by, given_routes, routes, names)
        default = _index(default_member, names, "--default") if default_member else None
        if default is None:
            _refuse_unrouted(dataset, by, table)
    elif by or given_routes or routes or default_member:
        raise UsageError("--by, --route, --routes and --default need --rule routed")
    if click_context.get_parameter_source("ties") is ParameterSource.COMMANDLINE and rule != "vote":
        echo("aupipe: --ties changes nothing: only a vote has ties", err=True)
    model = save_ensemble(
        out,
        members,
        "mean" if rule in ("equal", "weighted") else rule,
        ties=ties,
        weights=numbers,
        weighed_on=weighed_on,
        by=by,
        routes=table,
        default=default,
        member_post=post == "own",
    )
    echo(f"{model.name}{f', ties: {ties}' if rule == 'vote' else ''}: {model.path}")
    _show_members(model, names)
    echo(f"next: aupipe {next_command(model.task, model.trained_on, config_file, store)} {model.path}")


def _members_of(model: Model, rule: str) -> list[Model]:
    """The members of an ensemble. Raises UsageError where that would drop its rule or its weights unsaid."""
    replaced = model.rule == "mean" and rule in ("equal", "weighted")
    if not replaced and (model.rule != "mean" or model.weights):
        why = "weighted members" if model.weights else f"members combined by {model.rule}"
        raise UsageError(f"{model.path} has {why}: give more RUNs, or its members themselves")
    return list(model.members)


def _fit_weights(context: Context, members: Sequence[Model], member_post: bool) -> tuple[tuple[float, ...], list[str]]:
    """Weights by what each member held out, and the ids of the recordings that they were chosen on."""
    from aupipe.train.ensemble import held_out_of_all
    from aupipe.train.member_weights import choose_weights

    task = members[0].task
    labels = context.dataset.labels_of(context.dataset.recordings, task.name)
    annotated = [r for r in context.dataset.recordings if r.id in labels]
    options: dict[str, Any] = {"device": context.device, "allow_missing": context.allow_missing}
    held = held_out_of_all(members, context.store, annotated, member_post, **options)
    if not held[0]:
        raise UsageError("no recording was held out by every RUN: give --weights")
    return choose_weights(held, {name: labels[name] for name in held[0]}, task), sorted(held[0])


def _read_routes(
    dataset: Dataset, by: str, given: Sequence[str], file: Path | None, names: Sequence[str]
) -> dict[str, int]:
    """Value of the column ``by``, or recording or video, -> index of its RUN. Raises UsageError for unknown names."""
    rows = [(name, member, str(file)) for name, member in (read_pairs(file, "name,member") if file else ())]
    for text in given:
        name, equals, member = (part.strip() for part in text.rpartition("="))
        if not (name and equals and member):
            raise UsageError(f"--route {text}: expected NAME=RUN, such as reaction=2")
        rows.append((name, member, "--route"))
    found: dict[str, int] = {}
    for name, member, where in rows:
        index = _index(member, names, where)
        if found.setdefault(name, index) != index:
            raise UsageError(f"{where}: {name!r} has two routes")
    if by:
        dataset.check_values(by, found)
        return found
    known = {name for recording in dataset.recordings for name in (recording.id, recording.group)}
    if unknown := next((name for name in found if name not in known), None):
        hint = nearest_recording(unknown, known)
        raise UsageError(f"a route of {unknown!r}, which is no recording or video of this data set.{hint}")
    return found


def _refuse_unrouted(dataset: Dataset, by: str, routes: Mapping[str, int]) -> None:
    """Raise UsageError for recordings without a route, which the ensemble could not predict."""
    names = {r.id: {r.value(by)} if by else {r.id, r.group} for r in dataset.recordings}
    found = [name for name, own in names.items() if own.isdisjoint(routes)]
    if found:
        shown = ", ".join(map(repr, found[:3])) + ", ..." * (len(found) > 3)
        raise UsageError(
            f"{counted(len(found), 'recording')} without a route ({shown}): --default names the RUN for them"
        )


def next_command(task: Task, trained_on: Set[str], config_file: Path | None, store: Path | None) -> str:
    """predict, where some of the recordings that `aupipe evaluate` scores were trained on; else evaluate."""
    config = resolve(config_file, store)
    if config.file is None:
        return "evaluate"
    scored = {r.id for r in open_dataset(config.dataset).split(task.name, "validation")}
    return "predict" if scored & trained_on else "evaluate"


def _index(member: str, names: Sequence[str], where: str) -> int:
    """The index of a RUN that is named by its number from 1 or as it was given."""
    indices: Mapping[str, int] = {str(number): number - 1 for number in range(1, len(names) + 1)} | {
        name: index for index, name in enumerate(names) if not name.isdigit() and names.count(name) == 1
    }
    if member not in indices:
        known = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
        raise UsageError(f"{where}: member {member!r}: expected one of {known}")
    return indices[member]


def _show_members(model: Model, names: Sequence[str]) -> None:
    """Print what each member is, its weight, its routes, and its post-processing."""
    routes = model.routes or {}
    for number, (name, member) in enumerate(zip(names, model.members, strict=True)):
        parts = [member.name]
        if model.weights:
            parts.append(f"weight {model.shares[number]:.3g}")
        if own := [f"{model.by} {route}".strip() for route, index in routes.items() if index == number]:
            parts.append(f"for {first_of(own, 3)}")
        if model.default == number:
            parts.append("for all others")
        post = member.post
        if post is not None:
            parts.append(post.describe() if model.member_post else "ITS POST-PROCESSING IS NOT USED")
        echo(f"  {number + 1}  {name}: {'; '.join(parts)}")


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--weights {text}: expected numbers separated by commas") from None
