"""train --sweep: a search over settings of a recipe, scored by nested cross-validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.context import trivial_scores
from aupipe.cli.data import Data
from aupipe.cli.output import echo, echo_json
from aupipe.cli.train_parts import run_parts
from aupipe.cli.train_request import TrainRequest
from aupipe.cli.train_split import Worth, leaves_validation
from aupipe.cli.work import Place
from aupipe.documents import read_json
from aupipe.errors import UsageError
from aupipe.files import write_file
from aupipe.logs import repeating_nothing
from aupipe.quantities import counted
from aupipe.tasks import Task

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.crossval import Fold
    from aupipe.train.ensemble_recipe import EnsembleRecipe
    from aupipe.train.search import Cell, SearchData
    from aupipe.train.sweep import Point

PLOT_FILE = "sweep.svg"


class SweepCommand(click.Command):
    """A command without arguments whose ``--sweep`` takes all words up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeat_option(args, "--sweep"))


def repeat_option(words: Sequence[str], option: str) -> list[str]:
    """``--sweep a b --x`` as ``--sweep a --sweep b --x``."""
    found: list[str] = []
    inside = False
    for word in words:
        if word.startswith("-"):
            inside = word.partition("=")[0] == option
        elif inside and found[-1] != option:
            found.append(option)
        found.append(word)
    return found


def read_sweep(
    texts: Sequence[str], recipe: str, changes: Sequence[str], per_feature: bool, task: Task
) -> tuple[dict[str, Any], ...]:
    """The points of ``--sweep`` as a request keeps them; () without it. Raises UsageError as `read_points` does."""
    from aupipe.train.ensemble_recipe import load_ensemble_recipe
    from aupipe.train.sweep import read_points

    def read(more: Sequence[str]) -> EnsembleRecipe:
        return load_ensemble_recipe(recipe, [*changes, *more], per_feature, task)

    return tuple(point.to_json() for point in read_points(texts, changes, read, task)) if texts else ()


def points_of(request: TrainRequest) -> list[Point]:
    """The points of a request, on the features that were asked for."""
    from aupipe.train.sweep import point_from_json

    points = [point_from_json(content) for content in request.sweep]
    if not request.features:
        return points
    return [p if _sets_features(p) else replace(p, recipe=p.recipe.on(request.features)) for p in points]


def _sets_features(point: Point) -> bool:
    """Whether a point has features of its own, or a member of it has."""
    return any(key.rpartition(".")[2] == "features" for key in point.settings)


def with_points(ensemble: EnsembleRecipe, points: Sequence[Point]) -> EnsembleRecipe:
    """A recipe that needs the data of all points; without any, that of ``ensemble``."""
    if not points:
        return ensemble
    return replace(ensemble, members=tuple(member for point in points for member in point.recipe.members))


