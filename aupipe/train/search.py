"""Nested cross-validation over the points of a search: the score of the winner is of recordings that chose nothing.

For each outer fold, every point is trained on the folds that are left, each of which is held out once; the point with
the best score on what they held out is chosen, with its thresholds and smoothing, and predicts the outer fold. The same
on all folds chooses the point that is kept; the score by which it wins is the naive one. Varma and Simon, "Bias in
error estimation when using cross-validation for model selection", BMC Bioinformatics 2006.

With F folds that is F * F runs per point and seed (and member): F for the choice that is kept, F - 1 for each outer
fold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aupipe.documents import read_json
from aupipe.errors import AupipeError, DivergedError, UsageError
from aupipe.files import write_file
from aupipe.store import Store
from aupipe.store.api import open_once
from aupipe.tasks import Task
from aupipe.train.crossval import Fold, summarise
from aupipe.train.ensemble import LOST_S, train_ensemble
from aupipe.train.ensemble_recipe import expand_members
from aupipe.train.evaluate import evaluate, pooled
from aupipe.train.folder_lock import lock_folder
from aupipe.train.intervals import bootstrap, compare
from aupipe.train.model import Model, load_model
from aupipe.train.model_prediction import predict_model, predict_unseen
from aupipe.train.postprocess import apply_postprocess
from aupipe.train.predictions import Predictions
from aupipe.train.search_result import POINTS, CellScore, SearchResult
from aupipe.train.sweep import Point
from aupipe.types import Labels, Recording

CELL_FILE = "scores.json"
LEAST_FOLDS = 3  # two are held out at once, and one is trained on

Tell = Callable[[str], None]


@dataclass(frozen=True)
class SearchData:
    """What all runs of a search share; `aupipe.train.fit_config.FitData` says what each is."""

    task: Task
    labels: Mapping[str, Labels]
    features: Mapping[str, str]
    aux_labels: Mapping[str, Mapping[str, Labels]] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class Cell:
    """One point, trained on all folds but ``outer`` ('': on all); ``folds`` with a seed each: its runs."""

    point: Point
    outer: str
    folds: tuple[tuple[Fold, int], ...]

    @property
    def folder(self) -> Path:
        """Its folder below that of the search."""
        return Path(POINTS) / self.point.name / (f"without-{self.outer}" if self.outer else "all")

    @property
    def held_out(self) -> list[Recording]:
        """What its runs hold out, each recording once."""
        return list({item.id: item for fold, _ in self.folds for item in fold.validation}.values())

    def __str__(self) -> str:
        return f"{self.point.label}, {f'without {self.outer}' if self.outer else 'all folds'}"


def plan_cells(points: Sequence[Point], folds: Sequence[Fold], seeds: Sequence[int]) -> list[Cell]:
    """Every point on all folds, and without each of them. Raises UsageError for fewer than three folds."""
    if len(folds) < LEAST_FOLDS:
        raise UsageError(f"a search needs {LEAST_FOLDS} folds or more, not {len(folds)}: two are held out at a time")
    several = len(seeds) > 1
    cells = []
    for outer in ("", *(fold.name for fold in folds)):
        left_out = {item.id for fold in folds if fold.name == outer for item in fold.validation}
        inner = [
            (replace(fold, name=f"{fold.name}-seed{seed}" if several else fold.name, train=train), seed)
            for fold in folds
            if fold.name != outer and (train := tuple(item for item in fold.train if item.id not in left_out))
            for seed in seeds
        ]
        cells += [Cell(point, outer, tuple(inner)) for point in points]
    return cells


def count_runs(cells: Sequence[Cell], data: SearchData) -> int:
    """How many runs cells are trained with: one for each of their folds and members."""
    return sum(len(cell.folds) * len(expand_members(cell.point.recipe, data.features)) for cell in cells)


@dataclass(frozen=True)
class CellTrainer:
    """Trains the runs of a cell and scores what they held out; may be sent to another process.

    ``store``: an open one, or its path, which is then opened in the process that trains. ``options``: further fields of
    `aupipe.train.fit_config.FitConfig`.
    """

    store: Store | str
    data: SearchData
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, cell: Cell) -> CellScore:
        """The score of a cell, from its file where it has one; of a cell that diverges, the reason."""
        with lock_folder(self.out / cell.folder, LOST_S if isinstance(self.store, str) else 0.0):
            return self._train(cell)

    def _train(self, cell: Cell) -> CellScore:
        folder, data = self.out / cell.folder, self.data
        store = open_once(self.store)
        try:
            model = train_ensemble(
                store,
                cell.point.recipe,
                cell.folds,
                features=data.features,
                labels=data.labels,
                aux_labels=data.aux_labels,
                task=data.task,
                out=folder,
                command=data.command,
                **self.options,
            )
            if (known := _read_score(folder, model)) is not None:
                return known
            found = self.held_out(store, cell, model)
        except DivergedError as error:
            return CellScore(failed=str(error))
        summary = summarise([run for run in model.runs if run.scores is not None])
        score = pooled(found, {name: data.labels[name] for name in found}, data.task).mean
        made = CellScore(score, summary.mean, summary.deviation, len(model.runs))
        write_file(folder / CELL_FILE, json.dumps({"model": model.id, **asdict(made)}), overwrite=True)
        return made

    def held_out(self, store: Store, cell: Cell, model: Model) -> dict[str, Predictions]:
        """What a cell predicts of the recordings that its runs held out, after the post-processing fitted on them."""
        found = predict_unseen(model, store, cell.held_out, **self.prediction)
        found = {name: item for name, item in found.items() if name in self.data.labels}
        return apply_postprocess(model.post, found) if model.post is not None else found

    def predict(self, store: Store, model: Model, recordings: Sequence[Recording]) -> dict[str, Predictions]:
        """What a model predicts of recordings that it has not seen, after its post-processing."""
        found = predict_model(model, store, [r for r in recordings if r.id in self.data.labels], **self.prediction)
        return apply_postprocess(model.post, found) if model.post is not None else found

    @property
    def prediction(self) -> dict[str, Any]:
        """The options of `aupipe.train.predict.predict`."""
        return {key: self.options[key] for key in ("device", "threads", "allow_missing") if key in self.options}


def _read_score(folder: Path, model: Model) -> CellScore | None:
    try:
        content = read_json(folder / CELL_FILE)
        return CellScore(**content) if content.pop("model") == model.id else None
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None  # it is computed again


def search(
    points: Sequence[Point],
    folds: Sequence[Fold],
    seeds: Sequence[int],
    trainer: CellTrainer,
    *,
    run: Callable[[Sequence[Cell]], Iterable[tuple[Cell, CellScore]]] | None = None,
    tell: Tell = lambda line: None,
) -> SearchResult:
    """Train every point on all folds and without each, choose, and score the choice on what it has not seen.

    ``run`` trains cells, in any order; None: one after another, in this process. What is trained already is kept, so
    the same call again goes on where it was stopped.

    Raises UsageError for fewer than three folds, and AupipeError where a cell was not trained, or where every point
    diverged.
    """
    cells, store = plan_cells(points, folds, seeds), open_once(trainer.store)
    found: dict[tuple[str, str], CellScore] = {}
    total, done = count_runs(cells, trainer.data), 0
    for cell, score in run(cells) if run is not None else ((cell, trainer(cell)) for cell in cells):
        found[cell.outer, cell.point.name] = score
        done += count_runs([cell], trainer.data)
        tell(f"{done}/{total} runs  {cell}: {score.failed or f'score {score.score:.3f} on what they held out'}")
    by_place = {(cell.outer, cell.point.name): cell for cell in cells}
    chosen = {outer: _choose(points, found, outer) for outer in ("", *(fold.name for fold in folds))}
    outer_found: dict[str, Predictions] = {}
    for fold in folds:
        model = load_model(trainer.out / by_place[fold.name, chosen[fold.name].name].folder)
        outer_found |= trainer.predict(store, model, fold.validation)
    best = by_place["", chosen[""].name]
    kept = load_model(trainer.out / best.folder)
    won = trainer.held_out(store, best, kept)
    everyone = best.held_out
    known = {item.id: trainer.data.labels[item.id] for item in everyone if item.id in trainer.data.labels}
    task, groups = trainer.data.task, {item.id: item.group for item in everyone}
    naive, nested = pooled(won, known, task), evaluate(outer_found, known, task)
    caveat = "the winner won by this score"
    naive = replace(naive, tuned_on_itself=kept.post is not None and bool(kept.post.tuned_on), caveats=(caveat,))
    names = tuple(fold.name for fold in folds)
    result = SearchResult(tuple(points), names, tuple(seeds), found, chosen, kept, naive, nested)
    if len({groups[name] for name in known}) < 2:
        return result
    one, other = (bootstrap(each, known, task, groups) for each in (won, outer_found))
    difference = compare(one, other) if one.sums.groups == other.sums.groups else None
    return replace(result, naive_interval=one, nested_interval=other, optimism_interval=difference)


def _choose(points: Sequence[Point], found: Mapping[tuple[str, str], CellScore], outer: str) -> Point:
    """The point with the best score without an outer fold; of equal ones the first."""
    scored = [point for point in points if not found[outer, point.name].failed]
    if not scored:
        first = found[outer, points[0].name].failed
        raise AupipeError(f"every point of the search failed{f' without {outer}' if outer else ''}: {first}")
    return max(scored, key=lambda point: found[outer, point.name].score)
