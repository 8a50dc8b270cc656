"""Frames on a device: the same faces and features as on the host, and nothing but boxes and rows comes back.

The device is torch's ``cpu`` here; what only CUDA has (streams, pinned memory) is not run.
"""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.encoders.image_base import TensorEncode
from aupipe.extract.encoders.visual.hog import Hog
from aupipe.extract.encoders.visual.timm import Timm
from aupipe.extract.engine import engine as engine_module
from aupipe.extract.engine import resources
from aupipe.extract.engine.batcher import BatchSlice, joined
from aupipe.extract.engine.crops import KeptCrops, face_crops, track_crops
from aupipe.extract.engine.device import Device
from aupipe.extract.engine.results import JobResult
from aupipe.extract.faces.detection import FaceDetector
from aupipe.extract.faces.detectors.yunet import YuNet
from aupipe.extract.faces.device_detection import DeviceDetector
from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.gpu.frames import DeviceFrameBuffer, DeviceFrames
from aupipe.extract.imaging.templates import ArcFaceCropTemplate, BoxCropTemplate, CropTemplate, FfhqCropTemplate
from aupipe.extract.media.frame_buffer import HostFrameBuffer
from aupipe.extract.media.video import VideoReader
from aupipe.extract.memory import Budget
from aupipe.extract.meter import Meter
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store, create_store
from aupipe.types import FaceTrack, Frames, Recording
from tests.conftest import write_video
from tests.extract.conftest import Lit
from tests.extract.running import run_jobs

TINY = {"model": "test_resnet.r160_in1k", "weights": "random", "size_px": 96}
CONFIG = Config(
    faces=FacesConfig(detector="yunet"),
    encoders=(EncoderConfig("hog", "hog", "visual"), EncoderConfig("tiny", "timm", "visual", TINY)),
)


@pytest.fixture(autouse=True)
def _weights(lit_yunet: Lit) -> None:
    """The detector is the made one."""


@pytest.fixture
def recording(tmp_path: Path, lit: Lit) -> Recording:
    """75 frames with one face."""
    shutil.copy(lit["one.mpg"], tmp_path / "a.mpg")
    return Recording("a.mpg", video=tmp_path / "a.mpg")


def chunks_of(path: Path, most: int = 1) -> list[DeviceFrames]:
    reader = iter(VideoReader(path, frame_buffer=lambda: DeviceFrameBuffer("cpu")))
    return [next(reader) for _ in range(most)]


def finder() -> FaceDetector:
    detector = YuNet()
    return FaceDetector(detector.load("cpu"), 640, 8, detector.min_score, DeviceDetector(detector.load_tensor("cpu")))


def run(
    store: Store, recording: Recording, parts: FeatureSet, frames_on: str, **how: Any
) -> tuple[JobResult, dict[str, Any]]:
    plan = make_plan([recording], parts, store)
    (outcome,) = run_jobs(plan.jobs, store, parts, frames_on=frames_on, **how)
    assert not outcome.failed, [record.reason for record in outcome.failed]
    read = {record.feature.partition("@")[0]: record for record in outcome.published}
    return outcome, {name: store.read(record.recording, record.feature) for name, record in read.items()}


