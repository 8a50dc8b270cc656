"""FrameChunk come in decode order, one row each, at their true times."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe.errors import RecordingError
from aupipe.extract.media.clock import in_order
from aupipe.extract.media.container import sniff
from aupipe.extract.media.frame_buffer import chunk_length
from aupipe.extract.media.images import ImageReader, image_rows
from aupipe.extract.media.prefetch import prefetch
from aupipe.extract.media.video import VideoReader
from aupipe.extract.memory import Budget
from tests.conftest import write_video
from tests.made import CODECS, read_audio, talking, write_media, write_talking


def all_frames(reader) -> np.ndarray:
    return np.concatenate([frames.rgb for frames in reader])


@pytest.mark.assets
def test_every_clip_gives_exactly_the_frames_its_table_states(assets: Path, clips: dict[str, int]) -> None:
    assert len(clips) == 20
    readers = {name: VideoReader(assets / "videos" / name) for name in clips}
    assert {name: len(reader.clock()) for name, reader in readers.items()} == clips
    for name in ("derived_hamilton_vp9_opus_mono.webm", "grid_swwp2s_speech.mpg", "face_then_noface_vfr_hevc.mov"):
        assert not readers[name].report.is_damaged
        assert readers[name].report.notes == []
    assert {Path(name).suffix: sniff(assets / "videos" / name) for name in clips} == CONTAINERS


CONTAINERS = {
    ".mp4": "mov",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "matroska",
    ".avi": "avi",
    ".wmv": "asf",
    ".mpg": "mpeg",
}


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_gives_its_frames_in_order_as_opencv_does_and_nothing_is_said(
    tmp_path: Path, suffix: str
) -> None:
    path = write_talking(tmp_path / f"a{suffix}", frames=40)
    assert sniff(path) == CONTAINERS[suffix]
    reader = VideoReader(path)
    assert_pictures_are_opencvs(path)
    clock = reader.clock()
    assert not reader.report.is_damaged
    assert reader.report.notes == []
    np.testing.assert_allclose(clock - clock[0], np.arange(40) / 25, atol=1e-3)


@pytest.mark.assets
def test_pictures_and_order_are_those_of_sequential_opencv(assets: Path) -> None:
    for name in (
        "grid_swwp2s_speech.mpg",
        "no_face_cartoon_editlist.mp4",
        "derived_hamilton_wmv2.wmv",
    ):
        assert_pictures_are_opencvs(assets / "videos" / name)


@pytest.mark.assets
def test_a_real_clip_of_pixels_that_are_not_square_is_stretched(assets: Path) -> None:
    reader = VideoReader(assets / "videos" / "carphone_qcif_no_audio.mp4")  # QCIF: 176x144, 128:117
    assert {chunk.size for chunk in reader} == {(144, 193)}
    assert (reader.report.pixel_aspect, reader.report.shown) == ("128:117", "193x144")


def assert_pictures_are_opencvs(path: Path) -> None:
    capture = cv2.VideoCapture(str(path))
    for frames in VideoReader(path):
        for picture in frames.rgb:
            ok, bgr = capture.read()
            assert ok, path.name
            np.testing.assert_array_equal(picture, bgr[..., ::-1], err_msg=path.name)
    assert not capture.read()[0], path.name


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_made_times_are_the_containers_not_the_frame_rate(tmp_path: Path, suffix: str) -> None:
    times_s = 0.85 + np.cumsum(np.random.default_rng(0).choice([0.01, 0.02, 0.04, 0.1], 24))
    path = write_media(tmp_path / f"a{suffix}", talking()[0], times_s=list(times_s))
    np.testing.assert_allclose(VideoReader(path).clock(), times_s, atol=1e-3)


@pytest.mark.assets
def test_times_are_the_containers_not_the_frame_rate(assets: Path) -> None:
    late = VideoReader(assets / "videos" / "hamilton_lowlight_multiface_speech.mp4").clock()
    assert late[0] == pytest.approx(0.852, abs=1e-3)
    variable = np.diff(VideoReader(assets / "videos" / "face_then_noface_vfr_hevc.mov").clock())
    assert variable.min() == pytest.approx(0.0137, abs=1e-3)
    assert variable.max() == pytest.approx(0.0417, abs=1e-3)


def test_chunks_cover_every_frame_once_and_are_bounded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=70)
    chunks = list(VideoReader(path))
    assert [len(chunk) for chunk in chunks] == [32, 32, 6]
    np.testing.assert_array_equal(np.concatenate([chunk.index for chunk in chunks]), np.arange(70))
    np.testing.assert_allclose(np.concatenate([chunk.pts_s for chunk in chunks]), np.arange(70) / 25, atol=1e-6)
    greys = np.concatenate([chunk.rgb.mean(axis=(1, 2, 3)) for chunk in chunks])
    np.testing.assert_allclose(greys, 10 + 2 * np.arange(70), atol=2.5)
    assert chunk_length(3 * 8000 * 8000) == 1


def test_rotation_metadata_turns_the_picture_as_opencv_does(tmp_path: Path) -> None:
    source = write_talking(tmp_path / "a.mp4", frames=4)
    turned = tmp_path / "turned.mp4"
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the display matrix of the first track, which is the video
    turn = [0, 0x10000, 0, -0x10000, 0, 0, 320 << 16, 0, 0x40000000]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turn)
    turned.write_bytes(data)
    ok, bgr = cv2.VideoCapture(str(turned)).read()
    assert ok
    first = next(iter(VideoReader(turned))).rgb[0]
    assert first.shape[:2] == (320, 256)
    np.testing.assert_array_equal(first, bgr[..., ::-1])


def test_a_truncated_file_gives_what_it_holds_and_says_so(tmp_path: Path) -> None:
    whole = write_talking(tmp_path / "whole.webm", frames=80)
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    reader = VideoReader(cut)
    frames = len(reader.clock())
    assert 10 < frames < 55
    assert "truncated" in reader.report.summary
    np.testing.assert_array_equal(reader.clock(), VideoReader(whole).clock()[:frames])


def test_times_that_jump_back_are_no_clock() -> None:
    joined = np.concatenate([np.arange(30), np.arange(30)]) / 25 + 3 * (np.arange(60) < 30)
    with pytest.raises(RecordingError, match=r"x\.ts: times jump back from 4\.16 to 0\.00 s at frame 30"):
        in_order(joined, Path("x.ts"))
    near = np.array([0, 2, 1, 3, 5, 4]) / 25
    np.testing.assert_allclose(in_order(near, Path("x.avi")), np.arange(6) / 25)


def test_corrupted_bytes_cost_frames_not_the_file(tmp_path: Path) -> None:
    source = write_talking(tmp_path / "good.avi", frames=60)
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    (tmp_path / "bad.avi").write_bytes(data)
    assert len(VideoReader(tmp_path / "bad.avi").clock()) > 50


def text_as_mp4(folder: Path) -> Path:
    (folder / "a.mp4").write_text("this is no video\n" * 50)
    return folder / "a.mp4"


def utf16_as_mp4(folder: Path) -> Path:
    (folder / "u.mp4").write_text("this is no video\n" * 50, encoding="utf-16")
    return folder / "u.mp4"


def playlist_as_mp4(folder: Path) -> Path:
    victim = write_video(folder / "other.mp4")
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{victim}'\n")
    return folder / "list.mp4"


def empty_file(folder: Path) -> Path:
    (folder / "e.mp4").touch()
    return folder / "e.mp4"


def folder_as_mp4(folder: Path) -> Path:
    (folder / "x.mp4").mkdir()
    return folder / "x.mp4"


def sound_only(folder: Path) -> Path:
    return write_video(folder / "s.mp4", tone_hz=440, video=False)


def no_moov(folder: Path) -> Path:
    data = write_video(folder / "v.mp4").read_bytes()
    (folder / "n.mp4").write_bytes(data[: data.index(b"moov") - 4])
    return folder / "n.mp4"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (text_as_mp4, "is text"),
        (utf16_as_mp4, "is text"),
        (playlist_as_mp4, "is text"),
        (empty_file, "is empty"),
        (folder_as_mp4, "is a folder"),
        (sound_only, r"no video stream \(sound only\)"),
        (no_moov, "cannot be opened as mov"),
        (lambda folder: folder / "absent.mp4", "No such file"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_video_is_refused_by_name_with_the_reason(tmp_path: Path, make, reason: str) -> None:
    path = make(tmp_path)
    with pytest.raises(RecordingError, match=reason) as error:
        VideoReader(path).clock()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "concat:a|b.mp4", "-rf.mp4", "%03d.mp4", "a b\n.mp4", "é.mp4", b"\xff\xfe.mp4"]
)
def test_any_file_name_is_a_name(tmp_path: Path, name: str | bytes) -> None:
    import os

    path = tmp_path / (os.fsdecode(name) if isinstance(name, bytes) else name)
    shutil.copy(write_video(tmp_path / "plain.mp4", tone_hz=440), path)
    assert len(VideoReader(path).clock()) == 20
    assert read_audio(path, 16000).sample_rate == 16000


def test_numbered_images_keep_their_rows_and_gaps_stay_gaps(tmp_path: Path) -> None:
    for number in (1, 2, 5):
        cv2.imwrite(str(tmp_path / f"{number:05d}.png"), np.full((8, 8, 3), number, np.uint8))
    assert list(image_rows(tmp_path)) == [0, 1, 4]
    chunk = next(iter(ImageReader(tmp_path, np.arange(6) / 25)))
    np.testing.assert_array_equal(chunk.index, [0, 1, 4])
    np.testing.assert_allclose(chunk.pts_s, [0, 0.04, 0.16])
    np.testing.assert_array_equal(chunk.rgb[:, 0, 0, 0], [1, 2, 5])


def test_images_of_another_video_are_refused_and_a_frame_or_two_too_many_are_named(tmp_path: Path) -> None:
    for number in range(1, 11):
        cv2.imwrite(str(tmp_path / f"{number:05d}.png"), np.zeros((8, 8, 3), np.uint8))
    reader = ImageReader(tmp_path, np.arange(9) / 25)
    assert sum(len(chunk) for chunk in reader) == 9
    assert "1 image beyond" in reader.notes[0]
    with pytest.raises(RecordingError, match=r"00010\.png, but its video has 5 frames"):
        list(ImageReader(tmp_path, np.arange(5) / 25))


def test_two_images_of_one_number_are_an_error(tmp_path: Path) -> None:
    for name in ("1.png", "0001.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RecordingError, match="both frame 1"):
        image_rows(tmp_path)


def test_reading_ahead_gives_the_same_chunks_and_passes_errors_on(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=40)
    np.testing.assert_array_equal(all_frames(prefetch(VideoReader(path))), all_frames(VideoReader(path)))
    with pytest.raises(RecordingError, match="is a folder"):
        list(prefetch(VideoReader(tmp_path)))


def test_stopping_early_ends_the_decoding_thread(tmp_path: Path) -> None:
    import threading

    path = write_video(tmp_path / "a.mp4", frames=200)
    budget = Budget(1)
    chunks = prefetch(VideoReader(path), budget)
    next(chunks)
    chunks.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]
    assert budget.acquired_bytes == 0


def test_frames_nobody_wants_are_counted_and_not_converted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=70)
    whole = VideoReader(path)
    pictures = np.concatenate([frames.rgb for frames in whole])
    some = VideoReader(path, wanted=lambda row: row % 3 == 1)
    chunks = list(some)
    rows = np.concatenate([frames.index for frames in chunks])
    np.testing.assert_array_equal(rows, np.arange(1, 70, 3))
    np.testing.assert_array_equal(np.concatenate([frames.rgb for frames in chunks]), pictures[rows])
    np.testing.assert_array_equal(np.concatenate([frames.pts_s for frames in chunks]), np.array(whole.times_s)[rows])
    assert some.decoded == whole.decoded == 70


def test_decoded_frames_in_flight_are_bounded_in_bytes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=200)
    (first, *_) = chunks = list(VideoReader(path))
    budget = Budget(2 * first.rgb.nbytes)
    most = 0
    for _ in prefetch(VideoReader(path), budget):
        most = max(most, budget.acquired_bytes)
    assert len(chunks) > 3
    assert 0 < most <= budget.limit_bytes
    assert budget.acquired_bytes == 0


@pytest.mark.assets
def test_a_real_avi_without_presentation_times_has_its_frames_at_their_times(assets: Path) -> None:
    clock = VideoReader(assets / "videos" / "film_leader_speech_no_face.avi").clock()
    np.testing.assert_allclose(clock, np.arange(122) / 24, atol=1e-9)


def test_pyav_is_told_to_use_one_thread_per_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = av.container.InputContainer.demux

    def demux(self, *streams, **options):
        seen.append(self.streams.video[0].codec_context.thread_count)
        return original(self, *streams, **options)

    class Container:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.inner.close()

        def demux(self, *streams):
            return demux(self.inner, *streams)

    from aupipe.extract.media import video as decode

    real = decode.open_media
    monkeypatch.setattr(decode, "open_media", lambda *how: Container(real(*how)))
    VideoReader(write_video(tmp_path / "a.mp4")).clock()
    assert seen == [1]
