"""Scores are over all valid frames together, each once, and state what they do not cover."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from aupipe.errors import UsageError
from aupipe.tasks import Task
from aupipe.train.evaluate import evaluate, trivial_baseline
from aupipe.train.labels import NAMES
from aupipe.train.metrics import binary_f1, ccc
from aupipe.train.predictions import Predictions
from aupipe.train.scores import Scores
from aupipe.types import Labels


def predictions(name, scores, task="au", seen=None):
    scores = np.asarray(scores, dtype=np.float32)
    clock = np.arange(len(scores)) / 25
    return Predictions(name, task, NAMES[task], scores, np.ones(len(scores), bool) if seen is None else seen, clock)


def labels(targets, task="au", valid=None):
    targets = np.asarray(targets, dtype=np.float32)
    return Labels(task, NAMES[task], targets, np.ones(targets.shape, bool) if valid is None else valid)


@pytest.fixture
def two():
    """Two recordings of different length and rates, predicted with some skill."""
    rng = np.random.default_rng(5)
    truth = {"a": rng.random((400, 12)) < 0.5, "b": rng.random((60, 12)) < 0.05}
    scores = {name: np.clip(rng.normal(value, 0.5), 0, 1) for name, value in truth.items()}
    return {n: predictions(n, s) for n, s in scores.items()}, {n: labels(t) for n, t in truth.items()}


def test_trap_06_f1_is_pooled_over_frames_not_averaged_over_recordings(two):
    predicted, annotated = two
    pooled = binary_f1(
        np.concatenate([item.targets > 0.5 for item in annotated.values()]),
        np.concatenate([item.scores >= 0.5 for item in predicted.values()]),
    )
    scores = evaluate(predicted, annotated, "au")
    np.testing.assert_allclose(scores.values, pooled)
    assert scores.mean == pytest.approx(pooled.mean())
    alone = [evaluate({n: predicted[n]}, {n: annotated[n]}, "au").mean for n in annotated]
    assert scores.mean != pytest.approx(np.mean(alone), abs=0.02)


def test_trap_06_ccc_is_computed_once_on_everything():
    rng = np.random.default_rng(2)
    truth = {n: np.clip(rng.normal(m, 0.1, (50, 2)), -1, 1) for n, m in (("a", -0.5), ("b", 0.0), ("c", 0.5))}
    guess = {n: np.broadcast_to(t.mean(axis=0), t.shape) for n, t in truth.items()}  # the mean of each video only
    scores = evaluate(
        {n: predictions(n, g, "va") for n, g in guess.items()}, {n: labels(t, "va") for n, t in truth.items()}, "va"
    )
    whole = ccc(*(np.concatenate(list(part.values())).astype(np.float32) for part in (truth, guess)))
    np.testing.assert_allclose(scores.values, whole, rtol=1e-5)
    assert scores.mean > 0.9  # although the CCC within each video is 0


@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_trap_16_the_values_at_invalid_frames_change_no_score(task):
    rng = np.random.default_rng(8)
    wide = len(NAMES[task])
    targets = rng.integers(0, 8, (80, 1)) if task == "expr" else rng.random((80, wide)).round(0 if task == "au" else 3)
    valid = np.ones(targets.shape, bool)
    valid[30:50] = False
    scores = rng.random((80, wide))
    first = evaluate({"a": predictions("a", scores, task)}, {"a": labels(targets, task, valid)}, task)
    scores[30:50], targets[30:50] = rng.random((20, wide)), 0
    assert evaluate({"a": predictions("a", scores, task)}, {"a": labels(targets, task, valid)}, task) == first
    assert first.frames == 60


def test_a_partly_annotated_row_is_not_scored():
    valid = np.ones((10, 12), bool)
    valid[3, 7] = False
    assert (
        evaluate({"a": predictions("a", np.ones((10, 12)))}, {"a": labels(np.ones((10, 12)), valid=valid)}, "au").frames
        == 9
    )


def test_trap_15_a_score_equal_to_the_threshold_is_positive():
    scores = evaluate(
        {"a": predictions("a", np.full((4, 12), 0.5))}, {"a": labels(np.ones((4, 12)))}, "au", threshold=0.5
    )
    assert scores.mean == 1.0


def test_coverage_counts_annotated_frames_that_were_not_predicted():
    annotated = {"a": labels(np.ones((10, 12))), "b": labels(np.ones((30, 12)))}
    scores = evaluate({"a": predictions("a", np.ones((8, 12)))}, annotated, "au")
    assert (scores.frames, scores.coverage, scores.missing) == (8, 8 / 40, ("b",))
    assert "20.0% of annotated frames" in scores.footnote()
    assert "no prediction for 1 recording" in scores.footnote()


def test_thresholds_that_differ_by_recording_are_named_without_a_reason(two):
    predicted, annotated = two
    first, *_ = predicted
    predicted = {**predicted, first: replace(predicted[first], threshold=0.3)}
    scores = evaluate(predicted, annotated, "au")
    assert scores.threshold is None
    assert scores.footnote().startswith("F1 at thresholds that differ by recording, ")


def test_frames_without_a_face_are_scored_and_reported():
    seen = np.arange(10) < 6
    scores = evaluate({"a": predictions("a", np.ones((10, 12)), seen=seen)}, {"a": labels(np.ones((10, 12)))}, "au")
    assert (scores.frames, scores.face_found) == (10, 0.6)


def test_an_absent_class_is_logged_and_named_in_the_table(caplog):
    targets = np.ones((5, 12))
    targets[:, 8] = 0
    with caplog.at_level(logging.WARNING):
        scores = evaluate({"a": predictions("a", targets)}, {"a": labels(targets)}, "au")
    assert scores.absent == ("AU23",)
    assert scores.values[8] == 0
    assert "no positive frame of AU23" in caplog.text
    assert "ABSENT from the annotations, counted as 0: AU23" in scores.table()


def test_nothing_to_score_is_an_error():
    with pytest.raises(UsageError, match="nothing to score: 5 annotated frames"):
        evaluate({}, {"a": labels(np.ones((5, 12)))}, "au")


def test_predictions_of_another_task_are_refused():
    with pytest.raises(UsageError, match="a: predictions for 'va', asked for 'au'"):
        evaluate({"a": predictions("a", np.ones((5, 2)), "va")}, {"a": labels(np.ones((5, 12)))}, "au")


def test_the_trivial_baseline_of_aus_scores_twice_the_rate_over_one_plus_the_rate():
    rng = np.random.default_rng(0)
    targets = rng.random((1000, 12)) < 0.3
    rate = targets.mean(axis=0)
    np.testing.assert_allclose(trivial_baseline({"a": labels(targets)}, "au").values, 2 * rate / (1 + rate))


def test_the_trivial_baselines_of_expr_and_va_are_the_most_frequent_class_and_the_mean():
    expr = trivial_baseline({"a": labels(np.array([[2], [2], [5]]), "expr")}, "expr")
    assert expr.values == (0, 0, pytest.approx(0.8), 0, 0, 0, 0, 0)
    assert trivial_baseline({"a": labels(np.random.default_rng(0).random((9, 2)), "va")}, "va").mean == pytest.approx(0)


def test_the_table_puts_models_side_by_side(two):
    predicted, annotated = two
    scores = evaluate(predicted, annotated, "au")
    lines = scores.table({"always 1": trivial_baseline(annotated, "au")}, name="tcn").splitlines()
    assert lines[0].split() == ["F1", "tcn", "always", "1", "event", "F1", "@.50", "positive"]
    assert [line.split()[0] for line in lines[1:13]] == list(NAMES["au"])
    assert lines[14].split()[:2] == ["mean", f"{scores.mean:.3f}"]
    assert len({len(line) for line in lines[:13]}) == 1  # columns are aligned


def test_scores_survive_json(two):
    scores = evaluate(*two, "au")
    content = json.loads(json.dumps(scores.to_json()))
    assert content["seen"] == scores.face_found  # the name in every saved run
    assert Scores.from_json(content) == scores


def test_the_share_of_positives_is_of_the_frames_in_which_a_name_is_annotated():
    targets, valid = np.zeros((36, 12)), np.ones((36, 12), bool)
    targets[:3, 4] = 1
    valid[6:, 4] = False
    own = Task("own", "multi_label", NAMES["au"], -1, "F1")
    scores = evaluate(
        {"a": replace(predictions("a", targets), task=own)}, {"a": replace(labels(targets, valid=valid), task=own)}, own
    )
    assert (scores.frames, scores.annotated[4], scores.annotated[5]) == (36, 6, 36)
    assert scores.share(4) == 0.5
    table = scores.table().splitlines()
    assert table[0].split()[-2:] == ["positive", "frames"]
    assert table[5].split()[-2:] == ["0.500", "6"]
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores
    assert replace(scores, annotated=()).share(4) == 3 / 36, "of a run that does not hold the counts"
