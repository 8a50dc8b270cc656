"""By how many frames labels are late: what is found, and what chance is not taken for."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.report.checks.lag import _sums, estimate_lag

FRAMES, COLUMNS = 600, 6


def smooth(rng: np.random.Generator, width: int) -> np.ndarray:
    """(FRAMES, COLUMNS) of noise that changes within about ``width`` frames."""
    kernel = np.hanning(width + 2)[1:-1]
    noise = rng.normal(size=(FRAMES + width - 1, COLUMNS))
    found = np.stack([np.convolve(column, kernel, "valid") for column in noise.T], axis=1)
    return found / found.std(axis=0)


def labels_of(signals: np.ndarray, late: int) -> tuple[np.ndarray, np.ndarray]:
    """0 or 1 where a signal is high, so many frames late, and which rows are valid."""
    targets, valid = np.zeros_like(signals), np.zeros(signals.shape, bool)
    early, shifted = (
        (slice(0, len(signals) - late), slice(late, None)) if late >= 0 else (slice(-late, None), slice(0, late))
    )
    targets[shifted], valid[shifted] = signals[early] > 0.8, True
    return targets, valid


@pytest.mark.parametrize("late", [-20, -5, -2, 0, 1, 2, 3, 12, 40])
def test_a_lag_is_found_with_its_sign_and_one_frame_is_none(late: int) -> None:
    rng = np.random.default_rng(abs(late))
    face = smooth(rng, 20)
    measured = face + 0.7 * rng.normal(size=face.shape)
    measured[100:130] = np.nan  # no face there
    found = estimate_lag(*labels_of(face, late), measured, fps=30.0)
    assert found is not None
    assert abs(found.best_lag - late) <= 1
    assert found.lag == (found.best_lag if abs(late) >= 2 else 0)


@pytest.mark.parametrize("width", [2, 20, 90])
def test_chance_is_not_taken_for_a_lag_however_smooth_the_series(width: int) -> None:
    rng = np.random.default_rng(width)
    flagged = 0
    for _ in range(60):
        found = estimate_lag(*labels_of(smooth(rng, width), 0), smooth(rng, width), fps=30.0)
        flagged += found is not None and found.lag != 0
    assert flagged <= 3  # of 60, labels of somebody else entirely


def test_labels_that_never_change_tell_nothing() -> None:
    assert (
        estimate_lag(np.zeros((300, 2)), np.ones((300, 2), bool), np.random.default_rng(0).normal(size=(300, 2)), 25)
        is None
    )
    assert estimate_lag(np.zeros((3, 2)), np.ones((3, 2), bool), np.ones((3, 2)), 25) is None


def test_the_sums_by_fft_are_those_of_every_shift() -> None:
    rng = np.random.default_rng(1)
    y, s, valid = rng.random((90, 3)), rng.normal(size=(90, 3)) + 50, rng.random((90, 3)) < 0.8
    s[rng.random((90, 3)) < 0.1] = np.nan
    sums = _sums(y, valid, s, 7).sum(axis=1)
    centred = s - np.nanmean(s, axis=0)
    for lag in range(-7, 8):
        late, early = slice(max(lag, 0), 90 + min(lag, 0)), slice(max(-lag, 0), 90 + min(-lag, 0))
        here = valid[late] & ~np.isnan(s[early])
        a, b = np.where(here, y[late], 0), np.where(here, centred[early], 0)
        expected = np.stack([here, a, b, a * a, b * b, a * b]).sum(axis=1)
        assert np.allclose(sums[lag + 7], expected, atol=1e-9), lag
