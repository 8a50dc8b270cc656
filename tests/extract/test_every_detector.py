"""The contract of every registered detector, of weights made by code where no package brings them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from aupipe.extract.contract import requires_of
from aupipe.extract.faces import DETECTORS, Detector
from aupipe.extract.nets.retinaface import RetinaFace as RetinaFaceNet
from aupipe.extract.versions import versions_of
from tests.extract.conftest import Lit
from tests.made import talking
from tests.made_checkpoint import save_checkpoint
from tests.made_yunet import discs

STRIDES = (8, 16, 32)


def write_retinaface(path: Path) -> Path:
    """The small network with random numbers."""
    torch.manual_seed(0)
    return save_checkpoint(RetinaFaceNet("mobile0.25", 0.0).state_dict(), path)


def write_scrfd(path: Path, canvas_px: int) -> Path:
    """Two anchors a cell of each stride; those of stride 32 see a face of four cells in whatever is bright."""
    rng = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in STRIDES:
            name = f"{kind}{stride}"
            weight = rng.normal(0, 0.05, (2 * width, 3, 1, 1)).astype(np.float32)
            bias = np.full(2 * width, 2.0 if kind == "box" else 0.0, np.float32)
            if kind == "score":
                weight[:] = 4.0 if stride == 32 else 0.0
                bias[:] = -2.0 if stride == 32 else -10.0
            shape = numpy_helper.from_array(np.array([-1, width], np.int64), f"{name}.shape")
            weights += [numpy_helper.from_array(weight, f"{name}.w"), numpy_helper.from_array(bias, f"{name}.b"), shape]
            sides = [stride, stride]
            nodes += [
                helper.make_node("AveragePool", ["input"], [f"{name}.cells"], kernel_shape=sides, strides=sides),
                helper.make_node("Conv", [f"{name}.cells", f"{name}.w", f"{name}.b"], [f"{name}.said"]),
                helper.make_node("Transpose", [f"{name}.said"], [f"{name}.rows"], perm=[0, 2, 3, 1]),
                helper.make_node(
                    "Reshape", [f"{name}.rows", shape.name], [name if kind != "score" else f"{name}.flat"]
                ),
            ]
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [f"{name}.flat"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, canvas_px, canvas_px])
    graph = helper.make_graph(nodes, "scrfd", [picture], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


# Name -> its parameters, from a folder to write weights into.
PARAMS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "mtcnn": lambda folder: {},
    "retinaface": lambda folder: {"weights_file": str(write_retinaface(folder / "r.pth")), "min_score": 0.5},
    "scrfd": lambda folder: {"weights_file": str(write_scrfd(folder / "s.onnx", 320)), "canvas_px": 320},
    "yunet": lambda folder: {},
}


@pytest.fixture(params=[name for name in DETECTORS.names() if DETECTORS.origin(name) == "aupipe"])
def detector(request: pytest.FixtureRequest, lit_yunet: Lit, tmp_path: Path) -> Detector:
    return DETECTORS.get(request.param)(**PARAMS[request.param](tmp_path))


@pytest.fixture
def pictures(detector: Detector) -> np.ndarray:
    """What the detector finds faces in: drawn people, or discs of light."""
    if type(detector).__name__ in ("Mtcnn", "RetinaFace"):
        return talking(2, frames=2)[0][:, ::2, ::2].copy()
    return discs((60, 80), (160, 70), frames=2)


def test_faces_are_float32_boxes_points_and_scores_one_answer_a_frame(detector: Detector, pictures: np.ndarray) -> None:
    assert len(detector.identify_weights().sha256) == 64
    found = detector.load("cpu")(pictures)
    assert len(found) == len(pictures)
    for one in found:
        faces = len(one.score)
        assert faces > 0
        assert (one.box.shape, one.landmarks.shape) == ((faces, 4), (faces, 5, 2))
        assert {one.box.dtype, one.landmarks.dtype, one.score.dtype} == {np.dtype(np.float32)}
        assert (one.box[:, 2:] > one.box[:, :2]).all()
        assert np.isfinite(one.landmarks).all()


def test_a_frame_has_the_same_faces_alone_and_in_a_batch(detector: Detector, pictures: np.ndarray) -> None:
    detect = detector.load("cpu")
    alone = detect(pictures[:1])[0]
    together = detect(np.concatenate([np.zeros_like(pictures[:1]), pictures[::-1]]))[-1]
    assert len(together) == len(alone)
    np.testing.assert_allclose(together.box, alone.box, atol=0.01)
    np.testing.assert_allclose(together.landmarks, alone.landmarks, atol=0.01)
    np.testing.assert_allclose(together.score, alone.score, atol=1e-4)


def test_a_detector_keeps_nothing_from_one_call_to_the_next(detector: Detector, pictures: np.ndarray) -> None:
    detect = detector.load("cpu")
    first = detect(pictures)
    detect(np.full((1, 96, 128, 3), 200, np.uint8))
    for before, after in zip(first, detect(pictures), strict=True):
        np.testing.assert_array_equal(before.box, after.box)
        np.testing.assert_array_equal(before.score, after.score)


def test_several_threads_may_call_a_shareable_detector_at_once(detector: Detector, pictures: np.ndarray) -> None:
    if not getattr(detector, "shareable", False):
        assert type(detector).__name__ == "Mtcnn"  # of which each thread loads its own
        return
    detect = detector.load("cpu")
    expected = detect(pictures)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(detect, [pictures] * 8):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one.box, other.box)


def test_the_packages_a_detector_requires_are_in_the_provenance_of_its_items(detector: Detector) -> None:
    found = versions_of(detector)
    assert found
    assert set(found) <= set(requires_of(detector))


@pytest.mark.parametrize(
    "detector", ["mtcnn", "scrfd", "yunet"], indirect=True
)  # random numbers see something everywhere
def test_in_the_dark_a_detector_sees_nobody(detector: Detector) -> None:
    assert len(detector.load("cpu")(np.zeros((1, 128, 160, 3), np.uint8))[0]) == 0


@pytest.mark.parametrize("side", [1, 8, 33])
def test_a_tiny_picture_is_no_error_and_nobody_is_in_it(detector: Detector, side: int) -> None:
    found = detector.load("cpu")(np.full((2, side, side, 3), 90, np.uint8))
    assert len(found) == 2
    if type(detector).__name__ != "RetinaFace":  # random numbers see something everywhere
        assert [len(each) for each in found] == [0, 0]
