"""The clips that benchmarks and tests make from a real one hold the frames they are said to hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.extract.media.video import VideoReader
from benchmarks.extract_clips import FPS, cut_clips, join_clips, turn_clip
from tests.made import write_talking


def pictures(path: Path) -> np.ndarray:
    return np.concatenate([frames.rgb for frames in VideoReader(path)])


def test_cut_clips_repeat_their_source_and_join_into_the_same_frames_on_one_rising_clock(
    tmp_path: Path,
) -> None:
    source = write_talking(tmp_path / "source.mpg", frames=75)
    clips = cut_clips(source, tmp_path / "clips", count=4)  # of 3 seconds
    apart = [pictures(clip) for clip in clips]
    assert [len(clip) for clip in apart] == [FPS] * 4
    np.testing.assert_array_equal(apart[3], apart[0])
    assert np.abs(apart[1][0].astype(int) - apart[0][0]).max() > 0
    joined = join_clips(clips, tmp_path / "joined.mp4")
    np.testing.assert_array_equal(pictures(joined), np.concatenate(apart))
    np.testing.assert_allclose(VideoReader(joined).clock(), np.arange(4 * FPS) / FPS, atol=1e-9)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_clip_is_shown_turned_as_opencv_shows_it(tmp_path: Path, degrees: int) -> None:
    import cv2

    source = write_talking(tmp_path / "source.mp4", frames=8)
    turned = turn_clip(source, tmp_path / "turned.mp4", degrees)
    capture = cv2.VideoCapture(str(turned))
    assert int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360 in (degrees, 360 - degrees)
    np.testing.assert_array_equal(next(iter(VideoReader(turned))).rgb[0], capture.read()[1][..., ::-1])
