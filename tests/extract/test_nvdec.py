"""Decoding by a GPU's circuit. There is no GPU here: frames are the processor's, interleaved as NVDEC leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from aupipe.errors import RecordingError, UsageError
from aupipe.extract.gpu import nvdec as module
from aupipe.extract.gpu.frames import DeviceFrameBuffer, DeviceFrames
from aupipe.extract.gpu.nvdec import Nvdec, nvdec
from aupipe.extract.media.video import VideoReader
from tests.conftest import write_video
from tests.extract.conftest import CODED
from tests.extract.test_clock import write_avi
from tests.extract.test_display import MATRICES, write_shown
from tests.made import talking

FIRST = 40


class Interleaved(Nvdec):
    """The circuit's frames, made of the processor's."""

    TO_NV12 = VideoReformatter()
    asked = 0

    def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        type(self).asked += 1
        kept = {"src_color_range": frame.color_range, "dst_color_range": frame.color_range}
        nv12 = self.TO_NV12.reformat(frame, format="nv12", threads=1, **kept)
        assert nv12.format.name == "nv12"
        return super().planar(nv12)


def circuit(kind: type[Nvdec] = Interleaved) -> Nvdec:
    return kind(None)  # type: ignore[arg-type]  # opened with None a file is decoded by the processor


def chunks(path: Path, hardware: Nvdec | None) -> list[DeviceFrames]:
    reader = VideoReader(path, frame_buffer=lambda: DeviceFrameBuffer("cpu", hardware))
    reader.wanted = lambda row: row < FIRST
    return list(reader)  # type: ignore[arg-type]


@pytest.mark.parametrize("clip", [clip for clip, exact in CODED.items() if exact])
def test_frames_of_the_circuit_are_the_processors_pixel_for_pixel(coded: Path, clip: str) -> None:
    path = coded / clip
    Interleaved.asked = 0
    ours, theirs = (chunks(path, hardware) for hardware in (circuit(), None))
    assert sum(map(len, theirs)) == FIRST <= Interleaved.asked  # it was not left to the processor
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one, DeviceFrames)
        assert one.colour == other.colour
        np.testing.assert_array_equal(one.pts_s, other.pts_s)
        np.testing.assert_array_equal(one.rgb, other.rgb)


def test_mirrored_frames_and_decoding_times_come_from_the_circuit_as_from_the_processor(tmp_path: Path) -> None:
    mirrored = write_shown(tmp_path / "mirrored.mp4", talking(frames=12)[0], MATRICES[5])
    times = write_avi(tmp_path / "a.avi", range(12))
    for path in (mirrored, times):
        Interleaved.asked = 0
        readers = [
            VideoReader(path, frame_buffer=lambda hardware=hardware: DeviceFrameBuffer("cpu", hardware))  # type: ignore[misc]
            for hardware in (circuit(), None)
        ]
        (ours,), (theirs,) = (list(reader) for reader in readers)
        assert Interleaved.asked >= 12
        np.testing.assert_array_equal(ours.rgb, theirs.rgb)
        np.testing.assert_array_equal(readers[0].ordered_clock(), np.arange(12) / 25)
        np.testing.assert_array_equal(readers[1].ordered_clock(), np.arange(12) / 25)
        assert readers[0].report.mirrored == (path == mirrored)


@pytest.mark.parametrize(("clip", "exact"), CODED.items())
def test_only_codecs_that_define_every_sample_are_given_to_the_circuit(coded: Path, clip: str, exact: bool) -> None:
    with av.open(str(coded / clip)) as container:
        assert circuit().decodes(container.streams.video[0]) == exact


@pytest.mark.parametrize(
    ("pixel_format", "exact"), [("yuv420p", True), ("yuvj420p", True), ("yuv444p", False), ("yuv420p10le", False)]
)
def test_only_pictures_whose_colours_the_device_converts_are_given_to_the_circuit(
    tmp_path: Path, pixel_format: str, exact: bool
) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        picture = np.full((48, 64, 3), 90, dtype=np.uint8)
        container.mux([*stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")), *stream.encode(None)])
    with av.open(str(path)) as container:
        assert circuit().decodes(container.streams.video[0]) == exact


def test_damage_is_refused_for_decoders_go_on_after_it_in_their_own_ways(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", 60)
    blob = bytearray(whole.read_bytes())
    middle = blob.find(b"mdat") + 1200
    blob[middle : middle + 400] = bytes(400)
    broken = tmp_path / "b.mp4"
    broken.write_bytes(blob)
    reader = VideoReader(broken)
    assert sum(map(len, reader)) > 0
    assert "packets not decodable" in reader.report.summary
    with pytest.raises(RecordingError, match=r"b\.mp4: \d+ damaged packets: decode it without --nvdec"):
        chunks(broken, circuit())


@pytest.mark.parametrize("wrong", ["picture", "time", "nothing comes"])
def test_a_file_whose_first_picture_differs_is_decoded_by_the_processor_and_said(
    tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="aupipe.extract.media.video")

    class Off(Interleaved):
        asked = 0

        def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
            frame = super().planar(frame)
            if wrong == "nothing comes":
                raise RecordingError("no memory left on the GPU")
            if wrong == "picture":
                np.frombuffer(frame.planes[2], np.uint8)[0] ^= 1
            else:
                frame.pts += 1
            return frame

    path = write_video(tmp_path / "a.mp4", 20)
    (ours,), (theirs,) = (chunks(path, hardware) for hardware in (circuit(Off), None))
    assert Off.asked == 1
    assert "a.mp4: NVDEC" in caplog.text
    assert "decoded by the processor" in caplog.text
    np.testing.assert_array_equal(ours.rgb, theirs.rgb)
    np.testing.assert_array_equal(ours.pts_s, theirs.pts_s)


def test_pictures_that_turn_into_another_format_are_refused(tmp_path: Path) -> None:
    class Ten(Interleaved):
        def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
            if not frame.pts:
                return super().planar(frame)
            return Nvdec.planar(self, VideoReformatter().reformat(frame, format="p010le"))

    with pytest.raises(RecordingError, match=r"turn to p010le at 0\.04 s: decode it without --nvdec"):
        chunks(write_video(tmp_path / "a.mp4", 3), circuit(Ten))


def test_frames_that_the_processor_made_after_all_are_left_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="aupipe.extract.media.video")
    path = write_video(tmp_path / "a.mp4", 20)
    (ours,), (theirs,) = (chunks(path, hardware) for hardware in (circuit(Nvdec), None))
    np.testing.assert_array_equal(ours.rgb, theirs.rgb)
    assert "a.mp4: this GPU does not decode it; decoded by the processor" in caplog.text


@pytest.mark.parametrize("missing", ["driver", "context", "build"])
def test_where_there_is_no_circuit_it_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    made_current: list[str] = []

    class Without:
        def __init__(self, kind: str, device: str, options: dict[str, str]) -> None:
            assert (kind, device, options) == ("cuda", "1", {"current_ctx": "1"})
            assert made_current == ["cuda:1"]

        def create(self, codec: Any) -> None:
            raise av.error.PermissionError(1, "Operation not permitted")  # as PyAV does when the driver refuses

    def load(name: str) -> None:
        if missing == "driver":
            raise OSError(f"{name}: cannot open shared object file")

    module._accel.cache_clear()
    monkeypatch.setattr(module, "HWAccel", Without)
    monkeypatch.setattr(module, "hwdevices_available", lambda: ["vaapi", *["cuda"] * (missing != "build")])
    monkeypatch.setattr(module.ctypes, "CDLL", load)
    monkeypatch.setattr(module.torch, "zeros", lambda n, device: made_current.append(device))
    words = {
        "driver": r"--nvdec: the driver's video part is not here \(libnvcuvid.* needs the capability 'video'",
        "build": "--nvdec: this PyAV has an FFmpeg without CUDA; run without it",
        "context": r"--nvdec: FFmpeg cannot decode on cuda:1 .*not permitted.*; run without it",
    }
    with pytest.raises(UsageError, match=words[missing]):
        nvdec("cuda:1")
