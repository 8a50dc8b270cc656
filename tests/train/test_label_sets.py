"""Label sets that no challenge defines: each name is scored where it is annotated; events; agreement of intensities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from aupipe.dataset_model import widen
from aupipe.errors import UsageError
from aupipe.tasks import OFFICIAL, Task, join_tasks, task_from_json
from aupipe.train.evaluate import evaluate, trivial_baseline
from aupipe.train.events import Events, matched, runs
from aupipe.train.intervals import bootstrap
from aupipe.train.metrics import agreement, ccc, moments
from aupipe.train.postprocess import DEFAULTS, Options, PostProcess, fit_postprocess
from aupipe.train.predictions import Predictions, decide
from aupipe.train.scores import Scores
from aupipe.train.thresholds import best_thresholds
from aupipe.types import Labels

TWO = Task("au", "multi_label", ("AU1", "AU5"))
PAIN = Task("pain", "intensity", ("left", "right"), metric="ICC", high=5.0)


def predictions(task, scores, name="a"):
    scores = np.asarray(scores, np.float32)
    return {name: Predictions(name, task, task.names, scores, np.ones(len(scores), bool), np.zeros(len(scores)))}


def labels(task, targets, valid=None):
    targets = np.asarray(targets, np.float32)
    return Labels(task, task.names, targets, np.ones(targets.shape, bool) if valid is None else valid)


def f1(true, found):
    return 2 * np.sum(true & found) / (true.sum() + found.sum())


def test_a_partly_annotated_row_counts_for_the_names_it_annotates():
    rng = np.random.default_rng(0)
    truth, found = rng.random((2, 200, 2)) < 0.4
    valid = rng.random((200, 2)) < 0.7
    scores = evaluate(predictions(TWO, found), {"a": labels(TWO, truth, valid)}, TWO)
    expected = [f1(truth[valid[:, k], k], found[valid[:, k], k]) for k in range(2)]
    np.testing.assert_allclose(scores.values, expected)
    assert scores.frames == int(valid.any(axis=1).sum())
    official = replace(TWO, official=True)
    both = valid.all(axis=1)
    scores = evaluate(predictions(official, found), {"a": labels(official, truth, valid)}, official)
    np.testing.assert_allclose(scores.values, [f1(truth[both, k], found[both, k]) for k in range(2)])


def test_thresholds_of_a_name_are_fitted_where_it_is_annotated():
    rng = np.random.default_rng(1)
    scores, truth, valid = rng.random((90, 2)), rng.random((90, 2)) < 0.5, rng.random((90, 2)) < 0.6
    threshold, best = best_thresholds(scores, truth, valid)
    for k in range(2):
        alone = best_thresholds(scores[valid[:, k]][:, [k]], truth[valid[:, k]][:, [k]])
        assert (threshold[k], best[k]) == (alone[0][0], alone[1][0])
    blank = best_thresholds(scores, truth, valid & np.array([True, False]))
    assert (blank[0][1], blank[1][1]) == (0.5, 0.0)
    post = fit_postprocess(predictions(TWO, scores), {"a": labels(TWO, truth, valid)}, TWO, Options(threshold="tune"))
    assert post.threshold == pytest.approx(tuple(threshold), abs=1e-6)


def test_an_event_is_found_by_one_event_that_overlaps_it_enough():
    true = "0111100000111100001111000011110"
    seen = "0111100000001100001000100000000"
    #      overlap: 1          1/2       1/4 twice (one counts)   none
    as_rows = [np.array([list(map(int, text))], bool).T for text in (true, seen)]
    events = Events(1)
    events.add(*as_rows, np.ones((len(true), 1), bool))
    hits = {overlap: int(count[0]) for overlap, count in events.hits.items()}
    assert (int(events.true[0]), int(events.found[0]), hits) == (4, 4, {0.25: 3, 0.5: 2, 0.75: 1})
    assert events.f1()["event F1 @.50"][0] == 2 * 2 / (4 + 4)


def test_events_are_matched_as_by_comparing_all_pairs():
    rng = np.random.default_rng(4)
    for _ in range(30):
        shown = [np.repeat(rng.random(40) < 0.4, rng.integers(1, 6, 40)) for _ in range(2)]
        size = min(map(len, shown))
        true, found = (runs(one[:size], np.zeros(size, int)) for one in shown)
        ratio = np.zeros((len(true), len(found)))
        for i, (a, b) in enumerate(true):
            for j, (c, d) in enumerate(found):
                ratio[i, j] = len({*range(a, b)} & {*range(c, d)}) / len({*range(a, b)} | {*range(c, d)})
        taken = []
        while ratio.size and ratio.max() > 0:
            i, j = np.unravel_index(ratio.argmax(), ratio.shape)
            taken.append(ratio[i, j])
            ratio[i, :] = ratio[:, j] = 0
        expected = {overlap: sum(one >= overlap for one in taken) for overlap in (0.25, 0.5, 0.75)}
        assert matched(true, found) == expected


def test_frames_that_are_not_scored_and_ends_of_recordings_end_an_event():
    shown, scored = np.ones((6, 1), bool), np.ones((6, 1), bool)
    events = Events(1)
    events.add(shown, shown, scored)
    scored[2] = False
    events.add(shown, shown, scored)
    assert (events.true[0], events.found[0], events.hits[0.75][0]) == (3, 3, 3)


def test_agreement_is_that_of_the_definitions():
    rng = np.random.default_rng(2)
    x = rng.integers(0, 6, (300, 2)).astype(float)
    y = 0.6 * x + rng.normal(0, 1, x.shape) + 1
    sums = moments(x, y)
    for k in range(2):
        assert agreement(sums, "PCC")[k] == pytest.approx(stats.pearsonr(x[:, k], y[:, k])[0])
        assert agreement(sums, "MAE")[k] == pytest.approx(np.abs(x[:, k] - y[:, k]).mean())
        table = np.stack([x[:, k], y[:, k]], axis=1)  # n targets, two raters: Shrout and Fleiss 1979
        rows, columns, n = table.mean(axis=1), table.mean(axis=0), len(table)
        between = 2 * ((rows - table.mean()) ** 2).sum() / (n - 1)
        error = ((table - rows[:, None] - columns + table.mean()) ** 2).sum() / (n - 1)
        assert agreement(sums, "ICC")[k] == pytest.approx((between - error) / (between + error))
    np.testing.assert_allclose(agreement(sums, "CCC"), ccc(x, y))
    constant = moments(x, np.ones_like(x))
    assert [agreement(constant, name).tolist() for name in ("CCC", "ICC", "PCC")] == [[0, 0]] * 3


def test_intensities_are_clipped_scored_by_icc_and_have_a_constant_baseline():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 6, (400, 2)).astype(float)
    found = truth + rng.normal(0, 1.5, truth.shape)
    scores = evaluate(predictions(PAIN, found), {"a": labels(PAIN, truth)}, PAIN)
    sums = moments(truth, np.clip(found.astype(np.float32), 0, 5))
    np.testing.assert_allclose(scores.values, agreement(sums, "ICC"), rtol=1e-6)
    np.testing.assert_allclose(scores.others["MAE"], agreement(sums, "MAE"), rtol=1e-6)
    assert decide(np.array([[-1.0, 9.0]], np.float32), PAIN).tolist() == [[0.0, 5.0]]
    trivial = trivial_baseline({"a": labels(PAIN, truth)}, PAIN)
    assert trivial.mean == pytest.approx(0, abs=1e-6)
    assert trivial.others["MAE"] == pytest.approx(tuple(np.abs(truth - truth.mean(axis=0)).mean(axis=0)))
    assert Scores.from_json(scores.to_json()) == scores
    post = fit_postprocess(predictions(PAIN, found), {"a": labels(PAIN, truth)}, PAIN, DEFAULTS["intensity"])
    assert PostProcess.from_json(post.to_json()) == post
    parts = {f"{i}": labels(PAIN, truth[i : i + 40]) for i in range(0, 400, 40)}
    each = {n: predictions(PAIN, found[int(n) : int(n) + 40], n)[n] for n in parts}
    interval = bootstrap(each, parts, PAIN, draws=200)
    assert interval.bounds[0] < scores.mean < interval.bounds[1]


def test_label_sets_are_joined_by_name_and_what_a_part_lacks_is_invalid():
    other = Task("au", "multi_label", ("AU5", "AU12"), invalid=9.0)
    joint = join_tasks([TWO, other])
    assert (joint.names, joint.official) == (("AU1", "AU5", "AU12"), False)
    wide = widen(labels(other, [[1, 0], [0, 1]]), joint)
    assert wide.targets[:, 1:].tolist() == [[1, 0], [0, 1]]
    assert wide.valid.tolist() == [[False, True, True]] * 2
    assert join_tasks([OFFICIAL["au"], OFFICIAL["au"]]).official
    with pytest.raises(UsageError, match="multi_label and intensity cannot be trained jointly"):
        join_tasks([TWO, replace(PAIN, name="au")])
    with pytest.raises(UsageError, match="numbers of different ranges"):
        join_tasks([PAIN, replace(PAIN, high=10.0)])
    with pytest.raises(UsageError, match="classes a, b and a, c differ"):
        join_tasks([Task("e", "classes", ("a", "b")), Task("e", "classes", ("a", "c"))])


@pytest.mark.parametrize("task", [*OFFICIAL.values(), TWO, PAIN], ids=str)
def test_a_label_set_survives_json_and_an_official_one_is_its_name(task):
    assert task_from_json(task.to_json()) == task
    assert (task.to_json() == task.name) == task.official
