"""What a model's page measures: curves, calibration, co-occurrence, events, recordings; and pages of any label set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aupipe.report.checks.lag import LagEstimate
from aupipe.report.figures import Panel, Plot, to_file, to_svgs
from aupipe.report.run import measures
from aupipe.report.run.pages import RunReport, write_report
from aupipe.report.run.recordings import score_recordings
from aupipe.report.run.sections import recordings_section
from aupipe.tasks import Task
from aupipe.train.evaluate import evaluate, trivial_baseline
from aupipe.train.evaluation import Evaluation
from aupipe.train.intervals import bootstrap
from aupipe.train.metrics import binary_f1
from aupipe.train.model import Model
from aupipe.train.predictions import Predictions
from aupipe.train.thresholds import best_thresholds
from aupipe.types import Labels

ROWS = 80
TASKS = {
    "own": Task("own", "multi_label", ("smile", "<frown> & co", "never")),
    "one": Task("one", "multi_label", ("smile",)),
    "classes": Task("classes", "classes", ("calm", "glad", "never")),
    "regression": Task("regression", "regression", ("valence", "arousal"), metric="CCC", low=-1.0),
    "intensity": Task("intensity", "intensity", ("AU1", "AU2", "never"), metric="ICC", high=5.0),
}


def evaluated(task: Task, predictions: dict[str, Predictions], labels: dict[str, Labels]) -> Evaluation:
    interval = bootstrap(predictions, labels, task, draws=50) if len(labels) > 1 else None
    scores = evaluate(predictions, labels, task)
    return Evaluation(Model(Path("runs/<made>"), "", task, rule="mean"), predictions, labels, scores, interval)


def made(task: Task, recordings: int = 3) -> Evaluation:
    """Labels that dwell, some invalid in single columns, and predictions that follow them; the last name is not shown,
    and the last recording has nothing that is scored."""
    rng = np.random.default_rng(0)
    predictions, labels = {}, {}
    for number in range(recordings):
        name, width = f"clips/<{number}>.mp4", len(task.names)
        level = np.repeat(rng.random((ROWS // 8, width)), 8, axis=0)
        if width > 2:
            level[:, -1] = 0
        span = task.high - task.low
        targets = (level > 0.5) if task.kind == "multi_label" else task.low + span * level
        if task.kind == "classes":
            targets = level.argmax(axis=1)[:, None]
        valid = rng.random(targets.shape) < 0.9
        valid &= number < recordings - 1
        noisy = np.clip(level + 0.3 * rng.normal(size=level.shape), 0.001, 1)
        scores = noisy if task.whole else task.low + span * noisy
        scores = scores / scores.sum(axis=1, keepdims=True) if task.kind == "classes" else scores
        labels[name] = Labels(task, task.names, np.where(valid, targets, 0).astype(np.float32), valid)
        face, times = rng.random(ROWS) < 0.9, np.arange(ROWS) / 25
        predictions[name] = Predictions(name, task, task.names, scores.astype(np.float32), face, times)
    return evaluated(task, predictions, labels)


@pytest.mark.parametrize("kind", TASKS)
def test_any_label_set_has_a_page(kind: str, tmp_path: Path) -> None:
    evaluation = made(TASKS[kind])
    trivial = trivial_baseline(evaluation.labels, evaluation.model.task)
    worst = score_recordings(evaluation)
    report = RunReport([evaluation], ["<made>"], "all", ("constant", trivial), [worst], [], [])
    write_report(report, tmp_path / "report")
    html = (tmp_path / "report" / "index.html").read_text()
    assert "&lt;made&gt;" in html
    assert "<made>" not in html
    assert "clips/&lt;1&gt;.mp4" in html
    assert html.count("<svg") == html.count('role="img"') > 1
    (own,) = json.loads((tmp_path / "report" / "report.json").read_text())["runs"]
    assert own["mean"] == evaluation.scores.mean
    assert (own["events"] is not None) == (TASKS[kind].kind == "multi_label")


def test_recordings_come_worst_first_and_have_the_lag_of_their_labels() -> None:
    task = TASKS["one"]
    rng = np.random.default_rng(1)
    predictions, labels = {}, {}
    for name, late, noise in (("good", 0, 0.0), ("late", 6, 0.0), ("bad", 0, 2.0)):
        shown = np.repeat(rng.random(60) < 0.4, 10)
        scores = np.clip(0.1 + 0.8 * shown + noise * rng.normal(size=600), 0, 1)[:, None].astype(np.float32)
        target = np.roll(shown, late)[:, None].astype(np.float32)
        labels[name] = Labels(task, task.names, target, np.ones((600, 1), bool))
        predictions[name] = Predictions(name, task, task.names, scores, np.ones(600, bool), np.arange(600) / 30)
    labels["nothing"] = replace(labels["bad"], targets=np.zeros((600, 1), np.float32))
    predictions["nothing"] = replace(predictions["bad"], scores=np.zeros((600, 1), np.float32))
    found = score_recordings(
        Evaluation(Model(Path(), "", task), predictions, labels, evaluate(predictions, labels, task))
    )
    assert [one.recording for one in found[2:]] == ["good", "nothing"]
    assert [one.score for one in found[2:]] == [1.0, None]
    assert {one.recording: one.lag.lag for one in found if one.lag}["late"] == 6
    assert {one.recording: one.lag.lag for one in found if one.lag}["good"] == 0
    undecided = replace(found[0], lag=LagEstimate(0, -9, 0.63, 0.36, 3.0))  # another lag is the best, but not surely
    best_at_0 = replace(found[0], lag=LagEstimate(0, 0, 0.63, 0.63, 0.0))
    assert [one.to_json()["label_lag"]["lag"] for one in (undecided, best_at_0)] == [None, 0]
    evaluation = Evaluation(Model(Path(), "", task), predictions, labels, evaluate(predictions, labels, task))
    (table,) = recordings_section(evaluation, [undecided, best_at_0]).tables
    assert [row[5] for row in table.rows] == ["\u2013", "0"]
    scores = {one.recording: one.score for one in found}
    expected = binary_f1(labels["bad"].targets > 0.5, predictions["bad"].scores >= 0.5)
    assert scores["bad"] == pytest.approx(expected[0])


@pytest.mark.parametrize("seed", range(20))
def test_the_best_point_of_a_curve_is_the_best_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(300) < 0.3
    scores = np.round(np.clip(truth * 0.3 + rng.random(300) * 0.7, 0, 1), 2)  # with equal ones
    called = scores >= 0.5
    curve = measures.precision_recall(scores, truth, called)
    _, f1 = best_thresholds(scores[:, None], truth[:, None])
    assert curve.best == pytest.approx(f1[0])
    recall, precision = curve.used
    assert 2 * recall * precision / (recall + precision) == pytest.approx(binary_f1(truth[:, None], called[:, None])[0])
    assert (np.diff(curve.recall) >= 0).all()
    assert curve.recall[-1] == 1.0


def test_a_curve_without_positives_or_calls_is_no_error() -> None:
    curve = measures.precision_recall(np.linspace(0, 0.4, 9), np.zeros(9, bool), np.zeros(9, bool))
    assert curve.used is None
    assert curve.best == 0.0
    assert len(measures.precision_recall(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool)).recall) == 0


def test_calibrated_probabilities_have_no_error_and_confident_ones_have() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    truth = rng.random(200_000) < scores
    assert measures.reliability(scores, truth).error < 0.01
    assert measures.reliability(np.where(scores > 0.5, 0.999, 0.001), truth).error == pytest.approx(0.25, abs=0.01)


def test_co_occurrence_is_the_share_of_the_row_s_frames() -> None:
    shown = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    table = measures.co_occurrence(shown, np.ones_like(shown))
    assert table[0, 1] == pytest.approx(2 / 3)
    assert table[1, 0] == pytest.approx(2 / 3)
    assert np.isnan(table[2]).all()


def test_events_add_up_to_those_of_the_labels_and_of_the_predictions() -> None:
    task = TASKS["one"]
    target, decided = np.zeros((60, 1), np.float32), np.zeros((60, 1), np.float32)
    target[5:15] = target[30:40] = 1
    decided[6:16] = decided[36:50] = decided[52:54] = 1
    labels = {"a": Labels(task, task.names, target, np.ones((60, 1), bool))}
    predictions = {"a": Predictions("a", task, task.names, decided, np.ones(60, bool), np.arange(60) / 25)}
    assert measures.count_events(evaluated(task, predictions, labels)) == [(1, 1, 2)]


def test_a_figure_of_a_page_has_the_colours_of_the_page_and_no_style() -> None:
    plot = Plot(
        "n", "What?", (Panel('A "title" <b>', lambda axes: axes.plot([0, 1], [0, 1], color="#0072b2")),), (2, 2)
    )
    (svg,) = to_svgs(plot)
    assert "var(--blue)" in svg
    assert "var(--ink)" in svg
    assert "style" not in svg
    assert "<b>" not in svg
    assert to_svgs(plot) == [svg]
    assert to_file(plot, "pdf") == to_file(plot, "pdf")
    assert to_file(plot, "svg").startswith(b"<?xml")
