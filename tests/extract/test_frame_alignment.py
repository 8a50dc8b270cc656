"""Sound lands on the right frame, by every rule, on any clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aupipe.config import EncoderConfig
from aupipe.extract.encoders import FrameAlignment, TimeSeries, build_encoder
from aupipe.extract.encoders.frame_alignment import covers, masked_blocks, resample_to_frames, window_blocks

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
        rows = resample_to_frames(TimeSeries(energy, times), clock, FrameAlignment(align=rule))
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
    rows = resample_to_frames(TimeSeries(data, times), pts, FrameAlignment(align=rule))
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
    line = TimeSeries((slope * times + offset)[:, None].astype(np.float32), times)
    rows = resample_to_frames(line, pts, FrameAlignment())
    np.testing.assert_allclose(rows[:, 0], slope * pts + offset, atol=1e-4)


@given(st.integers(2, 50))
def test_nearest_is_the_nearest(t: int) -> None:
    times = np.arange(80) * 0.0125
    pts = np.random.default_rng(t).uniform(0, times[-1], t)
    pts.sort()
    distance = np.abs(times[None] - pts[:, None])
    assume((np.sort(distance, axis=1)[:, 1] - distance.min(axis=1) > 1e-9).all())
    series = TimeSeries(np.arange(80, dtype=np.float32)[:, None], times)
    rows = resample_to_frames(series, pts, FrameAlignment(align="nearest"))
    np.testing.assert_array_equal(rows[:, 0], distance.argmin(axis=1))


def test_the_mean_of_a_frame_is_over_what_is_heard_while_it_is_shown() -> None:
    times = np.arange(100) * 0.01 + 0.005
    series = TimeSeries(np.arange(100, dtype=np.float32)[:, None], times)
    rows = resample_to_frames(series, np.arange(10) * 0.1 + 0.05, FrameAlignment(align="mean"))
    np.testing.assert_allclose(rows[:, 0], np.arange(10) * 10 + 4.5)


def test_nothing_is_invented_before_the_sound_begins_or_after_it_ends() -> None:
    series = TimeSeries(np.ones((50, 3), np.float32), 2.43 + np.arange(50) * 0.01)
    rows = resample_to_frames(series, np.arange(100) / 25, FrameAlignment())
    heard = ~np.isnan(rows[:, 0])
    np.testing.assert_array_equal(heard, (np.arange(100) / 25 >= 2.425) & (np.arange(100) / 25 <= 2.925))


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_a_click_is_in_the_middle_of_what_wide_means_and_windows_hear(clock: np.ndarray) -> None:
    for click_s in (1.5, 2.0, 2.51):
        frame = int(np.argmin(np.abs(clock - click_s)))
        times = np.arange(1000) * 0.01
        energy = np.exp(-np.square((times - click_s) / 0.012))[:, None].astype(np.float32)
        wide = resample_to_frames(TimeSeries(energy, times), clock, FrameAlignment(align="mean", align_s=0.3))[:, 0]
        heard = np.flatnonzero(wide > 0.01)  # NaN beyond the series
        np.testing.assert_allclose(clock[heard[[0, -1]]], [click_s - 0.3, click_s + 0.3], atol=0.07)
        assert abs(np.argmin(np.abs(clock - clock[heard].mean())) - frame) <= 1
        rows = resample_to_frames(TimeSeries(energy, times), clock, FrameAlignment(align="window", align_rows=9))
        assert rows.shape == (len(clock), 9, 1)
        assert abs(int(np.nanargmax(rows[:, 4, 0])) - frame) <= 1
        # Row j of a window lies (j - 4) steps from the frame.
        assert times[int(np.argmax(energy))] - clock[frame] == pytest.approx(
            (int(np.argmax(rows[frame, :, 0])) - 4) * 0.01, abs=0.0101
        )


@given(
    st.integers(1, 60), st.floats(0.005, 0.2), st.floats(-2, 2), st.integers(1, 40), st.floats(0.005, 0.2),
    st.floats(-2, 2), st.floats(0.01, 3),
)  # fmt: skip
def test_a_wide_mean_is_the_mean_of_the_rows_within_it(
    n: int, step: float, start: float, t: int, period: float, first: float, half: float
) -> None:
    times, pts = start + np.arange(n) * step, first + np.arange(t) * period
    data = np.random.default_rng(0).random((n, 2)).astype(np.float32)
    rows = resample_to_frames(TimeSeries(data, times), pts, FrameAlignment(align="mean", align_s=half))
    for row, at in zip(rows, pts, strict=True):
        within = (times >= at - half) & (times <= at + half)
        expected = data[within].mean(axis=0) if within.any() else np.full(2, np.nan)
        np.testing.assert_allclose(row, expected, rtol=1e-5)


@given(
    st.integers(1, 40), st.floats(0.005, 0.2), st.floats(-2, 2), st.integers(1, 30), st.floats(0.005, 0.2),
    st.floats(-2, 2), st.integers(1, 7),
)  # fmt: skip
def test_a_window_holds_the_nearest_rows_and_nan_where_there_are_none(
    n: int, step: float, start: float, t: int, period: float, first: float, count: int
) -> None:
    times, pts = start + np.arange(n) * step, first + np.arange(t) * period
    series = TimeSeries(np.random.default_rng(0).random((n, 2)).astype(np.float32), times)
    slots = np.concatenate(list(window_blocks(series, pts, count)))
    assert slots.shape == (t, count, 2)
    spacing = step if n > 1 else 0.02
    for i, j in np.ndindex(t, count):
        at = pts[i] + (j - (count - 1) / 2) * spacing
        if at < times[0] - spacing / 2 - 1e-6 or at > times[-1] + spacing / 2 + 1e-6:
            assert np.isnan(slots[i, j]).all()
        elif times[0] <= at <= times[-1]:
            distance = np.abs(times - at)
            match = np.flatnonzero((series.data == slots[i, j]).all(axis=1))
            assert distance[match[0]] <= distance.min() + 1e-9
    rows = resample_to_frames(series, pts, FrameAlignment(align="window", align_rows=count))
    partly = np.isnan(slots).any(axis=(1, 2))
    np.testing.assert_array_equal(np.isnan(rows).all(axis=(1, 2)), partly)  # whole or not at all
    np.testing.assert_array_equal(rows[~partly], slots[~partly])


def test_a_track_covers_what_its_rows_hear() -> None:
    """VGGish hears 0.975 s a row: its first row speaks for the first frame, 0.4875 s before the row's time."""
    series = TimeSeries(np.ones((3, 1), np.float32), 5.4875 + 0.05 * np.arange(3), 0.975)
    pts = np.array([4.99, 5.0, 5.5, 6.07, 6.08])
    np.testing.assert_array_equal(covers(series, pts), [False, True, True, True, False])
    rows = resample_to_frames(series, pts, FrameAlignment())
    np.testing.assert_array_equal(np.isnan(rows[:, 0]), [True, False, False, False, True])


