"""Pictures stand upright, unmirrored and in square pixels before a face is looked for, whatever the file."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.engine.results import JobResult
from aupipe.extract.gpu.frames import DeviceFrameBuffer, DeviceFrames
from aupipe.extract.media import display as display_module
from aupipe.extract.media import video as video_module
from aupipe.extract.media.display import AS_DECODED, display_of
from aupipe.extract.media.frame_buffer import HostFrameBuffer
from aupipe.extract.media.images import read_image
from aupipe.extract.media.video import VideoReader
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store, create_store
from aupipe.types import FaceTrack, Recording
from tests.conftest import write_video
from tests.extract.conftest import Lit
from tests.extract.running import run_jobs
from tests.extract.test_clock import number_of
from tests.made import talking

# Where a step to the right and a step down lead, as a display matrix states it (a, b, c, d), by the number of Exif.
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
# What Exif 2.3 says a viewer must do, in numpy's words.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda picture: picture,
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    5: lambda picture: np.fliplr(np.rot90(picture, -1)),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: np.fliplr(np.rot90(picture, 1)),
    8: lambda picture: np.rot90(picture, 1),
}


def write_shown(
    path: Path, pictures: np.ndarray, matrix: Sequence[int] = (1, 0, 0, 1), aspect: Fraction = Fraction(1)
) -> Path:
    """Pictures (T, H, W, 3) in H.264, with a display matrix and the shape of their pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"threads": "1", "crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        a, b, c, d = (65536 * value for value in matrix)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def read(path: Path, device: bool = False) -> np.ndarray:
    """(T, H, W, 3), through the host or through the planes of a device."""
    chunks = list(VideoReader(path, frame_buffer=(lambda: DeviceFrameBuffer("cpu")) if device else HostFrameBuffer))
    assert all(isinstance(chunk, DeviceFrames) for chunk in chunks) == device
    return np.concatenate([chunk.rgb for chunk in chunks])


