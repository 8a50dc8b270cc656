"""Post-processing: fitted on one split, applied to another, and scored where it was fitted only on request."""

import json
from dataclasses import replace

import numpy as np
import pytest

from aupipe.errors import UsageError
from aupipe.tasks import AU_NAMES
from aupipe.train.evaluate import evaluate, evaluate_post
from aupipe.train.labels import NAMES
from aupipe.train.metrics import binary_f1
from aupipe.train.postprocess import (
    Options,
    PostProcess,
    apply_postprocess,
    aucorr,
    fit_postprocess,
)
from aupipe.train.predictions import Predictions
from aupipe.train.smoothing import box, gaussian, interpolate, segments, smooth
from aupipe.train.thresholds import best_thresholds
from aupipe.types import Labels


def item(scores, task="au", seen=None, pts=None, name="a"):
    scores = np.asarray(scores, dtype=np.float32)
    seen = np.ones(len(scores), bool) if seen is None else np.asarray(seen)
    return Predictions(name, task, NAMES[task], scores, seen, np.arange(len(scores)) / 25 if pts is None else pts)


def predicted_and_labels(task="au", names=("a", "b", "c", "d"), frames=300, noise=0.25, seed=0):
    """Predictions better than chance, and labels that last for several frames."""
    rng = np.random.default_rng(seed)
    predicted, annotated = {}, {}
    columns = len(NAMES[task])
    for name in names:
        runs = np.repeat(rng.random((frames // 10, columns)), 10, axis=0)
        if task == "au":
            truth = (runs < 0.3).astype(np.float32)
            scores = np.clip(0.2 + 0.3 * truth + noise * rng.normal(size=truth.shape), 0, 1)
        else:
            truth = (0.6 * (runs - 0.5)).astype(np.float32)
            scores = 0.4 * truth + 0.1 + noise * rng.normal(size=truth.shape)
        predicted[name] = item(scores, task, name=name)
        annotated[name] = Labels(task, NAMES[task], truth, np.ones(truth.shape, bool))
    return predicted, annotated


def part(found, names):
    return {name: found[name] for name in names}


def test_trap_01_a_split_that_thresholds_were_fitted_on_is_scored_only_on_request():
    predicted, annotated = predicted_and_labels()
    post = fit_postprocess(part(predicted, "ab"), annotated, "au", Options(threshold="tune"))
    assert post.tuned_on == ("a", "b")
    with pytest.raises(UsageError, match=r"2 of 4 recordings \(e.g. 'a'\) chose these thresholds"):
        evaluate_post(predicted, annotated, post)
    told = evaluate_post(predicted, annotated, post, on_tuned=True)
    assert told.tuned_on_itself
    assert "TUNED ON THESE RECORDINGS" in told.footnote()
    honest = evaluate_post(predicted, part(annotated, "cd"), post)
    assert not honest.tuned_on_itself
    assert honest.mean > evaluate(predicted, part(annotated, "cd"), "au").mean + 0.02


def test_trap_01_the_labels_of_the_other_split_change_no_fitted_number():
    predicted, annotated = predicted_and_labels()
    options = Options(threshold="tune", smooth="gaussian", aucorr="tune")
    post = fit_postprocess(part(predicted, "ab"), annotated, "au", options)
    flipped = {n: replace(x, targets=1 - x.targets) if n in "cd" else x for n, x in annotated.items()}
    assert fit_postprocess(part(predicted, "ab"), flipped, "au", options) == post


def test_thresholds_are_the_best_of_all_under_greater_or_equal():
    rng = np.random.default_rng(1)
    scores = np.round(rng.random((80, 3)), 1)  # many ties
    truth = rng.random((80, 3)) < scores
    best, f1 = best_thresholds(scores, truth)
    for k in range(3):
        every = [binary_f1(truth[:, [k]], scores[:, [k]] >= t)[0] for t in np.arange(-0.05, 1.1, 0.05)]
        assert f1[k] == pytest.approx(max(every))
        assert binary_f1(truth[:, [k]], scores[:, [k]] >= best[k])[0] == pytest.approx(f1[k])


def test_an_au_without_a_positive_gets_the_threshold_one_half():
    best, f1 = best_thresholds(np.random.default_rng(0).random((20, 2)), np.zeros((20, 2), bool))
    assert best.tolist() == [0.5, 0.5]
    assert f1.tolist() == [0, 0]


def test_trap_10_nothing_is_smoothed_across_shots_gaps_or_lost_faces_and_borders_are_renormalised():
    scores = np.repeat([[0.0], [1.0], [0.0], [1.0]], 10, axis=0).repeat(12, axis=1)
    seen = np.ones(40, bool)
    seen[20:30] = False
    pts = np.arange(40) / 25
    pts[10:] += 3.0  # a gap in time; no face from 20 to 30
    found = item(scores, seen=seen, pts=pts)
    np.testing.assert_array_equal(segments(found), np.repeat([0, 1, 2, 3], 10))
    np.testing.assert_allclose(smooth(scores, segments(found), gaussian(3)), scores, atol=1e-6)
    np.testing.assert_array_equal(segments(item(scores), shot_starts=[10, 20, 30]), np.repeat([0, 1, 2, 3], 10))
    assert segments(item(scores, seen=seen), max_gap=10).max() == 0
    ones = smooth(np.ones((5, 2)), np.zeros(5, dtype=int), gaussian(10))
    np.testing.assert_allclose(ones, 1.0, rtol=1e-6)


def test_smoothing_is_the_weighted_mean_of_what_is_in_range():
    scores = np.random.default_rng(0).random((9, 1))
    taps = gaussian(1.0)
    reach = len(taps) // 2
    for t, value in enumerate(smooth(scores, np.zeros(9, dtype=int), taps)):
        at = [k for k in range(-reach, reach + 1) if 0 <= t + k < 9]
        weight = np.array([taps[k + reach] for k in at])
        assert value[0] == pytest.approx(
            float((weight * scores[[t + k for k in at], 0]).sum() / weight.sum()), rel=1e-5
        )


def test_recordings_are_smoothed_separately():
    predicted, annotated = predicted_and_labels(names=("a", "b"))
    post = fit_postprocess(predicted, annotated, "au", Options(smooth="gaussian", width=5.0))
    alone = apply_postprocess(post, part(predicted, "b"))["b"].scores
    np.testing.assert_array_equal(apply_postprocess(post, predicted)["b"].scores, alone)


def test_trap_12_an_even_window_needs_a_side():
    with pytest.raises(UsageError, match="over 6 frames: give an odd width"):
        box(6)
    impulse = np.zeros((13, 1))
    impulse[6] = 1
    reached = {
        side: np.flatnonzero(smooth(impulse, np.zeros(13, dtype=int), box(width, side))[:, 0]).tolist()
        for width, side in ((6, "left"), (6, "right"), (7, ""))
    }
    assert reached == {"left": list(range(4, 10)), "right": list(range(3, 9)), "": list(range(3, 10))}


def test_trap_11_the_nearer_neighbour_of_a_frame_without_a_face_has_the_larger_weight():
    scores = np.zeros((6, 12), np.float32)
    scores[5] = 1.0
    scores[1:5] = 9.0  # scores of the head without a face
    filled = interpolate(item(scores, seen=[True, False, False, False, False, True]))
    np.testing.assert_allclose(filled[:, 0], [0, 0.2, 0.4, 0.6, 0.8, 1.0], atol=1e-6)
    uneven = item(scores, seen=[True, False, False, False, False, True], pts=np.array([0, 1, 2, 3, 4, 10.0]))
    np.testing.assert_allclose(interpolate(uneven)[:, 0], [0, 0.1, 0.2, 0.3, 0.4, 1.0], atol=1e-6)
    cut = interpolate(item(scores, seen=[True, False, False, False, False, True]), shot_starts=[3])
    np.testing.assert_allclose(cut[:, 0], [0, 0, 0, 1, 1, 1])


def test_trap_13_aucorr_uses_the_scores_before_it_and_is_tuned_with_the_thresholds():
    scores = np.random.default_rng(0).random((5, 12)).astype(np.float32)
    at = AU_NAMES.index
    mixed = aucorr(scores)
    np.testing.assert_allclose(mixed[:, at("AU24")], (scores[:, at("AU24")] + scores[:, at("AU4")]) / 2)
    expected = scores[:, [at("AU26"), at("AU1"), at("AU2")]].mean(axis=1)
    np.testing.assert_allclose(mixed[:, at("AU26")], expected)
    others = [k for k in range(12) if k not in (at("AU24"), at("AU26"))]
    np.testing.assert_array_equal(mixed[:, others], scores[:, others])
    predicted, annotated = predicted_and_labels()
    on = fit_postprocess(predicted, annotated, "au", Options(threshold="tune", aucorr="on"))
    shaped = apply_postprocess(on, predicted)
    pooled = np.concatenate([shaped[n].scores for n in shaped])
    truth = np.concatenate([annotated[n].targets for n in shaped]) > 0.5
    np.testing.assert_allclose(on.threshold, best_thresholds(pooled, truth)[0])  # of the scores after AUcorr


def test_aucorr_is_switched_off_where_aus_are_independent():
    predicted, annotated = predicted_and_labels()
    post = fit_postprocess(predicted, annotated, "au", Options(threshold="tune", aucorr="tune"))
    assert post.options.aucorr == "off"


def test_trap_07_matching_the_variance_raises_a_shrunken_ccc_as_far_as_theory_says():
    rng = np.random.default_rng(0)
    truth = np.clip(0.3 * rng.normal(size=(20000, 2)), -1, 1).astype(np.float32)
    r = 0.67
    seen = truth + truth.std() * np.sqrt(1 / r**2 - 1) * rng.normal(size=truth.shape)
    guess = r**2 * (seen - seen.mean(0)) + truth.mean(0)  # the posterior mean
    predicted = {n: item(guess[s], "va", name=n) for n, s in (("a", slice(0, 10000)), ("b", slice(10000, None)))}
    annotated = {
        n: Labels("va", NAMES["va"], truth[s], np.ones((10000, 2), bool))
        for n, s in (("a", slice(0, 10000)), ("b", slice(10000, None)))
    }
    post = fit_postprocess(part(predicted, "a"), annotated, "va", Options(match_variance=True))
    plain, matched = (
        evaluate(predicted, part(annotated, "b"), "va"),
        evaluate_post(predicted, part(annotated, "b"), post),
    )
    assert plain.mean == pytest.approx(2 * r**2 / (1 + r**2), abs=0.02)
    assert matched.mean == pytest.approx(r, abs=0.02)
    assert matched.mean > plain.mean + 0.03


def test_trap_16_an_invalid_frame_is_never_scored_and_still_smooths_its_neighbours():
    predicted, annotated = predicted_and_labels(names=("a", "b"))
    valid = annotated["a"].valid.copy()
    valid[100:140] = False
    masked = {**annotated, "a": replace(annotated["a"], valid=valid)}
    post = fit_postprocess(part(predicted, "b"), annotated, "au", Options(smooth="gaussian", width=4.0))
    other = replace(predicted["a"], scores=predicted["a"].scores.copy())
    other.scores[105:135] = 1.0
    score = evaluate_post(predicted, part(masked, "a"), post)
    moved = evaluate_post({"a": other}, part(masked, "a"), post)
    assert score.frames == 260
    assert score.values != moved.values  # through smoothing alone
    assert evaluate(predicted, part(masked, "a"), "au").values == evaluate({"a": other}, part(masked, "a"), "au").values


def test_smoothing_is_chosen_where_labels_last_and_noise_does_not():
    predicted, annotated = predicted_and_labels(noise=0.4)
    post = fit_postprocess(part(predicted, "ab"), annotated, "au", Options(threshold="tune", smooth="gaussian"))
    assert post.options.width > 0
    plain = fit_postprocess(part(predicted, "ab"), annotated, "au", Options(threshold="tune"))
    held = part(annotated, "cd")
    assert evaluate_post(predicted, held, post).mean > evaluate_post(predicted, held, plain).mean + 0.1


@pytest.mark.parametrize("kind", ["gaussian", "average"])
def test_smoothing_is_none_where_no_width_scores_better(kind):
    truth = np.tile([[1.0], [0.0]], (100, 12)).astype(np.float32)  # every frame differs from its neighbours
    labels = {"a": Labels("au", NAMES["au"], truth, np.ones(truth.shape, bool))}
    post = fit_postprocess({"a": item(0.1 + 0.8 * truth)}, labels, "au", Options(threshold="tune", smooth=kind))
    assert (post.options.smooth, post.tuned_on) == ("none", ("a",))
    assert "smoothed" not in post.describe()
    assert PostProcess.from_json(json.loads(json.dumps(post.to_json()))) == post


def test_a_fitted_post_processing_survives_json():
    predicted, annotated = predicted_and_labels()
    post = fit_postprocess(predicted, annotated, "au", Options(threshold="tune", smooth="gaussian", aucorr="tune"))
    assert PostProcess.from_json(json.loads(json.dumps(post.to_json()))) == post


def test_fixed_settings_are_tuned_on_no_recording():
    predicted, annotated = predicted_and_labels()
    post = fit_postprocess(predicted, annotated, "au", Options(threshold=0.4, smooth="average", width=5.0))
    assert post.tuned_on == ()
    assert evaluate_post(predicted, annotated, post).mean > 0


def test_tuning_on_labels_that_are_all_invalid_is_refused():
    predicted, annotated = predicted_and_labels(names=("a",))
    blank = {"a": replace(annotated["a"], valid=np.zeros_like(annotated["a"].valid))}
    with pytest.raises(UsageError, match="no annotated frame in the 1 recording to tune it on"):
        fit_postprocess(predicted, blank, "au", Options(threshold="tune"))
