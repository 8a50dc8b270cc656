"""SynAU (docs/training.md): its optimum is exact, good heads come near it, and none exceeds it."""

from dataclasses import replace

import numpy as np
import pytest
from synau import LINES, SMOOTHED, known, score, train_line
from synau_world import AUCORR, RATES, W1, W2, affect, bayes, make_world, stationary, units

from aupipe.tasks import AU_NAMES
from aupipe.train.evaluate import evaluate
from aupipe.train.labels import NAMES
from aupipe.train.metrics import ccc
from aupipe.train.postprocess import Options, fit_postprocess
from aupipe.train.predictions import Predictions

MARGIN = 0.015  # two standard errors of a macro F1 over 48 videos


@pytest.fixture(scope="module")
def small():
    """A third of W1."""
    return make_world(replace(W1, videos=(60, 12, 24), frames=400))


@pytest.fixture(scope="module")
def whole():
    return make_world(W1)


@pytest.fixture(scope="module")
def reached(whole):
    """Macro F1 on the test split of W1 by line of the table, each trained at its first use."""
    found = {}

    def of(line):
        if line not in found:
            validation, test, _ = train_line(whole, line)
            found[line] = [
                score(whole, validation, test, options)[0].mean for options in (Options(threshold="tune"), SMOOTHED)
            ]
        return found[line][0]

    of.smoothed = lambda line: (of(line), found[line][1])[1]
    return of


def optimum(world, view="smooth", use=()):
    return score(world, known(world, "validation", view, use), known(world, "test", view, use))[0]


@pytest.mark.parametrize("config", [W1, AUCORR])
def test_the_stationary_law_has_the_rates_and_correlations_asked_for(config):
    law, shown = stationary(config), units()
    assert len({tuple(row) for row in shown}) == len(shown) == 36
    np.testing.assert_allclose(law @ shown, RATES, atol=1e-6)
    for (a, b), aim in config.pairs.items():
        i, j = AU_NAMES.index(a), AU_NAMES.index(b)
        spread = np.sqrt(RATES[i] * (1 - RATES[i]) * RATES[j] * (1 - RATES[j]))
        assert (law @ (shown[:, i] * shown[:, j]) - RATES[i] * RATES[j]) / spread == pytest.approx(aim, abs=1e-6)


@pytest.mark.parametrize("view", ["frame", "filter", "smooth"])
def test_the_bayes_posterior_is_calibrated(small, view):
    """Of frames with a posterior of p, a share of p shows the AU: only the exact posterior is calibrated."""
    chance = np.concatenate([p @ units() for p in bayes(small, "test", view).values()]).ravel()
    truth = np.concatenate([units()[small.states[r.id]] for r in small.splits["test"]]).ravel()
    assert miscalibration(chance, truth) < 0.01  # .001 to .007 by sampling alone
    assert miscalibration(chance**2 / (chance**2 + (1 - chance) ** 2), truth) > 0.015  # evidence counted twice


def miscalibration(chance, truth):
    """Expected calibration error over ten bins."""
    error = 0.0
    for low in np.arange(0, 1, 0.1):
        own = (chance >= low) & (chance < low + 0.1)
        error += own.mean() * abs(truth[own].mean() - chance[own].mean()) if own.any() else 0.0
    return error


def test_the_optimum_rises_with_the_frames_it_uses(small):
    frame, past, both = (optimum(small, view).mean for view in ("frame", "filter", "smooth"))
    assert frame + 0.1 < past
    assert past + 0.05 < both
    assert optimum(small, use=("voice",)).mean < frame


@pytest.mark.slow
def test_gate_1_and_2_best_is_far_above_linear_and_not_above_bayes(small):
    linear = train_line(small, "linear")[:2]
    best = score(small, *train_line(small, "best")[:2])[0].mean
    assert score(small, *linear)[0].mean + 0.13 < best < optimum(small).mean + MARGIN
    assert best > score(small, *linear, SMOOTHED)[0].mean + 0.03


def test_gate_4_aucorr_helps_a_weak_detector_with_strong_partners():
    """AU24 and AU26 are detected frame by frame from one weak feature direction each, all others by the optimum.

    A head trained on all features uses the partners itself and gains nothing: AUcorr is for separate detectors.
    """
    world = make_world(replace(AUCORR, videos=(1, 16, 32)))
    face = world.modalities[0]

    def detect(split):
        found = known(world, split)
        for name, item in found.items():
            rows = np.nan_to_num(world.store.read(name, face.spec.id)) @ face.basis
            for au in ("AU24", "AU26"):
                k, strength = AU_NAMES.index(au), 0.1 * world.config.amp
                odds = strength * (rows[:, k] - strength / 2) + np.log(RATES[k] / (1 - RATES[k]))
                item.scores[:, k] = 1 / (1 + np.exp(-odds))
        return found

    validation, test = detect("validation"), detect("test")
    plain, _ = score(world, validation, test, Options(threshold="tune"))
    corr, _ = score(world, validation, test, Options(threshold="tune", aucorr="on"))
    chosen = fit_postprocess(validation, world.of("validation"), "au", Options(threshold="tune", aucorr="tune"))
    assert corr.mean > plain.mean + 0.02
    assert chosen.options.aucorr == "on"


