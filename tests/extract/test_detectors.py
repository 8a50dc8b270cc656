"""What the detectors' decoders compute, and real weights on real clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.extract.faces import DETECTORS
from aupipe.extract.faces.detectors.retinaface import STRIDES, RetinaFace, anchors
from aupipe.extract.faces.detectors.scrfd import Scrfd, decode, fit
from aupipe.extract.imaging.templates import shrink, shrink_factor
from aupipe.extract.media.images import read_image
from aupipe.extract.media.video import VideoReader
from aupipe.extract.nets.retinaface import RetinaFace as RetinaFaceNet
from aupipe.extract.weights import RefusedWeightsError
from tests.made_checkpoint import save_checkpoint


def scrfd_outputs(canvas_px: int = 640) -> list[np.ndarray]:
    """Nine outputs that say nothing anywhere."""
    cells = [2 * (canvas_px // stride) ** 2 for stride in (8, 16, 32)]
    return [np.zeros((n, width), np.float32) for width in (1, 4, 10) for n in cells]


def test_scrfd_decodes_distances_from_the_cells_corner_in_strides() -> None:
    outputs = scrfd_outputs()
    cell = 2 * (3 * 40 + 5) + 1  # stride 16, row 3, column 5, second anchor
    outputs[1][cell] = 0.9
    outputs[4][cell] = [1, 2, 3, 4]
    outputs[7][cell] = np.arange(10) / 10
    found = decode(outputs, 640, 0.5, min_score=0.5, nms_threshold=0.4)
    x, y = 5 * 16, 3 * 16
    np.testing.assert_allclose(found.box, np.array([[x - 16, y - 32, x + 48, y + 64]]) / 0.5)
    points = np.array([x, y]) + np.arange(10).reshape(5, 2) / 10 * 16
    np.testing.assert_allclose(found.landmarks[0], points / 0.5, rtol=1e-6)
    assert found.score.tolist() == [np.float32(0.9)]
    assert found.box.dtype == found.landmarks.dtype == found.score.dtype == np.float32


def test_scrfd_keeps_the_better_of_two_that_overlap_and_orders_by_score() -> None:
    outputs = scrfd_outputs()
    for level, cell, score in ((0, 0, 0.6), (0, 1, 0.8), (2, 399, 0.7), (2, 398, 0.4)):
        outputs[level][cell] = score
        outputs[level + 3][cell] = 1
    found = decode(outputs, 640, 1.0, min_score=0.5, nms_threshold=0.4)
    np.testing.assert_allclose(found.score, [0.8, 0.7])
    assert len(decode(scrfd_outputs(), 640, 1.0, 0.5, 0.4)) == 0


def test_overlap_counts_sides_one_pixel_longer() -> None:
    outputs = scrfd_outputs()
    outputs[0][:2, 0] = 0.9, 0.8
    outputs[3][:2] = np.array([[0, 0, 9, 9], [0, -5, 9, 14]]) / 8  # 10 x 10 each, 50 shared, 150 together
    assert len(decode(outputs, 640, 1.0, min_score=0.5, nms_threshold=0.34)) == 2
    assert len(decode(outputs, 640, 1.0, min_score=0.5, nms_threshold=0.33)) == 1


def test_scrfd_puts_the_frame_top_left_on_black() -> None:
    frame = np.full((100, 200, 3), [255, 0, 127], np.uint8)
    frame_buffer, scale = fit(frame, 640)
    assert scale == 3.2
    assert frame_buffer.shape == (1, 3, 640, 640)
    np.testing.assert_allclose(frame_buffer[0, :, 0, 0], (np.array([255, 0, 127]) - 127.5) / 128, rtol=1e-6)  # RGB
    np.testing.assert_allclose(frame_buffer[0, :, 400, 0], -127.5 / 128)


def test_scrfd_refuses_a_canvas_its_strides_do_not_fill_and_a_file_that_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        Scrfd(canvas_px=600)
    with pytest.raises(WeightsMissingError, match="buffalo_l"):
        Scrfd().identify_weights()
    mean_colour = Path(__file__).parent / "data" / "mean_colour.onnx"
    with pytest.raises(UsageError, match="1 outputs; SCRFD with landmarks has 9"):
        Scrfd(str(mean_colour)).load("cpu")
    broken = tmp_path / "x.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(RefusedWeightsError, match=r"x\.onnx does not open"):
        Scrfd(str(broken)).load("cpu")


def test_retinaface_has_two_anchors_a_cell_by_row_and_column() -> None:
    boxes = anchors(40, 70, (10, 20, 32, 64, 128, 256))
    counts = [2 * -(-40 // stride) * -(-70 // stride) for stride in STRIDES]
    assert len(boxes) == sum(counts)
    assert boxes[0].tolist() == [4, 4, 10, 10]
    assert boxes[1].tolist() == [4, 4, 20, 20]
    assert boxes[2].tolist() == [12, 4, 10, 10]
    assert boxes[2 * 9].tolist() == [4, 12, 10, 10]  # nine columns at stride 8
    assert boxes[-1].tolist() == [80, 48, 256, 256]


def test_retinaface_decodes_with_its_variances() -> None:
    boxes = torch.tensor([[50.0, 60.0, 20.0, 20.0], [300.0, 300.0, 64.0, 64.0]])
    deltas = torch.tensor([[1.0, -1.0, float(np.log(2) / 0.2), 0.0], [0.0, 0.0, 0.0, 0.0]])
    points = torch.arange(10.0).repeat(2, 1)
    found = RetinaFace(min_score=0.5)._decode(deltas, torch.tensor([0.6, 0.9]), points, boxes)
    np.testing.assert_allclose(found.score, [0.9, 0.6])
    np.testing.assert_allclose(found.box[1], [52 - 20, 58 - 10, 52 + 20, 58 + 10], rtol=1e-5)
    np.testing.assert_allclose(found.landmarks[1], [50, 60] + np.arange(10).reshape(5, 2) * 2, rtol=1e-5)


def test_retinaface_of_another_release_is_refused_by_key(tmp_path: Path) -> None:
    path = save_checkpoint(RetinaFaceNet("mobile0.25", 0.0).state_dict(), tmp_path / "small.pth")
    with pytest.raises(RefusedWeightsError, match=r"missing: body\.conv1\.weight"):
        RetinaFace("resnet50", str(path)).load("cpu")


@pytest.mark.assets
def test_retinaface_finds_the_same_faces_alone_and_in_a_batch(
    assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    detect = RetinaFace().load("cpu")
    picture = read_image(assets / "images" / "group_five_faces.jpg")
    small = shrink(picture[None], shrink_factor(*picture.shape[:2], 640))
    batch = np.concatenate([np.zeros_like(small)] * 8 + [small, small[:, :, ::-1]])  # more than one pass takes
    found = detect(batch)
    assert [len(one) for one in found] == [0] * 8 + [5, 5]
    alone = detect(small)[0]
    np.testing.assert_allclose(found[8].box, alone.box, atol=0.01)
    np.testing.assert_allclose(found[8].landmarks, alone.landmarks, atol=0.01)


def counts(name: str, assets: Path, clip: str, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces in every n-th frame as a detector finds them, and as the labels state YuNet's."""
    detector = DETECTORS.get(name)()
    detect = detector.load("cpu")
    found = []
    for frames in VideoReader(assets / "videos" / clip):
        rgb = frames.rgb[frames.index % every == 0]
        if len(rgb):
            small = shrink(rgb, shrink_factor(*rgb.shape[1:3], 640))
            found += [int((one.score >= detector.min_score).sum()) for one in detect(small)]
    labels = json.loads((assets / "labels" / "yunet_face_counts.json").read_text())["counts"]
    return np.array(found), np.array(labels[clip][::every])


@pytest.mark.assets
@pytest.mark.parametrize("name", ["yunet", "retinaface"])
def test_detectors_see_the_face_come_and_go(
    name: str, assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    found, labels = counts(name, assets, "face_then_noface_vfr_hevc.mov", every=12)
    np.testing.assert_array_equal(found, labels)


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize(("name", "agreed"), [("yunet", 1.0), ("retinaface", 0.85)])
def test_detectors_agree_with_the_counted_faces_of_every_clip(
    name: str, agreed: float, assets: Path, asset_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    labels = json.loads((assets / "labels" / "yunet_face_counts.json").read_text())["counts"]
    pairs = [counts(name, assets, clip, every=10) for clip in labels]
    equal = np.concatenate([found == stated for found, stated in pairs])
    assert equal.mean() >= agreed
    empty = [clip for clip, (_, stated) in zip(labels, pairs, strict=True) if not stated.any()]
    for clip, (found, _) in zip(labels, pairs, strict=True):
        if clip in empty:
            assert (found > 0).mean() <= 0.1, clip