def test_faces_and_features_are_those_of_the_host(
    tmp_path: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[type] = []
    monkeypatch.setattr(DeviceFrames, "rgb", property(lambda self: gone.append(type(self))))
    parts = build_feature_set(CONFIG)
    _, host = run(create_store(tmp_path / "host", "zarr"), recording, parts, "")
    _, device = run(create_store(tmp_path / "device", "zarr"), recording, parts, "cpu")
    assert not gone  # no picture went back to the host
    np.testing.assert_array_equal(device["clock"], host["clock"])
    assert np.isfinite(host["detections"][:, 0]).all()
    np.testing.assert_allclose(device["detections"][..., :14], host["detections"][..., :14], atol=5e-3)  # px
    np.testing.assert_allclose(device["faces"], host["faces"], atol=5e-3)
    track = FaceTrack.from_rows(host["faces"])
    for name, encoder in (("hog", Hog()), ("tiny", Timm(**TINY))):
        expected = one_grey_level(recording, track, encoder)
        difference = np.abs(device[name].astype(np.float32) - host[name].astype(np.float32))
        assert difference.max() <= expected, name
        assert not np.isnan(device[name]).any()


def one_grey_level(recording: Recording, track: FaceTrack, encoder: Any) -> float:
    """How far rows move at most when every pixel of the crops goes up or down by one grey level, or stays."""
    encode, random = encoder.load("cpu"), np.random.default_rng(0)
    frames = next(iter(VideoReader(recording.video)))
    _, crops = track_crops(frames, track, encoder.reads)
    noisy = np.clip(crops.astype(int) + random.integers(-1, 2, crops.shape), 0, 255).astype(np.uint8)
    return float(np.abs(encode(noisy) - encode(crops)).max())


def test_memory_is_given_back_and_kept_crops_spare_a_decode(
    tmp_path: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[resources.Resources] = []

    class Seen(resources.Resources):
        def __init__(self, *things: Any, **named: Any) -> None:
            super().__init__(*things, **named)
            made.append(self)

    monkeypatch.setattr(engine_module, "Resources", Seen)
    parts = build_feature_set(replace(CONFIG, encoders=CONFIG.encoders[:1]))
    decoded: dict[int, int] = {}
    rows = {}
    for limit in (1 << 30, 40 * 3 * 112**2):  # of 75 crops: all, those of one chunk
        counted: list[int] = []
        how = {"on_frames": counted.append, "kept_on_device": limit}
        _, read = run(create_store(tmp_path / f"{limit}", "zarr"), recording, parts, "cpu", **how)
        rows[limit], decoded[limit] = read["hog"], sum(counted)
    whole, one_chunk = rows.values()
    assert list(decoded.values()) == [len(whole), 2 * len(whole)]
    np.testing.assert_array_equal(one_chunk, whole)
    assert len(made) == 2
    for stages in made:
        assert (stages.prefetched.acquired_bytes, stages.kept.acquired_bytes, stages.kept_on_device.acquired_bytes) == (
            0,
            0,
            0,
        )
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is DeviceFrames]


class Watched(TorchFunctionMode):
    """Notes the calls for which the host would wait for a device."""

    WAITS: ClassVar = {"cpu", "item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "unique"}
    WAITS |= {"tensor", "new_tensor", "as_tensor"}  # from the host's memory, and not through `upload`

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[tuple[str, tuple[int, ...]]] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in self.WAITS:
            self.waits.append((func.__name__, tuple(getattr(args[0], "shape", ()))))
        if func.__name__ == "__getitem__" and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], tuple) else (args[1],))
        ):
            self.waits.append(("mask", tuple(args[0].shape)))
        return func(*args, **(kwargs or {}))


def test_from_planes_to_rows_the_host_waits_for_boxes_alone(recording: Recording) -> None:
    find, encode = finder(), Hog().load("cpu")
    assert isinstance(encode, TensorEncode)
    kept = KeptCrops([CropTemplate(112)], Budget(0), Budget(1 << 30))
    chunks = chunks_of(recording.video, 2)
    with Watched() as watched:
        for frames, faces in find.over(chunks, Meter()):
            kept.add_faces(frames, faces)
        for ((_, crops),) in kept.chosen([(np.zeros(75, np.int64), CropTemplate(112))]):
            rows = encode.start(crops)
    assert rows.shape == (32, 1764)
    assert watched.waits
    assert {name for name, _ in watched.waits} == {"numpy"}
    assert len(watched.waits) == 2  # the faces of each chunk
    assert all(np.prod(shape) <= 32 * (256 * 15 + 2) for _, shape in watched.waits)


def test_faces_come_a_chunk_late_from_a_device_and_at_once_from_the_host(recording: Recording) -> None:
    given: list[int] = []

    def chunks(frame_buffer: Any) -> Any:
        for number, frames in enumerate(VideoReader(recording.video, frame_buffer=frame_buffer)):
            given.append(number)
            yield frames

    for frame_buffer, late in ((HostFrameBuffer, 0), (lambda: DeviceFrameBuffer("cpu"), 1)):
        given.clear()
        last = 75 // 32
        for number, (frames, faces) in enumerate(finder().over(chunks(frame_buffer), Meter())):
            assert len(frames) == len(faces)
            assert given[-1] == min(number + late, last)
        assert number == last


def test_frames_on_which_a_device_is_not_sure_are_looked_at_again(recording: Recording) -> None:
    find, detect = finder(), YuNet().load_tensor("cpu")
    (frames,) = chunks_of(recording.video)
    sure = next(iter(find.over([frames], Meter())))[1]

    def unsure(pictures: torch.Tensor) -> Any:
        found = detect(pictures)
        doubt = torch.arange(len(pictures)) % 2 == 0
        return found._replace(box=found.box * (~doubt)[:, None, None], settled=~doubt)

    again = next(iter(replace(find, on_device=DeviceDetector(unsure)).over([frames], Meter())))[1]
    np.testing.assert_array_equal(again.counts, sure.counts)
    np.testing.assert_allclose(again.rows, sure.rows, atol=5e-3)