def test_gate_4_aucorr_lowers_the_score_where_aus_are_detected_well(small):
    validation, test = known(small, "validation"), known(small, "test")
    assert score(small, validation, test, Options(threshold="tune", aucorr="on"))[0].mean < optimum(small).mean - 0.01
    chosen = fit_postprocess(validation, small.of("validation"), "au", Options(threshold="tune", aucorr="tune"))
    assert chosen.options.aucorr == "off"


def test_gate_6_the_reported_ccc_is_the_pooled_one(small):
    found, labels = {}, small.of("test", "va")
    for name, chance in bayes(small, "test").items():
        clock = np.arange(len(chance)) / 25
        expected = (chance @ affect()).astype(np.float32)
        found[name] = Predictions(name, "va", NAMES["va"], expected, np.ones(len(chance), bool), clock)
    scores = evaluate(found, labels, "va")
    windows = [
        ccc(labels[n].targets[t : t + 100], found[n].scores[t : t + 100])
        for n in found
        for t in range(0, 400, 100)
        if labels[n].valid[t : t + 100].all()
    ]
    assert scores.mean > 0.9
    assert scores.mean > np.mean(windows) + 0.01


# ------------------------------------------------------------------------------------ the whole table: slow


@pytest.mark.slow
@pytest.mark.parametrize("line", [name for name in LINES if name not in ("linear", "mlp")])
def test_gate_1_every_temporal_head_beats_linear_and_none_beats_bayes(reached, whole, line):
    top = optimum(whole, "filter" if line in ("tcn causal", "gpt2") else "smooth").mean
    # Measured: +.043 for cross-attention, +.045 for the temporal part of ViViT.
    least = 0.03 if line in ("cross-attention", "vivit") else 0.05
    assert reached("linear") + least < reached(line) < top + MARGIN


@pytest.mark.slow
def test_gate_1_temporal_heads_are_above_smoothing(reached):
    for line in ("tcn", "tcn-transformer", "gru", "best"):
        assert reached(line) > reached("linear") + 0.13
    assert reached("tcn") > reached.smoothed("linear") + 0.02


@pytest.mark.slow
@pytest.mark.timeout(2400)  # by itself it trains every line
def test_best_reaches_its_goal_and_is_above_all_other_lines(reached):
    assert reached("best") >= 0.8  # the goal was .76; measured .840
    assert reached("best") > reached("field") - 0.005  # its member, which gets all the weight
    assert all(reached("best") > reached(line) + 0.02 for line in LINES if line not in ("best", "field"))


@pytest.mark.slow
def test_best_uses_changes_where_noise_is_slow():
    """World W2, in which smoothing gains nothing: measured .79 at full size, where a TCN has .60 and a GRU .62."""
    world = make_world(replace(W2, videos=(60, 12, 24), frames=400))
    linear, best = (score(world, *train_line(world, line)[:2])[0].mean for line in ("linear", "best"))
    assert linear + 0.1 < best < optimum(world).mean + MARGIN


@pytest.mark.slow
def test_gate_3_without_audio_only_aus_of_the_mouth_are_worse(whole):
    with_audio, without = (
        np.array(score(whole, *train_line(whole, "best", features=use)[:2])[0].values)
        for use in ((), ("visual_a", "visual_b"))
    )
    mouth = [AU_NAMES.index("AU25"), AU_NAMES.index("AU26")]
    others = [k for k in range(12) if k not in mouth]
    assert (with_audio - without)[mouth[1]] > 0.1
    assert (with_audio - without)[others].mean() < 0.03


@pytest.mark.slow
def test_gate_3_audio_alone_stays_below_its_optimum(whole):
    audio, ceiling = (
        score(whole, *train_line(whole, "best", features=("voice",))[:2])[0],
        optimum(whole, use=("voice",)),
    )
    assert audio.mean < ceiling.mean + 0.02


@pytest.mark.slow
def test_gate_7_the_same_seed_gives_identical_scores(small):
    first, second = (train_line(small, "best", seed=4, extra=("epochs=2",))[1] for _ in range(2))
    assert all(np.array_equal(first[name].scores, second[name].scores) for name in first)