def test_long_series_are_resampled_in_blocks_like_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    series = TimeSeries(np.random.default_rng(0).random((400, 3)).astype(np.float32), np.arange(400) * 0.02)
    pts = np.arange(210) / 25 + 0.003
    options = [FrameAlignment(align=rule) for rule in RULES]
    options += [FrameAlignment(align="mean", align_s=0.7), FrameAlignment(align="window", align_rows=3)]
    whole = [resample_to_frames(series, pts, option) for option in options]
    monkeypatch.setattr("aupipe.extract.encoders.frame_alignment.BLOCK", 13)
    for expected, option in zip(whole, options, strict=True):
        np.testing.assert_allclose(resample_to_frames(series, pts, option), expected, rtol=1e-6)


@pytest.mark.parametrize(("params", "shape"), [({}, (7, 64)), ({"align": "window", "align_rows": 4}, (7, 4, 64))])
def test_a_video_without_sound_can_be_masked_and_never_gets_zeros(params: dict, shape: tuple[int, ...]) -> None:
    encoder = build_encoder(EncoderConfig("x", "logmel", "audio", params))
    rows = np.concatenate(list(masked_blocks(encoder, encoder.load("cpu"), np.arange(7) / 25)))
    assert rows.shape == shape
    assert np.isnan(rows).all()
