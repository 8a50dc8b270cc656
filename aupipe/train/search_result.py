"""What a search found: the scores of its points, its choices, and what they are worth (`aupipe.train.search`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aupipe.documents import read_json
from aupipe.train.intervals import BootstrapInterval
from aupipe.train.model import Model
from aupipe.train.scores import Scores
from aupipe.train.sweep import Point

RESULT_FILE, POINTS = "sweep.json", "points"  # in the folder of a search


@dataclass(frozen=True)
class CellScore:
    """The score on what the runs of a cell held out; ``mean`` and ``deviation`` over the runs' own scores.

    ``failed``: why there is no score.
    """

    score: float = float("nan")
    mean: float = float("nan")
    deviation: float = float("nan")
    runs: int = 0
    failed: str = ""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    ``cells``: (outer fold, name of the point) -> score. ``chosen``: outer fold -> the point chosen without it; under
    '' the winner. ``naive``: the scores by which the winner won; ``nested``: those of the outer folds, each predicted
    by the point that was chosen without it. ``optimism``: naive minus nested; its interval is paired by video.
    """

    points: tuple[Point, ...]
    folds: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[tuple[str, str], CellScore]
    chosen: Mapping[str, Point]
    model: Model
    naive: Scores
    nested: Scores
    naive_interval: BootstrapInterval | None = None
    nested_interval: BootstrapInterval | None = None
    optimism_interval: tuple[float, float] | None = None

    @property
    def winner(self) -> Point:
        return self.chosen[""]

    @property
    def optimism(self) -> float:
        return self.naive.mean - self.nested.mean

    def to_json(self) -> dict[str, Any]:
        """What `sweep.json` holds."""

        def cell(point: Point, outer: str) -> dict[str, Any]:
            content = asdict(self.cells[outer, point.name])
            return {key: None if value != value else value for key, value in content.items()}  # NaN is no JSON

        points = [
            {
                "name": point.name,
                "label": point.label,
                "settings": dict(point.settings),
                **cell(point, ""),
                "without": {outer: cell(point, outer) for outer in self.folds},
                "chosen_without": [outer for outer in self.folds if self.chosen[outer].name == point.name],
            }
            for point in self.points
        ]
        return {
            "format": 1,
            "task": self.nested.task.name,
            "metric": self.nested.metric,
            "folds": list(self.folds),
            "seeds": list(self.seeds),
            "runs": sum(score.runs for score in self.cells.values()),
            "points": points,
            "winner": self.winner.name,
            "naive": {"scores": self.naive.to_json(), "interval": _interval(self.naive_interval)},
            "nested": {"scores": self.nested.to_json(), "interval": _interval(self.nested_interval)},
            "optimism": {"value": self.optimism, "interval": self.optimism_interval},
        }


def _interval(found: BootstrapInterval | None) -> dict[str, Any] | None:
    return found.to_json() if found is not None else None


def choice_caveats(model: Model, scored: Collection[str]) -> list[str]:
    """Why a score on the recordings ``scored`` is optimistic: a search chose the model, or a member, on some of them.

    A model of a search is the one in its folder, or one below `POINTS` there.
    """
    found = []
    for file, ids in _chosen_on(model).items():
        if both := ids & set(scored):
            content = read_json(file)
            nested = f"{content['nested']['scores']['mean']:.3f} {content['metric']}"
            found.append(
                f"{len(both)} of these recordings CHOSE THIS POINT of a search, so it is optimistic: the nested score, "
                f"{nested}, is the one to report ({RESULT_FILE})"
            )
    return found


def _chosen_on(model: Model) -> dict[Path, frozenset[str]]:
    """The file of each search that chose a model or its members -> ids of the recordings that it chose on."""
    folder = model.path.resolve()
    places = [folder, *(parent.parent for parent in folder.parents if parent.name == POINTS)]
    found = {place / RESULT_FILE: model.chosen_on for place in places if (place / RESULT_FILE).is_file()}
    for member in model.members:
        for file, ids in _chosen_on(member).items():
            found[file] = found.get(file, frozenset()) | ids
    return found
