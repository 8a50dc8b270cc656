"""A search is scored by what its choices have not seen: nested cross-validation over the points of a sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from aupipe.errors import AupipeError, UsageError
from aupipe.store import create_store
from aupipe.tasks import OFFICIAL
from aupipe.train.crossval import group_folds
from aupipe.train.ensemble_recipe import EnsembleRecipe, load_ensemble_recipe
from aupipe.train.evaluate import trivial_baseline
from aupipe.train.run import load_run
from aupipe.train.search import CellTrainer, SearchData, plan_cells, search
from aupipe.train.search_result import SearchResult
from aupipe.train.sweep import Point, point_from_json, read_points, split_values
from aupipe.types import FeatureSpec, Labels, Recording

from .toy_corpus import Corpus, make_corpus

SMALL = ("epochs=1", "window=20", "hop=20", "batch=8")
TUNED = (*SMALL, "postprocess.au.threshold=tune", "postprocess.au.smooth=gaussian")


def points_of(
    *texts: str, recipe: str = "baseline", fixed: Sequence[str] = SMALL, task: str = "au"
) -> tuple[Point, ...]:
    def read(more: Sequence[str]) -> EnsembleRecipe:
        return load_ensemble_recipe(recipe, [*fixed, *more], task=OFFICIAL[task])

    return read_points(texts, fixed, read, OFFICIAL[task])


def trainer_of(corpus: Corpus, out: Path) -> CellTrainer:
    data = SearchData(OFFICIAL[corpus.task], corpus.labels, corpus.features)
    return CellTrainer(corpus.store, data, out)


def run_search(
    corpus: Corpus, points: Sequence[Point], out: Path, folds: int = 3, seeds: Sequence[int] = (0,)
) -> SearchResult:
    return search(points, group_folds(corpus.train, folds), seeds, trainer_of(corpus, out))


# Points


def test_points_are_the_combinations_of_all_values_whatever_the_order_they_are_typed_in() -> None:
    one = points_of("lr=1e-3,1e-2", "head.width=8,16", recipe="tcn")
    assert [point.settings for point in one] == [
        {"head.width": width, "optimiser.lr": lr} for width in (8, 16) for lr in (1e-3, 1e-2)
    ]
    assert one == points_of("head.width=16,8", "optimiser.lr=0.01,0.001", recipe="tcn")
    assert [point.recipe.members[0].recipe.optimiser.lr for point in one] == [1e-3, 1e-2, 1e-3, 1e-2]
    assert len({point.name for point in one}) == 4
    assert one == tuple(point_from_json(json.loads(json.dumps(point.to_json()))) for point in one)


def test_lists_and_settings_of_one_member_are_swept_too() -> None:
    lists = points_of("head.channels=[8],[8,8]", recipe="tcn")
    assert [point.settings["head.channels"] for point in lists] == [[8, 8], [8]]
    members = points_of("linear.lr=0.1,0.2", recipe="best", fixed=())
    assert [p.recipe.members[-1].recipe.optimiser.lr for p in members] == [0.1, 0.2]
    assert {p.recipe.members[1].recipe.optimiser.lr for p in members} == {1e-3}
    assert split_values('a,[b,[c,d]],"e,f"', "") == ["a", "[b,[c,d]]", '"e,f"']


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("lr",), "expected key=value,value"),
        (("lr=",), "expected key=value,value"),
        (("lr=1,,2",), "expected values separated by commas"),
        (("head.channels=[8,[16]",), "brackets and quotes in pairs"),
        (("lr=1,1",), "1 is given twice"),
        (("lr=1e-2,0.01",), "are the same to a run of au"),
        (("momentum=0.1,0.2", "optimiser.kind=adamw"), "are the same to a run of au"),
        (("lr=1", "optimiser.lr=2"), "optimiser.lr is swept twice"),
        (("epochs=2,3",), "epochs is given by --set too"),
        (("leerning=1",), "unknown key 'leerning'"),
        (("head.depth=1",), "depth"),
        (("lr=fast",), "lr = 'fast': expected"),
        (("lr=-1",), "lr"),
        (("head.kind=liner",), "liner"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_trained(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("[", r"\[")):
        points_of(*texts)


# The search


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(train=6, validation=0, frames=60)


@pytest.fixture(scope="module")
def found(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    out = tmp_path_factory.mktemp("search")
    return run_search(corpus, points_of("lr=1e-3,0.1", fixed=TUNED), out), out


def test_nothing_that_chooses_for_an_outer_fold_has_seen_it(corpus: Corpus, found: tuple[SearchResult, Path]) -> None:
    result, out = found
    folds = {fold.name: {item.id for item in fold.validation} for fold in group_folds(corpus.train, 3)}
    for name, held_out in folds.items():
        places = list(out.glob(f"points/*/without-{name}"))
        assert len(places) == 2
        for place in places:
            runs = [load_run(path.parent) for path in place.glob("*/run.json")]
            assert len(runs) == 2
            assert not any(held_out & {*run.train, *run.validation} for run in runs)
            post = json.loads((place / "postprocess.json").read_text())
            assert post["tuned_on"]
            assert not held_out & set(post["tuned_on"])
    assert result.nested.recordings == len(corpus.train)
    assert result.nested.frames == result.naive.frames
    assert result.cells["", result.winner.name].score == pytest.approx(result.naive.mean)
    assert result.naive.mean == max(result.cells["", point.name].score for point in result.points)
    assert result.naive.tuned_on_itself
    assert not result.nested.tuned_on_itself
    assert len(list(out.glob("points/*/*/*/run.json"))) == 2 * 3 * 3 == sum(cell.runs for cell in result.cells.values())
    assert result.optimism_interval is not None
    assert result.optimism_interval[0] <= result.optimism <= result.optimism_interval[1]


def test_equal_seeds_give_an_equal_result_in_any_order_of_points_and_cells(
    corpus: Corpus, found: tuple[SearchResult, Path], tmp_path: Path
) -> None:
    points, trainer = points_of("lr=0.1,1e-3", fixed=TUNED), trainer_of(corpus, tmp_path)
    folds = group_folds(corpus.train, 3)
    backwards = search(points, folds, [0], trainer, run=lambda cells: ((c, trainer(c)) for c in reversed(cells)))
    assert backwards.to_json() == found[0].to_json()


def test_a_stopped_search_goes_on_and_trains_nothing_twice(
    corpus: Corpus, found: tuple[SearchResult, Path], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    points, trainer, folds = (
        points_of("lr=1e-3,0.1", fixed=TUNED),
        trainer_of(corpus, tmp_path),
        group_folds(corpus.train, 3),
    )

    def stopped(cells):
        for cell in cells[:3]:
            yield cell, trainer(cell)
        raise Killed

    with pytest.raises(Killed):
        search(points, folds, [0], trainer, run=stopped)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len([path for path in before if path.name == "run.json"]) == 3 + 3 + 2
    result = search(points, folds, [0], trainer)
    assert {path: path.read_bytes() for path in before} == before
    assert result.to_json() == found[0].to_json()


def test_every_seed_is_a_run_of_each_fold_and_all_of_them_are_combined(corpus: Corpus, tmp_path: Path) -> None:
    cells = plan_cells(points_of("lr=1e-3"), group_folds(corpus.train, 3), [4, 5])
    assert [len(cell.folds) for cell in cells] == [6, 4, 4, 4]
    assert {(fold.name, seed) for fold, seed in cells[1].folds} == {
        (f"fold{number}-seed{seed}", seed) for number in (2, 3) for seed in (4, 5)
    }
    score = trainer_of(corpus, tmp_path)(cells[1])
    assert score.runs == 4
    assert len(list(tmp_path.glob("points/*/without-fold1/*/run.json"))) == 4


def test_fewer_than_three_folds_are_refused(corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="a search needs 3 folds or more, not 2"):
        plan_cells(points_of("lr=1e-3"), group_folds(corpus.train, 2), [0])


def test_a_point_that_diverges_is_named_and_never_chosen(corpus: Corpus, tmp_path: Path) -> None:
    free = (*SMALL, "optimiser.kind=sgd", "optimiser.clip_norm=0", "optimiser.warmup_epochs=0", "batch=1")
    free = (*free, "optimiser.weight_decay=100")
    result = run_search(corpus, points_of("lr=1e-3,1e6", fixed=free), tmp_path / "both")
    bad = result.points[1]
    assert result.winner is result.points[0]
    assert all("lower optimiser.lr" in result.cells[outer, bad.name].failed for outer in ("", *result.folds))
    assert json.loads(json.dumps(result.to_json()))["points"][1]["score"] is None
    with pytest.raises(AupipeError, match="every point of the search failed"):
        run_search(corpus, points_of("lr=1e6", fixed=free), tmp_path / "none")


# What the naive figure is worth


def noise_corpus(seed: int, features: int, videos: int = 9, frames: int = 60) -> Corpus:
    """AUs that last for ten frames each and depend on nothing, and ``features`` that say nothing of them."""
    rng = np.random.default_rng(seed)
    store = create_store(f"noise{seed}", "memory")
    specs = [FeatureSpec(f"f{number}", "visual", f"noise{number}", 1, dtype="float32") for number in range(features)]
    recordings, labels = [], {}
    for number in range(videos):
        recordings.append(Recording(f"v{number}"))
        targets = np.repeat(rng.random((frames // 10, 12)) < 0.2, 10, axis=0)
        for spec in specs:
            rows = np.repeat(rng.normal(size=(frames // 10, 6)), 10, axis=0) + 0.1 * rng.normal(size=(frames, 6))
            store.publish(f"v{number}", spec, rows.astype(np.float32))
        known = np.ones(targets.shape, bool)
        labels[f"v{number}"] = Labels("au", OFFICIAL["au"].names, targets.astype(np.float32), known)
    return Corpus(store, recordings, [], labels, {spec.name: spec.id for spec in specs}, "au")


def test_on_labels_that_nothing_predicts_the_naive_score_flatters_and_the_nested_one_does_not(tmp_path: Path) -> None:
    """No score on noise can be better than that of the best constant; thresholds and points chosen on it seem to be."""
    corpus = noise_corpus(0, features=3)
    small = ("epochs=2", "window=30", "hop=30", "batch=4", *TUNED[-2:])
    result = run_search(corpus, points_of('features=["f0"],["f1"],["f2"]', fixed=small), tmp_path)
    truth = trivial_baseline(corpus.labels, "au").mean
    assert result.nested_interval is not None
    assert result.naive.mean > truth + 0.04
    assert result.optimism > 0.06
    assert result.optimism_interval is not None
    assert result.optimism_interval[0] > 0
    low, high = result.nested_interval.bounds
    assert low <= truth <= high
