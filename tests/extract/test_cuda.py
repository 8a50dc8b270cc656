"""What only a CUDA device shows: ``pytest -m gpu`` where there is one. The processor's answers are the measure."""

from __future__ import annotations

import logging
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.encoders import ENCODERS, AudioInput, build_encoder
from aupipe.extract.encoders.image_base import TensorEncode
from aupipe.extract.encoders.torch_compile import compiled
from aupipe.extract.encoders.visual.hog import Hog
from aupipe.extract.encoders.visual.timm import Timm
from aupipe.extract.engine.batch_size import remembered
from aupipe.extract.engine.crops import face_crops
from aupipe.extract.engine.options import ThreadCounts
from aupipe.extract.engine.results import JobResult
from aupipe.extract.faces.detection import FaceDetector
from aupipe.extract.faces.detectors.yunet import YuNet
from aupipe.extract.faces.device_detection import DeviceDetector
from aupipe.extract.gpu import cuda_graphs, kernels
from aupipe.extract.gpu.frames import DeviceFrameBuffer, DeviceFrames
from aupipe.extract.gpu.numerics import compute_as_written
from aupipe.extract.gpu.nvdec import nvdec
from aupipe.extract.imaging.templates import ArcFaceCropTemplate, CropTemplate
from aupipe.extract.media.transcript import Transcript
from aupipe.extract.media.video import VideoReader
from aupipe.extract.meter import Meter
from aupipe.extract.planning.features import FeatureSet, build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store, create_store
from aupipe.types import Recording, Waveform
from tests.extract.conftest import CODED, FRAMES, Lit
from tests.extract.running import run_jobs
from tests.extract.test_every_encoder import FILES, LARGE, SMALL
from tests.extract.test_text import words

pytestmark = [pytest.mark.gpu]

CUDA = "cuda:0"
TINY = {"model": "test_resnet.r160_in1k", "weights": "random", "size_px": 96}
CONFIG = Config(
    faces=FacesConfig(detector="yunet", detect_px=320),
    encoders=(
        EncoderConfig("hog", "hog", "visual"),
        EncoderConfig("geometry", "geometry", "visual"),
        EncoderConfig("tiny", "timm", "visual", TINY),
        EncoderConfig("half", "timm", "visual", TINY | {"precision": "float16"}),
    ),
)
HALF = 2**-11  # of a float16's value, the most it is rounded by


@pytest.fixture(autouse=True)
def _weights(lit_yunet: Lit) -> None:
    """The detector is the made one."""
    compute_as_written()


@pytest.fixture
def recordings(lit: Lit) -> list[Recording]:
    return [Recording(name, video=lit[name]) for name in FRAMES]


def run(path: Path, recordings: list[Recording], parts: FeatureSet, **how: Any) -> tuple[Store, list[JobResult]]:
    store = create_store(path, "zarr")
    outcomes = run_jobs(make_plan(recordings, parts, store).jobs, store, parts, **how)
    for outcome in outcomes:
        assert not outcome.failed, [record.reason for record in outcome.failed]
    return store, outcomes


def rows_of(store: Store, outcomes: list[JobResult]) -> dict[tuple[str, str], np.ndarray]:
    """(recording, feature's name) -> its rows."""
    records = [record for outcome in outcomes for record in outcome.published]
    return {
        (record.recording, record.feature.partition("@")[0]): store.read(record.recording, record.feature)
        for record in records
    }