def test_a_detector_without_a_tensor_form_sees_the_same_small_pictures(recording: Recording) -> None:
    find = replace(finder(), on_device=None)
    (frames,) = chunks_of(recording.video)
    ((_, table),) = find.over([frames], Meter())
    expected = find(next(iter(VideoReader(recording.video))).rgb)
    np.testing.assert_array_equal(table.counts, expected.counts)
    np.testing.assert_array_equal(table.rows, expected.rows)


@pytest.mark.parametrize(
    ("template", "levels", "kind"),
    [
        (CropTemplate(112), 1, torch.Tensor),
        (ArcFaceCropTemplate(64), 1, torch.Tensor),
        (BoxCropTemplate(48), 0, np.ndarray),
        (FfhqCropTemplate(64), 0, np.ndarray),
    ],
)
def test_crops_are_the_hosts_to_a_grey_level_and_stay_where_they_are_cut(
    recording: Recording, template: CropTemplate, levels: int, kind: type
) -> None:
    host = next(iter(VideoReader(recording.video)))
    (frames,) = chunks_of(recording.video)
    faces = finder()(host.rgb[:6])
    at = faces.frame
    boxes, points = faces.rows[:, :4], faces.rows[:, 4:14].reshape(-1, 5, 2)
    crops = face_crops(frames, at, boxes, points, template)
    expected = face_crops(host, at, boxes, points, template)
    assert isinstance(crops, kind)
    difference = np.abs(np.asarray(crops).astype(int) - expected)
    assert difference.max() <= levels
    assert difference.mean() < 0.01


