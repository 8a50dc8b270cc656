"""YuNet by three routes: OpenCV's own, onnxruntime, and the batched network in torch."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from aupipe.extract.faces.detectors.yunet import YuNet
from aupipe.extract.faces.detectors.yunet_torch import load_yunet
from aupipe.extract.faces.nms import suppress
from aupipe.extract.imaging.templates import shrink, shrink_factor
from aupipe.extract.media.images import read_image
from aupipe.extract.media.video import VideoReader
from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.onnx_file import read_convolutions
from aupipe.extract.weights.onnx_session import edit_graph
from aupipe.types import Detections
from tests.extract.conftest import Lit
from tests.made import talking
from tests.made_yunet import bright_for_face, discs, random_faces, write_yunet

FILES = ("face_detection_yunet_2023mar.onnx", "yunet_n_640.onnx", "yunet_s_dynamic.onnx")
CLIPS = ("hamilton_lowlight_multiface_speech.mp4", "crowd_walking_1080p.mp4", "carphone_qcif_no_audio.mp4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Networks of the two published shapes, with sizes stated and without, of random numbers and of light."""
    folder = tmp_path_factory.mktemp("networks")
    return {
        "bright": write_yunet(folder / "bright.onnx", bright_for_face()),
        "yunet_s": write_yunet(folder / "yunet_s.onnx", random_faces()),
        "yunet_n": write_yunet(folder / "yunet_n.onnx", random_faces(shared=True), size=None),
    }


@pytest.fixture
def yunet(lit_yunet: Lit) -> YuNet:
    """The network that takes bright for a face, by its published name."""
    return YuNet()


LIT = discs((60, 80), (160, 70), frames=1)
DRAWN = [talking(number, frames=8)[0][::4].copy() for number in range(3)]


def assert_same_faces(found: list[Detections], expected: list[Detections]) -> None:
    """The same faces in the same order, within 1e-3 px."""
    assert [len(one) for one in found] == [len(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=1e-3, rtol=0)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-3, rtol=0)
        np.testing.assert_allclose(one.score, other.score, atol=1e-5, rtol=0)
        assert one.box.dtype == one.landmarks.dtype == one.score.dtype == np.float32


def pictures(assets: Path, every: int, long_px: int, clips: tuple[str, ...] = CLIPS):
    """Batcher (B, h, w, 3): every photo alone, and every n-th frame of clips, in their chunks."""
    for photo in sorted((assets / "images").iterdir()):
        whole = read_image(photo)[None]
        yield shrink(whole, shrink_factor(*whole.shape[1:3], long_px))
    for clip in clips:
        for frames in VideoReader(assets / "videos" / clip):
            some = frames.rgb[frames.index % every == 0]
            if len(some):
                yield shrink(some, shrink_factor(*some.shape[1:3], long_px))


def assert_routes_agree(file: str | Path, batches) -> None:
    detector = YuNet(str(file))
    path = detector._path()
    by_opencv, by_onnx = detector._load_opencv(path), detector._load_onnx(path)
    by_torch = detector._load_torch(path, "cpu")
    faces = 0
    for batch in batches:
        expected = by_opencv(batch)
        faces += sum(map(len, expected))
        assert_same_faces(by_onnx(batch), expected)
        assert_same_faces(by_torch(batch), expected)
    assert faces > 10


@pytest.mark.parametrize("network", ["bright", "yunet_s", "yunet_n"])
def test_every_route_finds_the_faces_opencv_finds(network: str, made: dict[str, Path]) -> None:
    pictures = [discs((60, 80), (160, 70), frames=12), LIT[:, :150, :201]] if network == "bright" else DRAWN
    assert_routes_agree(made[network], pictures)


@pytest.mark.assets
@pytest.mark.parametrize("file", FILES)
def test_every_route_finds_the_real_faces_opencv_finds(
    file: str, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(assets / "weights"))
    assert_routes_agree(file, pictures(assets, every=40, long_px=320))


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize(("long_px", "every"), [(320, 4), (640, 10)])
def test_every_route_finds_the_faces_opencv_finds_in_every_clip(
    long_px: int, every: int, assets: Path, clips: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(assets / "weights"))
    assert_routes_agree(FILES[0], pictures(assets, every, long_px, tuple(clips)))


def test_a_frame_has_the_same_faces_alone_in_a_batch_and_in_another_thread(yunet: YuNet) -> None:
    small = LIT
    batch = np.concatenate([small[:, :, ::-1], np.zeros_like(small), small])
    for detector in (yunet._load_onnx(yunet._path()), yunet._load_opencv(yunet._path())):
        alone = detector(small)[0]
        assert len(alone) == 2
        found: list[list[Detections]] = [[] for _ in range(4)]

        def work(place: int, detector=detector, found=found) -> None:
            for size in (batch, batch[:, :100]):  # another size in between
                found[place] = detector(size)
            found[place] = detector(batch)

        threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in found:
            np.testing.assert_array_equal(one[2].box, alone.box)
            np.testing.assert_array_equal(one[2].landmarks, alone.landmarks)
            assert len(one[1]) == 0


