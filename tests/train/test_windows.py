"""Windows cover every frame, and each frame is counted once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.train.windows import overlap_mean, tile
from aupipe.types import Window

sizes = st.integers(1, 60)


@st.composite
def tilings(draw):
    frames, window = draw(st.integers(1, 300)), draw(sizes)
    hop = draw(st.integers(1, window))
    return frames, window, hop, draw(st.integers(0, hop - 1))


def covered(windows, frames):
    count = np.zeros(frames, dtype=int)
    for window in windows:
        assert 0 <= window.start < window.stop <= frames
        count[window.start : window.stop] += 1
    return count


@given(frames=st.integers(1, 300), window=sizes, data=st.data())
def test_hop_equal_to_window_covers_every_frame_exactly_once(frames, window, data):
    phase = data.draw(st.integers(0, window - 1))
    assert (covered(tile("a", frames, window, window, phase), frames) == 1).all()


@given(tilings())
def test_overlapping_windows_cover_every_frame_and_each_adds_one(tiling):
    frames, window, hop, phase = tiling
    windows = tile("a", frames, window, hop, phase)
    assert (covered(windows, frames) >= 1).all()
    assert all(len(item) <= window for item in windows)
    stops = [item.stop for item in windows]
    assert stops == sorted(set(stops))


@given(frames=st.integers(1, 50), extra=st.integers(0, 50))
def test_trap_04_a_short_recording_gives_one_short_window(frames, extra):
    assert tile("a", frames, frames + extra, frames + extra) == [Window("a", 0, frames)]


def test_trap_04_the_tail_is_kept():
    assert [(w.start, w.stop) for w in tile("a", 26, 10, 5)] == [(0, 10), (5, 15), (10, 20), (15, 25), (20, 26)]


def test_a_recording_without_frames_has_no_windows():
    assert tile("a", 0, 10, 5) == []


@pytest.mark.parametrize(("window", "hop", "phase"), [(10, 0, 0), (10, 11, 0), (10, 5, 5), (10, 5, -1)])
def test_windows_that_would_skip_frames_are_refused(window, hop, phase):
    with pytest.raises(ValueError, match="0 < hop <= window"):
        tile("a", 100, window, hop, phase)


@given(tilings())
def test_trap_03_overlaps_are_averaged_to_one_value_per_frame(tiling):
    frames, window, hop, phase = tiling
    windows = tile("a", frames, window, hop, phase)
    truth = np.random.default_rng(0).normal(size=(frames, 3)).astype(np.float32)
    mean = overlap_mean(frames, windows, [truth[w.start : w.stop] for w in windows])
    assert mean.shape == (frames, 3)
    np.testing.assert_allclose(mean, truth, rtol=1e-5)


def test_trap_03_the_mean_is_over_the_windows_that_contain_the_frame():
    windows = [Window("a", 0, 2), Window("a", 1, 3)]
    mean = overlap_mean(3, windows, [np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])])
    assert mean[:, 0].tolist() == [0.0, 0.5, 1.0]


def test_a_frame_in_no_window_is_an_error():
    with pytest.raises(ValueError, match="frame 2 of 3"):
        overlap_mean(3, [Window("a", 0, 2)], [np.zeros((2, 1))])
