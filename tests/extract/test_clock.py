"""Sound lands on the right frame, by every rule, on any clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aupipe.extract.clock import align
from aupipe.extract.encoders import Track

RULES = ["interpolate", "nearest", "mean"]
CLOCKS = {
    "23.976": np.arange(200) / 23.976,
    "25": np.arange(200) / 25,
    "29.97 from 0.852 s": 0.852 + np.arange(200) / 29.97,
    "60": np.arange(300) / 60,
    "variable": np.cumsum(np.random.default_rng(0).uniform(0.0137, 0.0417, 200)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_a_click_lands_on_its_frame(rule, clock: np.ndarray) -> None:
    for click_s in (1.5, 2.0, 2.51):
        times = np.arange(1000) * 0.01
        energy = np.exp(-np.square((times - click_s) / 0.012))[:, None].astype(np.float32)
        rows = align(Track(energy, times), clock, rule)
        loudest = int(np.nanargmax(rows[:, 0]))
        assert abs(loudest - int(np.argmin(np.abs(clock - click_s)))) <= 1


@given(
    st.integers(1, 60),
    st.floats(0.005, 0.2),
    st.floats(-2, 2),
    st.integers(1, 40),
    st.floats(0.005, 0.2),
    st.floats(-2, 2),
    st.sampled_from(RULES),
)
def test_rows_stay_within_what_was_heard_and_uncovered_frames_are_nan(
    n: int, step: float, start: float, t: int, period: float, first: float, rule
) -> None:
    times, pts = start + np.arange(n) * step, first + np.arange(t) * period
    data = np.random.default_rng(0).random((n, 2)).astype(np.float32)
    rows = align(Track(data, times), pts, rule)
    assert rows.shape == (t, 2)
    covered = ~np.isnan(rows[:, 0])
    slack = (step if n > 1 else 0.02) / 2 + 1e-6
    np.testing.assert_array_equal(covered[(pts < times[0] - slack) | (pts > times[-1] + slack)], False)
    np.testing.assert_array_equal(covered[(pts >= times[0]) & (pts <= times[-1])], True)
    assert (rows[covered] >= data.min(axis=0) - 1e-5).all()
    assert (rows[covered] <= data.max(axis=0) + 1e-5).all()


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_interpolation_of_a_straight_line_is_the_line(slope: float, offset: float) -> None:
    times = np.arange(100) * 0.01
    pts = np.sort(np.random.default_rng(1).uniform(0, 0.99, 30))
    rows = align(Track((slope * times + offset)[:, None].astype(np.float32), times), pts, "interpolate")
    np.testing.assert_allclose(rows[:, 0], slope * pts + offset, atol=1e-4)


@given(st.integers(2, 50))
def test_nearest_is_the_nearest(t: int) -> None:
    times = np.arange(80) * 0.0125
    pts = np.random.default_rng(t).uniform(0, times[-1], t)
    pts.sort()
    distance = np.abs(times[None] - pts[:, None])
    assume((np.sort(distance, axis=1)[:, 1] - distance.min(axis=1) > 1e-9).all())
    rows = align(Track(np.arange(80, dtype=np.float32)[:, None], times), pts, "nearest")
    np.testing.assert_array_equal(rows[:, 0], distance.argmin(axis=1))


def test_the_mean_of_a_frame_is_over_what_is_heard_while_it_is_shown() -> None:
    times = np.arange(100) * 0.01 + 0.005
    rows = align(Track(np.arange(100, dtype=np.float32)[:, None], times), np.arange(10) * 0.1 + 0.05, "mean")
    np.testing.assert_allclose(rows[:, 0], np.arange(10) * 10 + 4.5)


def test_nothing_is_invented_before_the_sound_begins_or_after_it_ends() -> None:
    track = Track(np.ones((50, 3), np.float32), 2.43 + np.arange(50) * 0.01)
    rows = align(track, np.arange(100) / 25, "interpolate")
    heard = ~np.isnan(rows[:, 0])
    np.testing.assert_array_equal(heard, (np.arange(100) / 25 >= 2.425) & (np.arange(100) / 25 <= 2.925))
