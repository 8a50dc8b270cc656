"""The official scores, compared with their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aupipe.train.metrics import binary_f1, ccc, class_f1, confusion


def f1(targets, predicted):
    true = sum(1 for t, p in zip(targets, predicted, strict=True) if t and p)
    wrong = sum(1 for t, p in zip(targets, predicted, strict=True) if bool(t) != bool(p))
    return 2 * true / (2 * true + wrong) if true or wrong else 0.0


@given(arrays(bool, st.tuples(st.just(2), st.integers(0, 40), st.just(3))))
def test_binary_f1_is_its_definition(pair):
    targets, predicted = pair
    np.testing.assert_allclose(binary_f1(targets, predicted), [f1(targets[:, k], predicted[:, k]) for k in range(3)])


@given(arrays(np.int64, st.tuples(st.just(2), st.integers(0, 40)), elements=st.integers(0, 7)))
def test_class_f1_is_one_against_all(pair):
    targets, predicted = pair
    np.testing.assert_allclose(class_f1(targets, predicted), [f1(targets == k, predicted == k) for k in range(8)])


def test_confusion_counts_target_by_prediction():
    counts = confusion(np.array([[1], [1], [0]]), np.array([[1], [0], [0]]))
    assert counts.tolist() == [[[1, 0], [1, 1]]]


def test_a_class_that_is_absent_and_never_predicted_scores_0_not_1():
    assert binary_f1(np.zeros((5, 1), bool), np.zeros((5, 1), bool)).tolist() == [0.0]
    assert class_f1(np.zeros(5), np.zeros(5)).tolist() == [1.0, 0, 0, 0, 0, 0, 0, 0]


def test_ccc_uses_population_moments():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    y = 0.5 * x + rng.normal(size=(20, 2)) + 0.3
    for k in range(2):
        covariance = np.cov(x[:, k], y[:, k], ddof=0)
        gap = x[:, k].mean() - y[:, k].mean()
        expected = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + gap**2)
        assert ccc(x, y)[k] == pytest.approx(expected, abs=1e-12)
        mixed = 2 * np.cov(x[:, k], y[:, k])[0, 1] / (covariance[0, 0] + covariance[1, 1] + gap**2)
        assert ccc(x, y)[k] != pytest.approx(mixed, abs=1e-3)


def test_ccc_of_two_equal_constants_and_of_nothing_is_0():
    assert ccc(np.ones((5, 1)), np.ones((5, 1))).tolist() == [0.0]
    assert ccc(np.ones((0, 2)), np.ones((0, 2))).tolist() == [0.0, 0.0]


def test_trap_07_a_shrunken_predictor_loses_ccc_that_matching_the_variance_gives_back():
    rng = np.random.default_rng(1)
    signal = rng.normal(size=100_000) * 0.67
    truth = signal + rng.normal(size=100_000) * np.sqrt(1 - 0.67**2)  # signal is the posterior mean, r = .67
    shrunken, matched = ccc(truth[:, None], signal[:, None]), ccc(truth[:, None], signal[:, None] / 0.67)
    assert shrunken[0] == pytest.approx(2 * 0.67**2 / (1 + 0.67**2), abs=0.01)
    assert matched[0] == pytest.approx(0.67, abs=0.01)