def test_without_onnxruntime_opencv_detects(monkeypatch: pytest.MonkeyPatch, yunet: YuNet) -> None:
    expected = yunet.load("cpu")(LIT)
    monkeypatch.setattr("aupipe.extract.faces.detectors.yunet.find_spec", lambda name: None)
    monkeypatch.setattr(YuNet, "_load_onnx", lambda self, path: pytest.fail("onnxruntime is not there"))
    assert_same_faces(yunet.load("cpu")(LIT), expected)


def test_faces_on_a_device_come_filled_from_the_front_and_the_rest_is_0(yunet: YuNet) -> None:
    small = discs((50, 80), (140, 60), (240, 90), frames=1, size=(160, 320))
    batch = torch.from_numpy(np.concatenate([small, np.zeros_like(small)])).permute(0, 3, 1, 2)
    found = yunet.load_tensor("cpu")(batch)
    assert found.number.tolist() == [3, 0]
    assert found.settled.all()
    assert (found.score[0, :3] >= 0.7).all()
    assert (found.score[0, :2] >= found.score[0, 1:3]).all()
    for values in found[:3]:
        assert not values[0, 3:].any()
        assert not values[1].any()
    assert_same_faces(yunet.load_tensor("cpu")(batch.float()).to_detections(), found.to_detections())


def test_a_frame_with_more_candidates_than_were_looked_at_is_not_called_settled(
    yunet: YuNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = yunet.load("cpu")(LIT)
    batch = torch.from_numpy(np.concatenate([LIT, np.zeros_like(LIT)])).permute(0, 3, 1, 2)
    monkeypatch.setattr("aupipe.extract.faces.detectors.yunet.CANDIDATES", 4)
    assert yunet.load_tensor("cpu")(batch).settled.tolist() == [False, True]
    assert_same_faces(yunet._load_torch(yunet._path(), "cpu")(LIT), expected)  # it looks again, at more


boxes = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=12
)


@example(boxes=[(0, 0, 1, 1), (0, 0, 1, 10)], threshold=0.1, rounds=2)  # on the threshold
@given(boxes=boxes, threshold=st.sampled_from([0.1, 0.3, 0.6]), rounds=st.integers(1, 14))
def test_suppression_in_rounds_is_opencvs_wherever_it_says_it_has_settled(
    boxes: list[tuple[int, int, int, int]], threshold: float, rounds: int
) -> None:
    scores = [1 - 0.01 * place for place in range(len(boxes))]
    expected = cv2.dnn.NMSBoxes(boxes, scores, 0.0, threshold)
    corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=torch.float32)[None]
    valid = torch.ones(1, len(boxes), dtype=torch.bool)
    kept, settled = suppress(corners, valid, threshold, rounds)
    if rounds > len(boxes):
        assert settled.all()
    if settled.all():
        assert kept[0].nonzero()[:, 0].tolist() == sorted(expected.tolist())


def test_places_without_a_box_suppress_nothing() -> None:
    corners = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 11]]])
    kept, settled = suppress(corners, torch.tensor([[False, True, True]]), 0.3, 4)
    assert kept.tolist() == [[False, True, False]]
    assert settled.tolist() == [True]


def assert_weights_are_those_onnx_reads(paths: Iterable[Path]) -> None:
    import onnx

    for path in paths:
        graph = onnx.load(str(path)).graph
        tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        expected = [tensors[name] for node in graph.node if node.op_type == "Conv" for name in node.input[1:]]
        found = [values for pair in read_convolutions(path) for values in pair]
        assert len(found) == len(expected) >= 106
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_weights_of_an_onnx_file_are_those_the_package_onnx_reads(made: dict[str, Path]) -> None:
    assert_weights_are_those_onnx_reads(made.values())
    for path, network in ((made["yunet_s"], random_faces()), (made["yunet_n"], random_faces(shared=True))):
        loaded, expected = load_yunet(path).state_dict(), network.state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)


@pytest.mark.assets
def test_the_weights_of_the_published_files_are_those_the_package_onnx_reads(assets: Path) -> None:
    assert_weights_are_those_onnx_reads(assets / "weights" / file for file in FILES)


def test_a_fixed_input_size_is_freed_and_nothing_else_changes(made: dict[str, Path]) -> None:
    import onnx

    before = onnx.load(str(made["yunet_s"]))
    after = onnx.load_from_string(edit_graph(made["yunet_s"], free_sizes=True))
    dims = after.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value or dim.dim_param for dim in dims] == [1, 3, "height", "width"]
    after.graph.input[0].CopyFrom(before.graph.input[0])
    assert after == before
    assert edit_graph(made["yunet_n"], free_sizes=True) == made["yunet_n"].read_bytes()


@pytest.mark.parametrize("route", ["_load_onnx", "_load_torch"])
def test_a_file_of_another_network_is_refused_by_name(route: str, made: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(made["yunet_s"].read_bytes()[:100_000])
    for path in (Path(__file__).parent / "data" / "mean_colour.onnx", broken):
        with pytest.raises(RefusedWeightsError, match=path.name):
            getattr(YuNet(), route)(path, *(["cpu"] if route == "_load_torch" else []))


def test_the_network_takes_any_side_that_is_a_multiple_of_32(made: dict[str, Path]) -> None:
    network = load_yunet(made["yunet_n"])
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 16)
