"""Detection on every n-th frame: the frames chosen, the cuts seen, and the faces filled in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aupipe.extract.faces.face_table import FaceTable, pad_faces, to_table
from aupipe.extract.faces.sparse_detection import Schedule, SparseDetection, thumbnails
from aupipe.extract.faces.sparse_detection import fill_between as fill_table
from aupipe.extract.media.video import VideoReader
from aupipe.types import Detections, Frames
from tests.made import talking

SIZE = (480, 640)


def face(x: float, y: float = 100, side: float = 80, score: float = 0.9) -> np.ndarray:
    """One face as a row of 15 values: its points lie in its box."""
    box = np.array([x, y, x + side, y + side])
    points = box[:2] + side * np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]])
    return np.concatenate([box, points.reshape(-1), [score]]).astype(np.float32)


def rows_of(faces: list[np.ndarray], most: int = 4, size: tuple[int, int] = SIZE) -> np.ndarray:
    found = np.array(faces, np.float32).reshape(-1, 15)
    here = Detections(found[:, :4], found[:, 4:14].reshape(-1, 5, 2), found[:, 14])
    return dense(to_table(pad_faces([here]), 1, *size, most), most)[0]


def dense(table: FaceTable, most: int) -> np.ndarray:
    """As the store keeps it."""
    return np.concatenate(list(table.dense(most)))


def fill_between(rows: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    """Of rows (T, N, 17) and back."""
    return dense(fill_table(FaceTable.from_dense(rows), *masks), rows.shape[1])


def faces_in(rows: np.ndarray) -> int:
    return int((rows[:, 14] > 0).sum())


def masks(length: int, detected: list[int], cuts: list[int] = []) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # noqa: B006
    every = np.arange(length)
    return np.ones(length, bool), np.isin(every, detected), np.isin(every, cuts)


def test_a_face_that_moves_evenly_is_found_where_it_was() -> None:
    truth = np.stack([rows_of([face(100 + 3 * t, side=80 + t), face(400, 200, 60 - t)]) for t in range(10)])
    known = [0, 3, 6, 9]
    seen = np.full_like(truth, np.nan)
    seen[known] = truth[known]
    np.testing.assert_allclose(fill_between(seen, *masks(10, known)), truth, rtol=1e-6)


def test_a_face_without_partner_on_the_other_side_is_not_invented() -> None:
    seen = np.full((7, 4, 17), np.nan, np.float32)
    seen[0] = rows_of([face(100), face(400)])
    seen[3] = rows_of([face(102)])
    seen[6] = rows_of([])
    filled = fill_between(seen, *masks(7, [0, 3, 6]))
    assert [faces_in(row) for row in filled] == [2, 1, 1, 1, 0, 0, 0]
    assert np.isnan(filled[4:]).all()


def test_faces_that_do_not_overlap_are_two() -> None:
    seen = np.full((3, 4, 17), np.nan, np.float32)
    seen[0], seen[2] = rows_of([face(100)]), rows_of([face(160)])
    assert faces_in(fill_between(seen, *masks(3, [0, 2]))[1]) == 0


def test_nothing_reaches_across_a_cut_a_hole_or_another_size() -> None:
    seen = np.full((7, 4, 17), np.nan, np.float32)
    for t in (0, 3, 6):
        seen[t] = rows_of([face(100)])
    filled = fill_between(seen, *masks(7, [0, 3, 6], cuts=[2]))
    assert [faces_in(row) for row in filled] == [1, 0, 0, 1, 1, 1, 1]
    present, detected, cuts = masks(7, [0, 3, 6])
    present[1] = False
    assert [faces_in(row) for row in fill_between(seen, present, detected, cuts)] == [1, 0, 1, 1, 1, 1, 1]
    seen[6] = rows_of([face(100)], size=(240, 320))
    assert [faces_in(row) for row in fill_between(seen, *masks(7, [0, 3, 6]))] == [1, 1, 1, 1, 0, 0, 1]


@st.composite
def detections(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows with up to three faces where detected, masks and cuts, at random."""
    length = draw(st.integers(1, 24))
    flags = st.lists(st.booleans(), min_size=length, max_size=length).map(np.array)
    present, detected, cuts = draw(flags), draw(flags), draw(flags) & draw(flags)
    detected &= present
    rows = np.full((length, 3, 17), np.nan, np.float32)
    for t in np.flatnonzero(detected):
        places = draw(st.lists(st.integers(0, 12), max_size=3))
        rows[t] = rows_of([face(40.0 * place, score=0.7 + 0.01 * place) for place in places], most=3)
    return rows, present, detected, cuts


@given(detections())
@settings(max_examples=200, deadline=None)
def test_filling_keeps_what_was_detected_and_stays_between_it(given_rows) -> None:
    rows, present, detected, cuts = given_rows
    filled = fill_between(rows, present, detected, cuts)
    np.testing.assert_array_equal(filled[detected], rows[detected])
    known = np.flatnonzero(detected)
    for t in np.flatnonzero(~detected):
        here = filled[t][filled[t][:, 14] > 0]
        before, after = known[known < t], known[known > t]
        if not len(before) or not len(after) or not present[t] or cuts[before[-1] + 1 : after[0] + 1].any():
            assert np.isnan(filled[t]).all()
            continue
        sides = [rows[k][rows[k][:, 14] > 0] for k in (before[-1], after[0])]
        assert len(here) <= min(map(len, sides))
        for one in here:  # each lies between a face of the one side and a face of the other
            share = (t - before[-1]) / (after[0] - before[-1])
            gaps = [np.abs(a + (b - a) * share - one).max() for a in sides[0] for b in sides[1]]
            assert min(gaps) < 1e-3