def far(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative L2 distance where both have a row; that they have the same rows is asserted."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    distance = np.linalg.norm(np.nan_to_num(ours - theirs)) / max(np.linalg.norm(np.nan_to_num(theirs)), 1e-9)
    return float(distance)


def chunk_on(device: str, path: Path) -> DeviceFrames:
    chunk = next(iter(VideoReader(path, frame_buffer=lambda: DeviceFrameBuffer(device))))
    assert isinstance(chunk, DeviceFrames)
    return chunk


def finder(device: str) -> FaceDetector:
    detector = YuNet()
    return FaceDetector(detector.load(device), 320, 8, detector.min_score, DeviceDetector(detector.load_tensor(device)))


# Frames and faces ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", CODED)
def test_colours_are_swscales_to_the_bit_and_small_pictures_too(coded: Path, clip: str) -> None:
    host, there = (chunk_on(device, coded / clip) for device in ("cpu", CUDA))
    assert there.planes[0].is_cuda
    np.testing.assert_array_equal(there.rgb, host.rgb)
    np.testing.assert_array_equal(there.rgb, next(iter(VideoReader(coded / clip))).rgb)
    for factor in (2, 3):
        np.testing.assert_array_equal(there.shrunk(factor).cpu().numpy(), host.shrunk(factor).numpy())


@pytest.mark.parametrize("template", [CropTemplate(112), ArcFaceCropTemplate(64)])
def test_crops_are_the_hosts_to_a_grey_level(lit: Lit, template: CropTemplate) -> None:
    path = lit["one.mpg"]
    host = next(iter(VideoReader(path)))
    faces = finder("cpu")(host.rgb[:6])
    where = faces.frame, faces.rows[:, :4], faces.rows[:, 4:14].reshape(-1, 5, 2)
    crops = face_crops(chunk_on(CUDA, path), *where, template)
    assert crops.is_cuda
    difference = np.abs(crops.cpu().numpy().astype(int) - face_crops(host, *where, template))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_the_detector_finds_the_same_faces(lit: Lit) -> None:
    for clip in FRAMES:
        path = lit[clip]
        ((_, ours),) = finder(CUDA).over([chunk_on(CUDA, path)], Meter())
        theirs = finder("cpu")(next(iter(VideoReader(path))).rgb)
        assert theirs.counts.all()
        np.testing.assert_array_equal(ours.counts, theirs.counts)
        np.testing.assert_allclose(ours.rows[:, :14], theirs.rows[:, :14], atol=5e-3)  # px


def test_kernels_and_graphs_are_what_runs_here(tmp_path: Path, recordings: list[Recording]) -> None:
    assert kernels.usable(torch.device(CUDA))
    run(tmp_path / "features", recordings[:1], build_feature_set(CONFIG), device=CUDA)
    assert cuda_graphs._GRAPHS.recorded
    assert not cuda_graphs._GRAPHS.failed


# The whole way --------------------------------------------------------------------------------------------------------


def test_features_are_those_of_the_processor(tmp_path: Path, recordings: list[Recording]) -> None:
    parts = build_feature_set(CONFIG)
    ours = rows_of(*run(tmp_path / "gpu", recordings, parts, device=CUDA))
    theirs = rows_of(*run(tmp_path / "cpu", recordings, parts, device="cpu"))
    assert ours.keys() == theirs.keys()
    for (clip, name), rows in ours.items():
        if name in ("clock",):
            np.testing.assert_array_equal(rows, theirs[clip, name])
        elif name in ("detections", "faces"):
            np.testing.assert_allclose(rows, theirs[clip, name], atol=5e-3, err_msg=f"{clip} {name}")
        else:  # crops may differ by a grey level here and there
            assert far(rows, theirs[clip, name]) < 2e-3, (clip, name)


@pytest.mark.parametrize("threads", [ThreadCounts(3, 2), ThreadCounts(1, 1)])
def test_items_are_the_same_bytes_whatever_the_threads_and_the_neighbours(
    tmp_path: Path, recordings: list[Recording], threads: ThreadCounts
) -> None:
    parts = build_feature_set(CONFIG)
    alone: dict[tuple[str, str], int] = {}
    for recording in recordings:
        _, outcomes = run(
            tmp_path / recording.id, [recording], parts, device=CUDA, batch=64, threads=ThreadCounts(1, 1)
        )
        alone |= {(r.recording, r.feature): r.crc32c for outcome in outcomes for r in outcome.published}
    _, outcomes = run(tmp_path / "together", recordings, parts, device=CUDA, batch=64, threads=threads)
    together = {(r.recording, r.feature): r.crc32c for outcome in outcomes for r in outcome.published}
    assert together == alone


def test_another_batch_size_moves_rows_by_less_than_their_storage_rounds(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    parts = build_feature_set(replace(CONFIG, encoders=CONFIG.encoders[:3]))
    ours, theirs = (
        rows_of(*run(tmp_path / str(batch), recordings[:1], parts, device=CUDA, batch=batch)) for batch in (7, 256)
    )
    for key, rows in ours.items():
        assert far(rows, theirs[key]) < 2 * HALF, key


def test_batch_sizes_are_probed_and_remembered(tmp_path: Path, recordings: list[Recording], caplog: Any) -> None:
    parts = build_feature_set(replace(CONFIG, encoders=CONFIG.encoders[2:3]))
    with caplog.at_level(logging.INFO, "aupipe"):
        _, outcomes = run(tmp_path / "features", recordings[:1], parts, device=CUDA)
    assert "tiny: " in caplog.text
    spec = next(item.spec for item in outcomes[0].job.items if item.spec.name == "tiny")
    key = f"{spec.key} {torch.cuda.get_device_name(CUDA)} float32"
    assert remembered(key) in (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Greedy:
    """Asks for far more memory than there is when it gets more than 16 crops."""

    modality: ClassVar[str] = "visual"
    version: ClassVar[int] = 1
    reads: ClassVar[CropTemplate] = CropTemplate(112)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> TensorEncode:
        def forward(crops: torch.Tensor) -> torch.Tensor:
            if len(crops) > 16:
                torch.empty(1 << 42, dtype=torch.uint8, device=crops.device)
            return crops.float().mean(dim=(1, 2))

        return TensorEncode(device, forward)


def test_where_memory_runs_out_batches_are_halved_and_no_row_is_lost(
    tmp_path: Path, recordings: list[Recording], caplog: pytest.LogCaptureFixture
) -> None:
    parts = replace(build_feature_set(CONFIG), encoders=((EncoderConfig("greedy", "test", "visual"), Greedy()),))
    rows = {}
    for device, batch in ((CUDA, 64), ("cpu", 16)):
        with caplog.at_level(logging.WARNING, "aupipe"):
            rows[device] = rows_of(*run(tmp_path / device, recordings[:1], parts, device=device, batch=batch))
    assert "greedy: out of memory; 16 at a time from now on" in [record.message for record in caplog.records]
    (key,) = (key for key in rows["cpu"] if key[1] == "greedy")
    np.testing.assert_allclose(rows[CUDA][key], rows["cpu"][key], atol=0.25)  # float16 in the store


# Decoding on the GPU --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [clip for clip, exact in CODED.items() if exact])
def test_the_circuit_gives_the_processors_pictures(coded: Path, clip: str, caplog: pytest.LogCaptureFixture) -> None:
    path = coded / clip
    with caplog.at_level(logging.INFO, "aupipe"):
        ours = list(VideoReader(path, frame_buffer=lambda: DeviceFrameBuffer(CUDA, nvdec(CUDA))))
    assert "decoded by the processor" not in caplog.text
    for one, other in zip(ours, VideoReader(path), strict=True):
        np.testing.assert_array_equal(one.pts_s, other.pts_s)
        np.testing.assert_array_equal(one.rgb, other.rgb)


def test_features_of_videos_decoded_on_the_gpu_are_the_same_bytes(tmp_path: Path, coded: Path) -> None:
    clips = [clip for clip, exact in CODED.items() if exact][:3] * 2
    recordings = []
    for number, clip in enumerate(clips):
        shutil.copy(coded / clip, path := tmp_path / f"{number}{Path(clip).suffix}")
        recordings.append(Recording(path.name, video=path))
    parts = build_feature_set(CONFIG)
    sums = []
    for on_gpu in (True, False):
        _, outcomes = run(tmp_path / f"{on_gpu}", recordings, parts, device=CUDA, nvdec=on_gpu, batch=64)
        sums.append({(r.recording, r.feature): r.crc32c for outcome in outcomes for r in outcome.published})
    assert sums[0] == sums[1]


# Encoders -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    "make", [Hog, lambda **how: Timm(model="test_vit.r160_in1k", weights="random", size_px=160, **how)]
)
def test_a_compiled_encoder_gives_the_same_rows(make: Callable[..., Any], precision: str) -> None:
    encoder = make() if make is Hog else make(precision=precision)
    size = encoder.reads.size_px
    crops = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    plain = encoder.load(CUDA)
    made = compiled(plain, size, len(crops))
    assert made.forward is not plain.forward
    assert far(made(crops), plain(crops)) < (1e-4 if precision == "float32" else 1e-2)


def inputs_of(encoder: Any) -> Any:
    """Something of what an encoder reads, small and the same every time."""
    random = np.random.default_rng(0)
    if isinstance(encoder.reads, AudioInput):
        time = np.arange(3 * encoder.reads.sample_rate) / encoder.reads.sample_rate
        noise = random.standard_normal(len(time)) * (1 + np.sin(20 * time)) / 10
        return Waveform(noise.astype(np.float32), encoder.reads.sample_rate)
    if isinstance(encoder.reads, CropTemplate):
        size = encoder.reads.size_px
        coarse = random.integers(0, 256, (3, 8, 8, 3)).astype(np.float64)
        smooth = np.repeat(np.repeat(coarse, -(-size // 8), axis=1), -(-size // 8), axis=2)[:, :size, :size]
        return np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    if encoder.reads == "landmarks":
        return random.uniform(0, 200, (3, 5, 2)).astype(np.float32)
    return Transcript(words("set", "white", "zebra"))


@pytest.mark.parametrize("kind", [*SMALL, *FILES, *LARGE])
def test_every_encoder_gives_the_processors_rows(kind: str) -> None:
    case = (SMALL | FILES | LARGE)[kind]
    params = tomllib.loads(case.table)
    modality = ENCODERS.get(kind).modality
    needs_weights = "weights" in ENCODERS.get(kind).__dataclass_fields__
    if kind not in FILES and needs_weights:
        params["weights"] = "random"
    encoder = build_encoder(EncoderConfig(kind, kind, modality, params))
    inputs = inputs_of(encoder)
    ours, theirs = (encoder.load(device)(inputs) for device in (CUDA, "cpu"))
    if modality != "visual":
        np.testing.assert_array_equal(ours.times_s, theirs.times_s)
        ours, theirs = ours.data, theirs.data
    assert ours.dtype == np.float32
    assert far(ours, theirs) < 1e-4, kind
