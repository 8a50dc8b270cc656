"""Folds keep groups together; combined predictions follow a stated rule, also for ties."""

from dataclasses import replace

import numpy as np
import pytest

from aupipe.errors import UsageError
from aupipe.train.combination import mean, vote
from aupipe.train.crossval import custom_folds, group_folds, summarise
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.labels import NAMES
from aupipe.train.predictions import Predictions
from aupipe.types import Recording

from .toy_corpus import make_corpus


def member(scores, task="au", name="a"):
    scores = np.asarray(scores, dtype=np.float32)
    return {name: Predictions(name, task, NAMES[task], scores, np.ones(len(scores), bool), np.zeros(len(scores)))}


def aus(*values):
    return member(np.repeat(np.array(values, dtype=np.float32)[:, None], 12, axis=1))


def people():
    """Ten videos, three of them with two people."""
    videos = [f"video{i}" for i in range(10)]
    pairs = [Recording(f"{v}{side}", video_id=v) for v in videos[:3] for side in ("_left", "_right")]
    return pairs + [Recording(v) for v in videos[3:]]


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_trap_08_recordings_of_a_group_are_never_in_both_parts_of_a_fold(folds):
    made = group_folds(people(), folds)
    assert sorted(r.id for fold in made for r in fold.validation) == sorted(r.id for r in people())
    for fold in made:
        assert {r.group for r in fold.train}.isdisjoint(r.group for r in fold.validation)
        assert len(fold.train) + len(fold.validation) == 13


def test_trap_08_subjects_given_as_groups_are_kept_together():
    same = [replace(r, group="one person") if r.id in ("video4", "video9") else r for r in people()]
    for fold in group_folds(same, 4):
        assert len({"video4", "video9"} & {r.id for r in fold.validation}) in (0, 2)


def test_folds_are_about_equally_large_in_frames_and_drawn_by_seed():
    frames = {r.id: 100 * (i + 1) for i, r in enumerate(people())}
    sizes = [sum(frames[r.id] for r in fold.validation) for fold in group_folds(people(), 3, frames=frames)]
    assert max(sizes) - min(sizes) <= 300
    ids = [[r.id for r in group_folds(people(), 5, seed)[0].validation] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_more_folds_than_groups_are_refused():
    with pytest.raises(UsageError, match="11 folds of 10 groups of recordings: give 2 to 10"):
        group_folds(people(), 11)


def test_custom_folds_are_checked():
    fold = custom_folds(people(), {"mine": ["video0_left", "video0_right", "video5"]})[0]
    assert len(fold.train) == 10
    for named, message in (
        ({"mine": ["video0_left"]}, "would train on 'video0_right', a sibling"),
        ({"mine": ["video50"]}, "no recording 'video50'"),
        ({"mine": ["video5"], "yours": ["video5"]}, "is in fold 'mine' and in 'yours'"),
    ):
        with pytest.raises(UsageError, match=message):
            custom_folds(people(), named)


def test_trap_02_runs_are_reported_by_mean_and_deviation_never_by_the_best(tmp_path):
    corpus = make_corpus(train=6, validation=0, frames=60)
    folds = [(fold, 0) for fold in group_folds(corpus.train, 3)]
    options = {"labels": corpus.labels, "features": corpus.features, "task": "au"}
    recipe = load_ensemble_recipe("baseline", ["epochs=2"])
    runs = train_ensemble(corpus.store, recipe, folds, out=tmp_path, **options).runs
    each = [run.scores.mean for run in runs]
    found = summarise(runs)
    assert found.mean == pytest.approx(np.mean(each)) != pytest.approx(max(each))
    assert found.deviation == pytest.approx(np.std(each, ddof=1))
    assert str(found).startswith(f"F1 {np.mean(each):.3f} +- {np.std(each, ddof=1):.3f} over 3 runs")
    assert max(each) not in vars(found).values()


def test_the_mean_is_of_scores_and_weighted():
    assert mean([aus(0.2), aus(0.6)])["a"].scores[0, 0] == pytest.approx(0.4)
    assert mean([aus(0.2), aus(0.6)], [3, 1])["a"].scores[0, 0] == pytest.approx(0.3)


def test_trap_15_a_tie_is_decided_by_the_stated_rule():
    members = [aus(0.9, 0.6), aus(0.4, 0.1)]  # one positive and one negative vote each; means .65 and .35
    assert vote(members)["a"].scores[:, 0].tolist() == [1, 0]
    assert vote(members, ties="positive")["a"].scores[:, 0].tolist() == [1, 1]
    assert vote(members, ties="negative")["a"].scores[:, 0].tolist() == [0, 0]
    assert vote([*members, aus(0.5, 0.49)])["a"].scores[:, 0].tolist() == [1, 0]  # 0.5 is positive: >=
    with pytest.raises(UsageError, match="ties = 'coin'"):
        vote(members, ties="coin")


def test_each_member_votes_by_its_own_threshold():
    low = {"a": replace(aus(0.2)["a"], threshold=(0.1,) * 12)}
    voted = vote([low, low, aus(0.9)])["a"]
    assert (voted.scores[0, 0], voted.threshold) == (1, 0.5)
    assert vote([aus(0.2), aus(0.2), aus(0.9)])["a"].scores[0, 0] == 0


def test_the_mean_of_members_with_thresholds_is_compared_with_the_mean_of_the_thresholds():
    low = {"a": replace(aus(0.2)["a"], threshold=(0.1,) * 12)}
    found = mean([low, aus(0.4)], [3, 1])["a"]
    assert found.threshold == pytest.approx((0.2,) * 12)
    assert found.decisions[0].tolist() == [1] * 12  # a mean score of .25
    assert mean([low, low])["a"].threshold == (0.1,) * 12


def test_of_classes_with_equal_votes_the_mean_score_decides():
    first, second = np.full((1, 8), 0.01), np.full((1, 8), 0.01)
    first[0, 2], second[0, 5] = 0.5, 0.9
    chosen = vote([member(first, "expr"), member(second, "expr")])["a"].scores
    assert chosen.argmax() == 5
    third = first.copy()
    assert vote([member(first, "expr"), member(second, "expr"), member(third, "expr")])["a"].scores.argmax() == 2


def test_a_vote_on_valence_and_arousal_is_refused():
    with pytest.raises(UsageError, match="cannot be voted on: use the mean"):
        vote([member(np.zeros((3, 2)), "va")] * 2)


def test_members_that_do_not_fit_are_refused_by_name():
    with pytest.raises(UsageError, match=r"member 2 predicts other recordings than the first, e.g. 'a'"):
        mean([aus(0.1), member(np.zeros((1, 12)), name="b")])
    with pytest.raises(UsageError, match=r"a: member 2 has au scores \(2, 12\), the first au \(1, 12\)"):
        mean([aus(0.1), aus(0.1, 0.2)])
    with pytest.raises(UsageError, match="an ensemble without members"):
        mean([])