@pytest.mark.parametrize("turn", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_pictures_on_a_device_are_swscales_upright_and_in_the_same_chunks(
    tmp_path: Path, lit: Lit, turn: tuple[int, int, int, int]
) -> None:
    data = bytearray(lit["other.mp4"].read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the display matrix of the first track, which is the video
    a, b, c, d = (value << 16 for value in turn)
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    (tmp_path / "turned.mp4").write_bytes(data)
    host = next(iter(VideoReader(tmp_path / "turned.mp4")))
    (device,) = chunks_of(tmp_path / "turned.mp4")
    assert isinstance(device, DeviceFrames)
    np.testing.assert_array_equal(device.index, host.index)
    np.testing.assert_array_equal(device.pts_s, host.pts_s)
    assert device.size == host.size == ((240, 160) if turn[0] == 0 else (160, 240))
    np.testing.assert_array_equal(device.rgb, host.rgb)
    assert device.nbytes == host.nbytes // 2
    some = np.arange(len(host)) % 3 > 0
    np.testing.assert_array_equal(device.select(some).rgb, host.select(some).rgb)


def test_pictures_that_no_kernel_covers_are_rgb_on_the_host(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for k in range(5):
            picture = np.full((48, 64, 3), 40 * k, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    (chunk,) = VideoReader(path, frame_buffer=lambda: DeviceFrameBuffer("cpu"))
    assert isinstance(chunk, Frames)
    assert len(chunk) == 5
    (covered,) = chunks_of(write_video(tmp_path / "b.mp4", 5))
    frame_buffer = DeviceFrameBuffer("cpu")
    one, other = (next(iter(av.open(str(each)).decode(video=0))) for each in (path, tmp_path / "b.mp4"))
    assert frame_buffer.append(one)
    assert not frame_buffer.append(other)  # another kind of frame begins another chunk
    assert isinstance(frame_buffer.flush(np.zeros(1), np.zeros(1, np.int64)), Frames)
    assert frame_buffer.append(other)
    assert not frame_buffer.append(one)
    assert isinstance(frame_buffer.flush(np.zeros(1), np.zeros(1, np.int64)), DeviceFrames)
    assert isinstance(covered, DeviceFrames)


def test_a_batch_of_arrays_and_tensors_is_one_tensor() -> None:
    numbers = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3)
    parts = [BatchSlice(None, 0, numbers), BatchSlice(None, 2, torch.from_numpy(numbers + 10))]
    batch = joined(parts, 5)
    assert isinstance(batch, torch.Tensor)
    assert batch.tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12], [13, 14, 15], [0, 0, 0]]


@pytest.mark.parametrize("encoder", [Hog(), Timm(**TINY)])
def test_rows_are_the_same_from_arrays_and_from_tensors(encoder: Any) -> None:
    encode, random = encoder.load("cpu"), np.random.default_rng(0)
    crops = random.integers(0, 256, (3, encoder.reads.size_px, encoder.reads.size_px, 3), dtype=np.uint8)
    planar = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()  # as the kernels leave them
    rows = encode.start(planar.permute(0, 2, 3, 1))
    assert isinstance(rows, torch.Tensor)
    np.testing.assert_allclose(rows.numpy(), encode(crops), rtol=1e-5, atol=1e-6)
    assert encode(crops[:0]).shape == (0, *rows.shape[1:])


def test_crops_that_fail_give_their_bytes_back(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*things: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    (frames,) = chunks_of(recording.video)
    table = finder()(frames.rgb)
    kept = KeptCrops([CropTemplate(112)], Budget(0), on_device := Budget(1 << 30))
    monkeypatch.setattr(DeviceFrames, "crop", fail)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        kept.add_faces(frames, table)
    kept.drop()
    assert on_device.acquired_bytes == 0


def test_an_encoder_of_arrays_alone_is_given_arrays(tmp_path: Path, recording: Recording) -> None:
    @dataclass(frozen=True)
    class Means:
        modality: ClassVar[str] = "visual"
        version: ClassVar[int] = 1
        reads: ClassVar[CropTemplate] = CropTemplate(64)

        def identify_weights(self) -> None:
            return None

        def load(self, device: str):
            def encode(crops: np.ndarray) -> np.ndarray:
                assert isinstance(crops, np.ndarray)
                assert crops.flags.c_contiguous
                return crops.mean(axis=(1, 2), dtype=np.float32)

            return encode

    parts = replace(build_feature_set(CONFIG), encoders=((EncoderConfig("means", "test", "visual"), Means()),))
    _, host = run(create_store(tmp_path / "host", "zarr"), recording, parts, "")
    _, device = run(create_store(tmp_path / "device", "zarr"), recording, parts, "cpu")
    np.testing.assert_allclose(device["means"], host["means"], atol=0.25)  # float16 in the store


def test_cuda_takes_the_device_path_and_the_processor_does_not() -> None:
    assert isinstance(Device("cpu").frame_buffer(), HostFrameBuffer)
    assert Device("cuda:1").frames_on == "cuda:1"
    assert isinstance(Device("cpu", "cpu").frame_buffer(), DeviceFrameBuffer)


def test_where_memory_runs_out_batches_are_halved_and_rows_stay(
    tmp_path: Path, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    @dataclass(frozen=True)
    class Greedy:
        most: int
        modality: ClassVar[str] = "visual"
        version: ClassVar[int] = 1
        reads: ClassVar[CropTemplate] = CropTemplate(112)

        def identify_weights(self) -> None:
            return None

        def load(self, device: str) -> TensorEncode:
            def forward(crops: torch.Tensor) -> torch.Tensor:
                tried.append(len(crops))
                if len(crops) > self.most:
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                return crops.float().mean(dim=(1, 2))

            return TensorEncode(device, forward)

    rows = {}
    for most in (32, 16):
        parts = replace(
            build_feature_set(CONFIG), encoders=((EncoderConfig("greedy", "test", "visual"), Greedy(most)),)
        )
        caplog.clear()
        with caplog.at_level(logging.WARNING, "aupipe"):
            _, read = run(create_store(tmp_path / f"{most}", "zarr"), recording, parts, "cpu", batch=32)
        rows[most] = read["greedy"]
        said = [record.message for record in caplog.records]
        assert said == ([] if most == 32 else ["greedy: out of memory; 16 at a time from now on"])
    assert 32 in tried
    np.testing.assert_array_equal(rows[16], rows[32])
    assert not np.isnan(rows[32]).any()


def test_kept_crops_of_a_device_have_a_budget_of_their_own(recording: Recording) -> None:
    (frames,) = chunks_of(recording.video)
    host = next(iter(VideoReader(recording.video)))
    table: FaceTable = finder()(host.rgb)
    budget, on_device = Budget(1 << 30), Budget(1 << 30)
    kept = KeptCrops([CropTemplate(112)], budget, on_device)
    kept.add_faces(frames, table)
    assert (budget.acquired_bytes, on_device.acquired_bytes) == (0, 32 * 3 * 112**2)
    kept.add_faces(Frames(host.rgb, host.pts_s + 2, host.index + 32), table)
    assert (budget.acquired_bytes, on_device.acquired_bytes) == (32 * 3 * 112**2, 32 * 3 * 112**2)
    kinds = [type(crops) for ((_, crops),) in kept.chosen([(np.zeros(64, np.int64), CropTemplate(112))])]
    assert kinds == [torch.Tensor, np.ndarray]
    assert (budget.acquired_bytes, on_device.acquired_bytes) == (0, 0)