def run_sweep(
    request: TrainRequest,
    data: Data,
    folds: Sequence[Fold],
    store: Store,
    out: Path,
    options: Mapping[str, Any],
    place: Place,
    devices: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Train what is left of a search, and write its result, its plot and its winner.

    Raises AupipeError where cells were not trained, because their process died twice.
    """
    from aupipe.report.search_plot import draw_search
    from aupipe.train.model import save_ensemble
    from aupipe.train.search import CellTrainer, SearchData, plan_cells, search
    from aupipe.train.search_result import RESULT_FILE

    points = points_of(request)
    shared = SearchData(data.task, data.labels, data.features, data.aux_labels, data.command)
    trainer = CellTrainer(store, shared, out, dict(options))
    cells = plan_cells(points, folds, request.seeds)
    _tell_cost(cells, shared, len(folds), place, tell)
    run = (lambda given: run_parts(trainer, given, place, devices, tell)) if place.is_elsewhere else None
    with repeating_nothing():
        found = search(points, folds, request.seeds, trainer, run=run, tell=tell)
    labels = {r.id: data.labels[r.id] for fold in folds for r in fold.validation if r.id in data.labels}
    trivial = {name: scores.to_json() for name, scores in trivial_scores(labels, data.task).items()}
    document = found.to_json() | {"trivial": trivial, "damaged": data.damaged}
    document |= {"unused": leaves_validation(data, request)}
    write_file(out / RESULT_FILE, json.dumps(document, indent=1), overwrite=True)
    write_file(out / PLOT_FILE, draw_search(document), overwrite=True)
    save_ensemble(out, [found.model])  # last: a folder that has it is finished


def _tell_cost(cells: Sequence[Cell], data: SearchData, folds: int, place: Place, tell: Callable[[str], None]) -> None:
    """Say how many runs a search takes, and of what."""
    from aupipe.train.search import count_runs

    points = len({cell.point.name for cell in cells})
    several = counted(points, "point") + (", each" if points > 1 else ",")
    where = f"{place.jobs} processes" if place.jobs > 1 else "one process (--jobs N uses several)"
    if place.scheduler is not None:
        where = f"{where} on each machine"
    tell(f"{counted(count_runs(cells, data), 'run')}: {several} on all {folds} folds and without each of them; {where}")


def show_sweep(out: Path, as_json: bool) -> None:
    """Print the result of the search in a folder: a line per point, then the score of the winner, and where it is."""
    from aupipe.train.scores import Scores
    from aupipe.train.search_result import RESULT_FILE

    try:
        document = read_json(out / RESULT_FILE)
    except (OSError, ValueError) as error:
        raise UsageError(f"{out / RESULT_FILE}: not readable ({error}): train into another folder") from error
    if as_json:
        echo_json("search", {"model": str(out), **document})
        return
    echo(*_table(document), "")
    nested, naive = (Scores.from_json(document[key]["scores"]) for key in ("nested", "naive"))
    trivial = {name: Scores.from_json(content) for name, content in document["trivial"].items()}
    echo(*nested.table(trivial, name="nested").split("\n"), "")
    winner = next(point for point in document["points"] if point["name"] == document["winner"])
    optimism, metric = document["optimism"], document["metric"]
    within = {key: _within((document[key]["interval"] or {}).get("interval")) for key in ("nested", "naive")}
    also = "it also contains training on fewer people"
    few = (document["nested"]["interval"] or {}).get("caveat", "")
    echo(
        f"winner: {winner['label']}",
        f"nested {metric} {nested.mean:.3f}{within['nested']}: each fold by the point chosen without it; report this",
        f"naive {metric} {naive.mean:.3f}{within['naive']}: the score that the winner won by; do not report it",
        f"optimism {optimism['value']:.3f}{_within(optimism['interval'])}: naive minus nested; {also}",
        *([few] if few else []),
        f"search: {out} (the winner's model, {RESULT_FILE}, {PLOT_FILE})",
        Worth("", document["unused"]).next_command(out),
    )


def _within(bounds: Sequence[float] | None) -> str:
    return f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""


def _table(document: Mapping[str, Any]) -> list[str]:
    """A line per point: its score on what all folds held out, the mean of its runs' own, and where it was chosen."""
    folds = len(document["folds"])
    rows = [["point", f"naive {document['metric']}", "its runs", "chosen"]]
    for point in document["points"]:
        failed = [outer for outer, cell in point["without"].items() if cell["failed"]]
        times = f"in {len(point['chosen_without'])} of {folds} folds" if point["chosen_without"] else ""
        won = "winner" if point["name"] == document["winner"] else ""
        lost = f"failed without {', '.join(failed)}" if failed else ""
        if point["failed"]:
            rows.append([point["label"], "failed", "", f"{point['failed']}"])
            continue
        spread = f"{point['mean']:.3f} +- {point['deviation']:.3f}"
        rows.append([point["label"], f"{point['score']:.3f}", spread, ", ".join(filter(None, [won, times, lost]))])
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3]]).rstrip()
        for row in rows
    ]
