"""Finding, following and aligning the face."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aupipe.errors import WeightsMissingError
from aupipe.extract.faces import DETECTORS
from aupipe.extract.faces.detection import detect_faces
from aupipe.extract.faces.face_table import FaceTable, enlarged, pad_faces, to_table
from aupipe.extract.faces.tracking import TrackParams, iou, subject_track
from aupipe.extract.imaging.templates import ARCFACE_112, CropTemplate, shrink, shrink_factor, similarity, warp
from aupipe.extract.media.images import read_image
from aupipe.extract.media.video import VideoReader
from aupipe.types import Detections
from tests.made import talking

PHOTOS = {
    "biden_portrait.jpg": 1,
    "no_face_mountain.jpg": 0,
    "obama_portrait.jpg": 1,
    "smiling_man.jpg": 1,
    "two_people.jpg": 2,
    "group_five_faces.jpg": 5,
}


# insightface allows no commercial use, so none of its files is here: test_every_detector.py makes one.
WITHOUT_WEIGHTS = {"scrfd"}
TESTED = [name for name in DETECTORS.names() if name not in WITHOUT_WEIGHTS]


def load(name: str) -> Callable[[np.ndarray], Detections]:
    """A registered detector as the pipeline uses it, on one picture."""
    detector = DETECTORS.get(name)()
    assert len(detector.identify_weights().sha256) == 64
    loaded = detector.load("cpu")

    def find(picture: np.ndarray) -> Detections:
        factor = shrink_factor(*picture.shape[:2], 640)
        found = loaded(shrink(picture[None], factor))[0]
        keep = found.score >= detector.min_score
        box, landmarks = (enlarged(part[keep], factor) for part in (found.box, found.landmarks))
        return Detections(box, landmarks, found.score[keep])

    return find


@pytest.mark.assets
@pytest.mark.parametrize("detector", TESTED)
def test_every_detector_finds_the_faces_of_the_photos(
    detector: str, assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    detect = load(detector)
    assert {name: len(detect(read_image(assets / "images" / name))) for name in PHOTOS} == PHOTOS
    assert_one_face(detect(read_image(assets / "images" / "smiling_man.jpg")))
    assert len(detect(np.zeros((120, 160, 3), np.uint8))) == 0


def test_the_bundled_detector_finds_drawn_faces() -> None:
    detect = load("mtcnn")
    assert [len(detect(talking(number, frames=1)[0][0])) for number in range(3)] == [1, 1, 2]
    assert_one_face(detect(talking(frames=1)[0][0]))


def assert_one_face(found: Detections) -> None:
    """Its landmarks come in the order of the template, inside its box."""
    assert len(found) == 1
    x, y = found.landmarks[0].T
    assert x[0] < x[1]
    assert x[3] < x[4]
    assert max(y[0], y[1]) < y[2] < min(y[3], y[4])
    left, top, right, bottom = found.box[0]
    assert (x > left).all()
    assert (x < right).all()
    assert (y > top).all()
    assert (y < bottom).all()
    assert found.box.dtype == found.landmarks.dtype == found.score.dtype == np.float32


@pytest.mark.assets
def test_detectors_agree_on_where_the_face_is(
    assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    picture = read_image(assets / "images" / "obama_portrait.jpg")
    small = shrink(picture[None], 2)
    points = [DETECTORS.get(name)().load("cpu")(small)[0].landmarks[0] for name in TESTED]
    between_eyes = np.linalg.norm(points[0][1] - points[0][0])
    for other in points[1:]:
        assert np.abs(points[0] - other).max() < 0.15 * between_eyes


def test_yunet_without_its_weights_says_which_file_and_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissingError, match=r"face_detection_yunet_2023mar\.onnx.*sha256 8f2383e4") as error:
        DETECTORS.get("yunet")().identify_weights()
    assert error.value.exit_code == 12
    (tmp_path / "face_detection_yunet_2023mar.onnx").write_bytes(b"something else")
    with pytest.raises(WeightsMissingError, match="is not the published"):
        DETECTORS.get("yunet")().identify_weights()


def test_shrinking_keeps_coordinates() -> None:
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[45:48, 60:63] = 255  # one block of the picture shrunk three times
    small = shrink(picture[None], 3)[0]
    y, x = np.argwhere(small[..., 0] == 255)[0]
    big = enlarged(np.array([x, y], np.float32), 3)
    np.testing.assert_allclose(big, [61, 46])  # the middle of the white block


angles = st.floats(-3.1, 3.1)
shifts = st.floats(-500, 500)


@given(angles, st.floats(0.05, 20), shifts, shifts)
def test_a_similarity_of_the_template_is_undone_exactly(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ARCFACE_112 @ turn.T + [x, y]
    matrix = similarity(points[None], ARCFACE_112)[0]
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], ARCFACE_112, atol=1e-6)


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), min_size=5, max_size=5))
def test_the_similarity_is_the_least_squares_one(points: list[tuple[float, float]]) -> None:
    source = np.array(points)
    assume(np.ptp(source, axis=0).max() > 1e-3)  # points nearer than that are one point, which has no similarity
    matrix = similarity(source[None], ARCFACE_112)[0]

    def cost(m: np.ndarray) -> float:
        return float(np.square(source @ m[:, :2].T + m[:, 2] - ARCFACE_112).sum())

    # The general solution of min |A p - b| over (a, b, tx, ty) by lstsq: the same family, another route.
    rows = np.array([[[px, -py, 1, 0], [py, px, 0, 1]] for px, py in source]).reshape(10, 4)
    a, b, tx, ty = np.linalg.lstsq(rows, ARCFACE_112.ravel(), rcond=None)[0]
    assert cost(matrix) <= cost(np.array([[a, -b, tx], [b, a, ty]])) + 1e-4 * (1 + cost(matrix))


@pytest.mark.parametrize("size", [96, 112, 128, 224, 256, 260])
def test_the_warp_brings_the_landmarks_to_the_template_at_any_size(size: int) -> None:
    template = CropTemplate(size)
    landmarks = ARCFACE_112 * 2 + [30, 20]
    picture = np.zeros((300, 300, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(picture, (round(x), round(y)), 4, (255, 255, 255), -1)
    crop = warp(picture[None], landmarks[None], template)[0]
    assert crop.shape == (size, size, 3)
    for x, y in template.points():
        assert crop[round(y), round(x), 0] > 200


def test_the_warp_is_opencvs() -> None:
    picture = talking(frames=1)[0][0]
    landmarks = np.array([[120, 90], [190, 88], [155, 130], [125, 170], [187, 168]], np.float32)
    matrix = similarity(landmarks[None], ARCFACE_112)[0]
    expected = cv2.warpAffine(picture, matrix, (112, 112), flags=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(warp(picture[None], landmarks[None], CropTemplate(112))[0], expected)


def faces_at(*boxes: tuple[float, float, float]) -> Detections:
    """Faces by (x, y, side)."""
    box = np.array([[x, y, x + side, y + side] for x, y, side in boxes], np.float32).reshape(-1, 4)
    points = np.stack([box[:, :2] + (box[:, 2:] - box[:, :2]) * f for f in (0.3, 0.7, 0.5, 0.4, 0.6)], axis=1)
    return Detections(box, points, np.ones(len(box), np.float32))


def rows(*frames: Detections) -> FaceTable:
    return to_table(pad_faces(frames), 1, 240, 480, 4)


LEFT, RIGHT = (60.0, 80.0, 60.0), (330.0, 70.0, 90.0)


@pytest.mark.parametrize(("rule", "x"), [("largest", 330), ("left", 60), ("right", 330), ("center", 330)])
def test_each_subject_rule_picks_the_person_it_names(rule, x: float) -> None:
    track = subject_track(rows(*[faces_at(LEFT, RIGHT)] * 20), TrackParams(subject=rule))
    assert track.valid.all()
    assert (track.box[:, 0] == x).all()


def test_somebody_seen_beside_the_subject_never_stands_in_for_it() -> None:
    together = [faces_at(LEFT, RIGHT)] * 40
    alone = [faces_at(LEFT)] * 20  # the larger person has turned away
    track = subject_track(rows(*together, *alone, *together), TrackParams(subject="largest"))
    np.testing.assert_array_equal(track.valid, [True] * 40 + [False] * 20 + [True] * 40)
    assert (track.box[track.valid, 0] == 330).all()


def test_left_is_not_replaced_by_right_where_left_is_missing() -> None:
    track = subject_track(
        rows(*[faces_at(RIGHT)] * 20, *[faces_at()] * 20, *[faces_at(LEFT, RIGHT)] * 60), TrackParams(subject="left")
    )
    np.testing.assert_array_equal(track.valid, [False] * 40 + [True] * 60)


def test_after_a_cut_the_only_face_is_the_subject_again() -> None:
    track = subject_track(rows(*[faces_at(LEFT)] * 20, *[faces_at(RIGHT)] * 20), TrackParams())
    assert track.valid.all()


def test_a_flicker_of_the_detector_is_no_face() -> None:
    frames = [faces_at(LEFT)] * 20 + [faces_at()] * 30
    frames[35] = faces_at(RIGHT)
    assert not subject_track(rows(*frames), TrackParams()).valid[20:].any()
    assert subject_track(rows(faces_at(LEFT)), TrackParams()).valid.all()  # a recording of one frame


def test_no_faces_give_a_track_that_is_invalid_throughout() -> None:
    track = subject_track(rows(*[faces_at()] * 5), TrackParams())
    assert len(track) == 5
    assert not track.valid.any()
    assert np.isnan(track.to_rows()).all()


@given(st.lists(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 200), st.floats(5, 100)), max_size=4), max_size=15))
def test_every_row_of_a_track_is_a_detection_of_its_own_frame(frames: list[list[tuple[float, float, float]]]) -> None:
    if not frames:
        return
    stored = rows(*[faces_at(*faces) for faces in frames])
    for rule in ("largest", "center", "left", "right"):
        track = subject_track(stored, TrackParams(subject=rule))  # type: ignore[arg-type]
        assert len(track) == len(frames)
        for t in np.flatnonzero(track.valid):
            assert any(np.array_equal(track.box[t], row[:4]) for row in list(stored)[t])
        places = stored.chosen(track.box)
        np.testing.assert_array_equal(places >= 0, track.valid)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(4, 8))
def test_a_table_of_faces_and_its_stored_form_say_the_same(counts: list[int], max_faces: int) -> None:
    rng = np.random.default_rng(len(counts))
    table = FaceTable(np.array(counts, np.int64), rng.uniform(0.1, 1, (sum(counts), 17)).astype(np.float32))
    dense = np.concatenate([*table.dense(max_faces), np.zeros((0, max_faces, 17), np.float32)])
    assert dense.shape == (len(counts), max_faces, 17)
    np.testing.assert_array_equal(np.isnan(dense).all(axis=(1, 2)), table.counts == 0)
    back = FaceTable.from_dense(dense)
    np.testing.assert_array_equal(back.counts, table.counts)
    np.testing.assert_array_equal(back.rows, table.rows)


def test_iou_of_equal_boxes_is_one_and_of_distant_ones_zero() -> None:
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(iou(a, a), np.eye(2))
    np.testing.assert_allclose(iou(a[:1], np.array([[0, 5, 10, 15]])), [[1 / 3]])


def test_a_drawn_face_that_leaves_and_returns_is_found_where_it_is_visible() -> None:
    pictures = talking(frames=36)[0].copy()
    pictures[12:24] = 128
    detector = DETECTORS.get("mtcnn")()
    found = detect_faces(pictures, detector.load("cpu"), detect_px=160, max_faces=8, min_score=detector.min_score)
    visible = (np.arange(36) < 12) | (np.arange(36) >= 24)
    np.testing.assert_array_equal(subject_track(found, TrackParams()).valid, visible)


@pytest.mark.assets
def test_the_face_that_leaves_and_returns_is_found_where_it_is_visible(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(assets / "weights"))
    import csv

    with (assets / "labels" / "derived_face_leaves_and_returns.csv").open() as file:
        table = list(csv.DictReader(file))
    column = next(name for name in table[0] if "visible" in name)
    visible = np.array([float(row[column]) for row in table])
    reader = VideoReader(assets / "videos" / "derived_face_leaves_and_returns.avi")
    detector = DETECTORS.get("yunet")()
    detect = detector.load("cpu")
    found = [
        detect_faces(frames.rgb, detect, detect_px=640, max_faces=8, min_score=detector.min_score) for frames in reader
    ]
    track = subject_track(FaceTable.joined(found), TrackParams())
    assert track.valid[visible == 1].mean() > 0.99
    assert not track.valid[visible == 0].any()


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 4),
    st.sampled_from([-np.inf, 0.5]),
    st.randoms(use_true_random=False),
)
def test_a_table_holds_the_largest_sure_faces_of_each_frame_in_the_pixels_of_the_whole(
    counts: list[int], factor: int, most: int, min_score: float, random
) -> None:
    found = []
    for count in counts:
        sides = [(random.randint(0, 50), random.randint(0, 50), random.choice([10, 20, 30])) for _ in range(count)]
        one = faces_at(*sides)  # some are equally large
        found.append(Detections(one.box, one.landmarks, np.array([random.random() for _ in sides], np.float32)))
    table = to_table(pad_faces(found), factor, 240, 480, most, min_score)
    for rows, one in zip(table, found, strict=True):
        sure = [i for i in range(len(one.score)) if one.score[i] >= min_score]
        sure.sort(key=lambda i: -np.prod(one.box[i, 2:] - one.box[i, :2]))  # stable: equals stay as they were found
        assert len(rows) == min(len(sure), most)
        for row, i in zip(rows, sure, strict=False):
            whole = np.concatenate([one.box[i], one.landmarks[i].reshape(-1)]) * factor + (factor - 1) / 2
            np.testing.assert_allclose(row, [*whole, one.score[i], 240, 480], rtol=1e-6)
    for one, back in zip(found, pad_faces(found).to_detections(), strict=True):
        np.testing.assert_array_equal(back.box, one.box)
        np.testing.assert_array_equal(back.landmarks, one.landmarks)