def turned_away(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A picture as a camera stores it that is held so: what `UPRIGHT` brings back."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return UPRIGHT[back](picture)


@pytest.mark.parametrize("orientation", MATRICES)
@pytest.mark.parametrize("device", [False, True])
def test_each_of_the_eight_orientations_gives_the_upright_picture(
    tmp_path: Path, orientation: int, device: bool
) -> None:
    upright = talking(frames=3)[0][:, :200, :240]
    stored = np.stack([turned_away(picture, orientation) for picture in upright])
    np.testing.assert_array_equal(UPRIGHT[orientation](stored[0]), upright[0])
    path = write_shown(tmp_path / "a.mp4", stored, MATRICES[orientation])
    found = read(path, device)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 6  # of the encoder; other orientations are off by 34
    reader = VideoReader(path)
    reader.clock()
    assert reader.report.mirrored == (orientation in (2, 4, 5, 7))
    assert reader.report.to_json().get("mirrored", False) == reader.report.mirrored


@pytest.mark.parametrize("orientation", MATRICES)
def test_planes_of_odd_widths_are_turned_on_the_host(tmp_path: Path, orientation: int) -> None:
    """A chroma sample of the last column stands for one pixel: turned, it would stand for others."""
    pictures = talking(frames=2)[0][:, :200, :240]
    source = write_shown(tmp_path / "a.mp4", pictures, MATRICES[orientation])
    frame = next(av.open(str(source)).decode(video=0))
    odd = frame.reformat(width=239, height=200)
    buffers = HostFrameBuffer(), DeviceFrameBuffer("cpu")
    display = display_of(frame)
    for buffer in buffers:
        assert buffer.append(odd, display)
    host, device = (buffer.flush(np.zeros(1), np.zeros(1, np.int64)) for buffer in buffers)
    assert isinstance(device, DeviceFrames) == (orientation == 1)
    np.testing.assert_array_equal(device.rgb, host.rgb)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", MATRICES)
def test_each_of_the_eight_orientations_of_an_image_file_is_read_upright(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    upright = talking(frames=1)[0][0][:200, :240]
    exif = Image.Exif()
    exif[0x0112] = orientation
    written = io.BytesIO()
    Image.fromarray(turned_away(upright, orientation)).save(written, kind, exif=exif, quality=95)
    file = tmp_path / f"00001.{kind.lower()}"
    file.write_bytes(written.getvalue())
    found = read_image(file)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 6


def test_a_matrix_beside_data_that_has_no_name_still_turns_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newer(frame: av.VideoFrame) -> Any:
        raise ValueError("27 is not a valid Type")

    for orientation in (1, 3, 6, 8):
        path = write_shown(tmp_path / f"{orientation}.mp4", talking(frames=1)[0], MATRICES[orientation])
        frame = next(av.open(str(path)).decode(video=0))
        expected = display_of(frame)
        with monkeypatch.context() as patched:
            patched.setattr(display_module, "SideDataContainer", newer)
            assert display_of(frame) == expected


# Faces in them --------------------------------------------------------------------------------------------------------

CONFIG = Config(
    encoders=(EncoderConfig("hog", "hog", "visual"), EncoderConfig("geometry", "geometry", "visual")),
    faces=FacesConfig(detector="yunet"),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "store", "zarr")


def extract(store: Store, config: Config, *paths: Path) -> list[JobResult]:
    """What came of one job for each video."""
    features = build_feature_set(config)
    plan = make_plan([Recording(path.name, video=path) for path in paths], features, store)
    results = run_jobs(plan.jobs, store, features)
    store.refresh()
    return results


def disc(lit: Lit) -> np.ndarray:
    """(6, H, W, 3) of a disc that the made network takes for a face, left of the middle."""
    pictures = np.concatenate([chunk.rgb for chunk in VideoReader(lit["one.mpg"])])[:6]
    return pictures


def test_boxes_and_landmarks_are_those_of_the_upright_picture(
    tmp_path: Path, lit: Lit, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lit.use(monkeypatch)
    upright = disc(lit)
    tracks = {}
    for orientation in (1, 2, 5, 6):
        stored = np.stack([turned_away(picture, orientation) for picture in upright])
        path = write_shown(tmp_path / f"{orientation}.mp4", stored, MATRICES[orientation])
        (outcome,) = extract(store, CONFIG, path)
        assert not outcome.failed
        faces = next(record for record in outcome.published if record.feature.startswith("faces"))
        assert dict(faces.media.get("video", {})).get("mirrored", False) == (orientation in (2, 5))
        tracks[orientation] = FaceTrack.from_rows(store.read(path.name, faces.feature))
        assert tracks[orientation].valid.all()
    for track in tracks.values():
        np.testing.assert_allclose(track.box, tracks[1].box, atol=1.0)
        np.testing.assert_allclose(track.landmarks, tracks[1].landmarks, atol=1.0)


# Pixels that are not square -------------------------------------------------------------------------------------------


def squeezed(pictures: np.ndarray, aspect: Fraction) -> np.ndarray:
    """Pictures as a camera with such pixels stores them, of even sides."""
    height, width = pictures.shape[1:3]
    size = (2 * round(width / aspect / 2), height) if aspect > 1 else (width, 2 * round(height * aspect / 2))
    return np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(16, 15), Fraction(10, 11), Fraction(1, 2)])
@pytest.mark.parametrize("orientation", [1, 5, 6])
def test_pictures_have_square_pixels(tmp_path: Path, aspect: Fraction, orientation: int) -> None:
    upright = talking(frames=3)[0][:, :220, :240]
    stored = np.stack([turned_away(picture, orientation) for picture in upright])
    path = write_shown(tmp_path / "a.mp4", squeezed(stored, aspect), MATRICES[orientation], aspect)
    reader = VideoReader(path)
    found = np.concatenate([chunk.rgb for chunk in reader])
    assert np.abs(np.subtract(found.shape, upright.shape)).max() <= 2
    found = found[:, : upright.shape[1], : upright.shape[2]]
    assert np.abs(found.astype(int) - upright[:, : found.shape[1], : found.shape[2]]).mean() < 6
    assert reader.report.pixel_aspect == f"{aspect.numerator}:{aspect.denominator}"
    height, width = found.shape[1:3]
    assert reader.report.shown == f"{width}x{height}"
    assert reader.report.notes == [
        f"pixels of {reader.report.pixel_aspect}: pictures stretched to {width}x{height}, boxes are in those"
    ]
    assert not reader.report.is_damaged
    device = np.concatenate([chunk.rgb for chunk in VideoReader(path, frame_buffer=lambda: DeviceFrameBuffer("cpu"))])
    np.testing.assert_array_equal(device, np.concatenate([chunk.rgb for chunk in reader]))


@pytest.mark.parametrize("aspect", [Fraction(1280, 1281), Fraction(136, 135), Fraction(1, 100), Fraction(0)])
def test_pixels_that_are_almost_square_and_shapes_nobody_has_are_left_as_they_are(
    tmp_path: Path, aspect: Fraction
) -> None:
    pictures = talking(frames=2)[0]
    plain, stated = (write_shown(tmp_path / f"{i}.mp4", pictures, aspect=each) for i, each in enumerate((1, aspect)))  # type: ignore[arg-type]
    reader = VideoReader(stated)
    np.testing.assert_array_equal(np.concatenate([chunk.rgb for chunk in reader]), read(plain))
    assert reader.report.pixel_aspect == ""


def test_boxes_are_in_square_pixels_and_the_record_says_so(
    tmp_path: Path, lit: Lit, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lit.use(monkeypatch)
    square, aspect = disc(lit), Fraction(4, 3)
    rows, records = {}, {}
    for name, pictures, pixels in (("square", square, Fraction(1)), ("hdv", squeezed(square, aspect), aspect)):
        path = write_shown(tmp_path / f"{name}.mp4", pictures, aspect=pixels)
        (outcome,) = extract(store, CONFIG, path)
        assert not outcome.failed
        for record in outcome.published:
            rows[name, record.feature.split("@")[0]] = store.read(path.name, record.feature)
            records[name, record.feature.split("@")[0]] = record
    np.testing.assert_allclose(rows["hdv", "faces"][:, :14], rows["square", "faces"][:, :14], atol=2.0)
    np.testing.assert_array_equal(rows["hdv", "detections"][:, 0, 15:], rows["square", "detections"][:, 0, 15:])
    stretched = {"pixel_aspect": "4:3", "shown": "{1}x{0}".format(*square.shape[1:3])}
    for name in ("detections", "faces", "hog", "geometry"):
        assert stretched.items() <= dict(records["hdv", name].media["video"]).items()
        assert "pixel_aspect" not in dict(records["square", name].media.get("video", {}))


def test_faces_that_were_found_in_other_pictures_are_not_cut_from_these(
    tmp_path: Path, lit: Lit, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of before: its boxes lie in pictures that were not stretched, or not mirrored."""
    lit.use(monkeypatch)
    hdv = write_shown(tmp_path / "hdv.mp4", squeezed(disc(lit), Fraction(4, 3)), aspect=Fraction(4, 3))
    mirrored = write_shown(tmp_path / "mirrored.mp4", disc(lit), MATRICES[2])
    with monkeypatch.context() as before:
        before.setattr(video_module, "display_of", lambda frame, aspect: AS_DECODED)
        before_results = extract(store, replace(CONFIG, encoders=CONFIG.encoders[1:]), hdv, mirrored)
        assert not any(result.failed for result in before_results)
    results = extract(store, replace(CONFIG, encoders=CONFIG.encoders[:1]), hdv, mirrored)
    assert [len(result.published) for result in results] == [0, 0]
    for (failed,) in (result.failed for result in results):
        assert "faces were found by an earlier version in pictures" in failed.reason
        assert "aupipe extract --force" in failed.reason


# What public bug reports describe -------------------------------------------------------------------------------------


@pytest.mark.assets
@pytest.mark.parametrize("name", ["matrix_hflip.mp4", "matrix_transpose_apple_mirrored_portrait.mp4"])
@pytest.mark.parametrize("device", [False, True])
def test_a_reported_mirrored_clip_is_the_upright_original(assets: Path, name: str, device: bool) -> None:
    pictures = read(assets / "reported" / name, device)
    assert pictures.shape[1:3] == (256, 320)
    assert [number_of(picture) for picture in pictures] == list(range(50))


@pytest.mark.assets
def test_a_reported_clip_of_hdv_pixels_has_the_features_of_its_square_twin(
    assets: Path, asset_weights: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(asset_weights))
    rows: dict[str, dict[str, np.ndarray]] = {}
    for name in ("anamorphic_hdv_480x360_sar43.mp4", "anamorphic_square_640x360.mp4"):
        (outcome,) = extract(store, CONFIG, assets / "reported" / name)
        assert not outcome.failed
        rows[name] = {
            record.feature.split("@")[0]: store.read(name, record.feature).astype(float) for record in outcome.published
        }
    hdv, square = rows.values()
    assert np.isfinite(square["faces"]).all()
    boxes = np.abs(hdv["faces"][:, :4] - square["faces"][:, :4])
    assert np.median(boxes) < 0.02 * np.median(square["faces"][:, 2] - square["faces"][:, 0])
    for name in ("geometry", "hog"):  # in deviations within the clip; those of 4:3 pixels left as they are: 2 to 5
        moved = np.abs(hdv[name] - square[name]).mean() / square[name].std(axis=0).mean()
        assert moved < 1.0


def test_a_picture_is_freed_when_nobody_uses_it_and_not_when_garbage_is_collected(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 40)
    list(VideoReader(path))
    gc.collect()
    gc.disable()
    try:
        for _ in VideoReader(path):
            pass
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, av.VideoFrame)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