@given(
    cut_at=st.sets(st.integers(1, 39)),
    holes=st.sets(st.integers(0, 39)),
    every=st.integers(1, 9),
    ends=st.sets(st.integers(1, 39)),
)
@settings(deadline=None)
def test_the_frames_chosen_hold_every_nth_both_ends_and_both_sides_of_each_cut_whatever_the_chunks(
    cut_at: set[int], holes: set[int], every: int, ends: set[int]
) -> None:
    level = np.cumsum([t in cut_at for t in range(40)]) % 2 * 100
    index = np.array([t for t in range(40) if t not in holes])
    if not len(index):
        assert Schedule(every).finish() == []
        return
    small = np.broadcast_to(level[index, None, None], (len(index), 32, 32)).astype(np.uint8)
    schedule = Schedule(every)
    chosen: list[int] = []
    for start, stop in zip([0, *sorted(ends)], [*sorted(ends), 40], strict=True):
        inside = (index >= start) & (index < stop)
        found = schedule.push(index[inside], small[inside], SIZE)
        assert found == sorted(found)
        chosen += found
    chosen += schedule.finish()
    expected = {t for t in index if t % every == 0} | {index[0], index[-1]}
    for before, after in pairwise(index):
        if level[before] != level[after] or after != before + 1:
            expected |= {before, after}
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == expected
    present, detected, _ = schedule.masks(40)
    assert np.flatnonzero(present).tolist() == index.tolist()
    assert np.flatnonzero(detected).tolist() == sorted(expected)


def test_another_picture_size_is_a_cut() -> None:
    schedule = Schedule(10)
    grey = np.zeros((4, 32, 32), np.uint8)
    assert schedule.push(np.arange(4), grey, SIZE) == [0]
    assert schedule.push(np.arange(4, 8), grey, (240, 320)) == [3, 4]
    assert np.flatnonzero(schedule.masks(8)[2]).tolist() == [4]


# Seen by eye; the scene of the last differs in light only.
CUTS = {
    "hamilton_lowlight_multiface_speech.mp4": [20, 82, 211],
    "nasa_multistream_speech_no_face.mp4": [202],
    "wolfgang_emotions_silent_audio.mp4": [],
    "carphone_qcif_no_audio.mp4": [],
    "crowd_walking_1080p.mp4": [],
}


@pytest.mark.assets
def test_the_cuts_of_clips_are_seen_and_motion_is_none(assets: Path) -> None:
    wrong = {}
    for clip, cuts in CUTS.items():
        schedule = Schedule(5)
        total = 0
        for frames in VideoReader(assets / "videos" / clip):
            schedule.push(frames.index, thumbnails(frames.rgb), frames.rgb.shape[1:3])
            total += len(frames)
        found = np.flatnonzero(schedule.masks(total)[2]).tolist()
        if not set(cuts) <= set(found) or len(found) > len(cuts) + 3:  # flashing stage light costs a few more
            wrong[clip] = found
    assert wrong == {}


def test_the_cuts_of_drawn_clips_are_seen_and_motion_is_none() -> None:
    people = [talking(0)[0][:, :, :288], talking(1)[0][:, :, :288], talking(0, seed=6)[0][:, :, :256]]
    schedule, start = Schedule(5), 0
    for pictures in people:
        schedule.push(start + np.arange(24), thumbnails(pictures), SIZE)
        start += 24
    found = np.flatnonzero(schedule.masks(start)[2]).tolist()
    assert {24, 48} <= set(found)
    assert len(found) <= 3  # the camera's jolts cost a detection more


def test_cuts_are_seen_alike_in_rgb_and_in_grey() -> None:
    pictures, _ = talking()
    grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])
    assert np.abs(thumbnails(pictures).astype(int) - thumbnails(grey)).max() <= 1


def test_detecting_some_frames_chunk_by_chunk_detects_those_alone_and_fills_the_others() -> None:
    seen: list[int] = []

    def find(pictures: np.ndarray) -> FaceTable:
        """One face as far to the right as the picture is bright."""
        levels = pictures[:, 0, 0, 0].astype(int)
        seen.extend(levels.tolist())
        rows = np.stack([np.concatenate([face(100.0 + level), SIZE]) for level in levels]).astype(np.float32)
        return FaceTable(np.ones(len(levels), np.int64), rows)

    every = SparseDetection(4, find)
    for start, stop in ((0, 5), (5, 6), (6, 15)):
        index = np.arange(start, stop)
        pictures = np.broadcast_to(index[:, None, None, None], (len(index), 8, 8, 3)).astype(np.uint8)
        every.push(Frames(pictures, index / 25, index))
    table = every.finish(15)
    assert seen == [0, 4, 8, 12, 14]
    assert table.counts.tolist() == [1] * 15
    np.testing.assert_allclose(table.rows[:, 0], 100 + np.arange(15), rtol=1e-6)
