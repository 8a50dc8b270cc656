"""Bootstrap intervals: whole videos are drawn, intervals are BCa, and only scores of the same videos are compared."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from aupipe.errors import UsageError
from aupipe.train.evaluate import evaluate
from aupipe.train.intervals import bootstrap, compare, group_sums
from aupipe.train.labels import NAMES
from aupipe.train.predictions import Predictions
from aupipe.types import Labels


def corpus(task="au", videos=12, frames=40, noise=0.5, seed=0):
    """Predictions of some skill, and labels, of videos that differ in difficulty and in length."""
    rng = np.random.default_rng(seed)
    predicted, annotated = {}, {}
    for number in range(videos):
        name, size, wide = f"v{number:02d}", frames + number, len(NAMES[task])
        noise_here = noise * rng.uniform(0.3, 2)
        if task == "expr":
            targets = rng.integers(0, wide, (size, 1))
            scores = np.eye(wide)[targets[:, 0]] + noise_here * rng.normal(size=(size, wide))
        else:
            targets = rng.random((size, wide)) < 0.4 if task == "au" else rng.uniform(-0.9, 0.9, (size, wide))
            scores = targets + noise_here * rng.normal(size=(size, wide))
        scores = np.clip(scores, -1 if task == "va" else 0, 1).astype(np.float32)
        predicted[name] = Predictions(name, task, NAMES[task], scores, np.ones(size, bool), np.zeros(size))
        annotated[name] = Labels(task, NAMES[task], targets.astype(np.float32), np.ones(targets.shape, bool))
    return predicted, annotated


def score_of(names, predicted, annotated, task):
    """The score of some videos, one of them perhaps several times."""
    renamed = {f"{name}-{i}": name for i, name in enumerate(names)}
    found = evaluate(
        {new: predicted[name] for new, name in renamed.items()},
        {new: annotated[name] for new, name in renamed.items()},
        task,
    )
    return [*found.values, found.mean]


@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_drawn_videos_score_as_if_they_were_scored_together(task):
    predicted, annotated = corpus(task)
    sums = group_sums(predicted, annotated, task)
    rng = np.random.default_rng(3)
    index = rng.integers(0, 12, (5, 12))
    for row, scores in zip(index, sums.scores(index), strict=True):
        expected = score_of([sums.groups[i] for i in row], predicted, annotated, task)
        np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("task", ["au", "expr", "va"])
def test_the_interval_is_the_bca_interval_at_95_percent(task):
    predicted, annotated = corpus(task)
    interval = bootstrap(predicted, annotated, task, draws=400, seed=7)
    names = np.array(list(predicted))
    sums = group_sums(predicted, annotated, task)
    table = {name: sums.scores(np.array([i])) for i, name in enumerate(names)}
    assert len(table) == interval.groups == 12
    for column, bounds in ((0, interval.each[0]), (-1, interval.bounds)):
        found = stats.bootstrap(
            (np.arange(12),),
            lambda index, column=column: sums.scores(index)[column],
            n_resamples=400,
            method="BCa",
            confidence_level=0.95,
            vectorized=False,
            rng=np.random.default_rng(7),
        )
        assert bounds == pytest.approx(tuple(found.confidence_interval))
        assert np.mean((found.bootstrap_distribution > bounds[0]) & (found.bootstrap_distribution < bounds[1])) > 0.92
    assert interval.bounds[0] < evaluate(predicted, annotated, task).mean < interval.bounds[1]
    assert 3 < (interval.bounds[1] - interval.bounds[0]) / interval.standard_error < 5


def test_a_score_that_no_draw_changes_has_an_interval_without_width():
    predicted, annotated = corpus()
    blank = {n: replace(item, targets=item.targets * (np.arange(12) != 2)) for n, item in annotated.items()}
    silent = {n: replace(item, scores=item.scores * (np.arange(12) != 2)) for n, item in predicted.items()}
    assert bootstrap(silent, blank, "au", draws=50).each[2] == (0.0, 0.0)


def test_siblings_are_drawn_together_and_two_groups_are_the_least():
    predicted, annotated = corpus(videos=4)
    groups = {"v00": "v", "v01": "v", "v02": "w", "v03": "w"}
    interval = bootstrap(predicted, annotated, "au", groups=groups, draws=20)
    assert (interval.groups, interval.sums.groups) == (2, ("v", "w"))
    with pytest.raises(UsageError, match="1 video; an interval needs at least two"):
        bootstrap(predicted, annotated, "au", groups=dict.fromkeys(groups, "v"))


@pytest.mark.parametrize(("videos", "narrow"), [(19, True), (20, False)])
def test_an_interval_from_few_groups_says_that_it_is_too_narrow(videos, narrow):
    predicted, annotated = corpus(videos=videos)
    interval = bootstrap(predicted, annotated, "au", draws=20)
    said = "the 95% interval is from 19 groups only, so it is too narrow"
    assert (interval.caveat == said) == narrow
    assert (said in evaluate(predicted, annotated, "au").table(interval=interval)) == narrow
    assert (interval.to_json()["caveat"] == said) == narrow


def test_a_difference_is_paired_and_is_narrower_than_both_intervals():
    predicted, annotated = corpus(noise=0.6)
    rng = np.random.default_rng(1)
    worse = {
        n: replace(item, scores=np.clip(item.scores + 0.1 * rng.normal(size=item.scores.shape), 0, 1))
        for n, item in predicted.items()
    }
    one, other = (bootstrap(found, annotated, "au", draws=300) for found in (predicted, worse))
    low, high = compare(one, other)
    gain = evaluate(predicted, annotated, "au").mean - evaluate(worse, annotated, "au").mean
    assert low < gain < high
    assert high - low < 0.5 * (one.bounds[1] - one.bounds[0])
    assert compare(one, one) == (0.0, 0.0)


def test_scores_of_other_videos_are_not_compared():
    predicted, annotated = corpus()
    names = list(predicted)
    first, second = (
        bootstrap({n: predicted[n] for n in part}, {n: annotated[n] for n in part}, "au", draws=20)
        for part in (names[:6], names[6:])
    )
    assert first.groups == second.groups
    with pytest.raises(UsageError, match=r"not computed over the same videos \(6 and 6, 0 of them in both\)"):
        compare(first, second)


def test_the_table_of_coverage_can_be_made_again(monkeypatch, capsys):
    from interval_coverage import PEOPLE, main  # of benchmarks/

    monkeypatch.setattr("sys.argv", ["interval_coverage.py", "--repeats", "2"])
    main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [int(row.split()[0]) for row in rows] == list(PEOPLE)
    assert all(row.count("%") == 2 for row in rows)  # how often the percentile and the BCa interval held the score
