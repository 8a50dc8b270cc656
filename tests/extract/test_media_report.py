"""Decoding says whether a file is damaged; whole files of every odd kind are not called that."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe.errors import RecordingError
from aupipe.extract.media import video as decode
from aupipe.extract.media.container import StreamFrames, open_media
from aupipe.extract.media.ffmpeg_log import ErrorLog
from aupipe.extract.media.images import ImageReader, read_image
from aupipe.extract.media.report import MediaReport, report_on
from aupipe.extract.media.video import VideoReader
from tests.conftest import write_video
from tests.extract.mutations import KINDS, write_clip


def report_of(path: Path) -> MediaReport:
    reader = VideoReader(path)
    reader.clock()
    return reader.report


def spoilt(data: bytes) -> bytes:
    """A byte in 97 of the second half is 0."""
    changed = bytearray(data)
    changed[len(data) // 2 :: 97] = bytes(len(data[len(data) // 2 :: 97]))
    return bytes(changed)


def write_at(path: Path, ticks: Sequence[int], codec: str = "h264", fps: int = 25, tail_s: float = 0.0) -> Path:
    """A video whose frames are shown at ``ticks`` / fps, and a tone that ends ``tail_s`` after it where asked for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono") if tail_s else None
        for tick in ticks:
            picture = np.full((48, 64, 3), (tick * 7) % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for start in range(0, round((ticks[-1] / fps + tail_s) * 16000), 1024):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts = 16000, start
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_clip_of_any_kind_is_whole(tmp_path: Path, kind: str) -> None:
    path = write_clip(tmp_path, kind, frames=30)
    report = report_of(path)
    assert not report.is_damaged, report.summary
    assert (report.frames, report.notes, report.errors) == (30, [], 0)
    with open_media(path, log=(log := ErrorLog())) as container:
        frames = StreamFrames(container, container.streams.audio[0], log)
        assert len(list(frames)) > 0
        assert not (heard := report_on(frames, path)).is_damaged, heard.summary


@pytest.mark.parametrize(
    ("name", "codec", "ticks"),
    [
        ("variable_rate.mp4", "h264", [4 * k + k % 3 for k in range(40)]),
        ("variable_rate.mkv", "h264", [4 * k + k % 3 for k in range(40)]),
        ("pause.mp4", "h264", [*range(20), *range(60, 80)]),
        ("empty_chunks.avi", "mpeg4", [*range(10), *range(15, 30), *range(31, 50)]),
        ("starts_late.mp4", "h264", list(range(25, 50))),
        ("starts_late.mkv", "h264", list(range(25, 50))),
    ],
)
def test_odd_times_of_a_whole_file_are_no_damage(tmp_path: Path, name: str, codec: str, ticks: list[int]) -> None:
    report = report_of(write_at(tmp_path / name, ticks, codec))
    assert report.frames == len(ticks)
    assert not report.is_damaged, report.summary


def test_sound_that_ends_after_the_picture_is_no_truncation(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4", "a.mov"):
        report = report_of(write_at(tmp_path / name, range(12), tail_s=2.0))
        assert not report.is_damaged, report.summary


def test_a_stream_that_begins_within_a_group_of_pictures_carries_a_note_and_is_whole(tmp_path: Path) -> None:
    whole = write_clip(tmp_path, "ts").read_bytes()
    packets = [whole[start : start + 188] for start in range(0, len(whole), 188)]
    cut = tmp_path / "cut.ts"
    cut.write_bytes(b"".join(packets[:3] + packets[60:]))  # with its tables, from the middle of a picture on
    report = report_of(cut)
    assert 30 < report.frames < 60
    assert not report.is_damaged, report.summary
    assert "begins within a group of pictures" in report.notes[0]


def test_frames_that_a_table_lists_and_the_file_lacks_are_counted(tmp_path: Path) -> None:
    whole = write_clip(tmp_path, "mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    report = report_of(cut)
    assert report.missing == 60 - report.frames - report.undecodable > 0
    assert f"{report.missing} frames of 60 missing" in report.summary


@pytest.mark.parametrize("kind", ["avi_mpeg4", "avi_mjpeg", "wmv", "mkv_h264", "webm_vp9", "ogv_vp8", "flv"])
def test_a_file_whose_end_is_cut_off_is_damaged(tmp_path: Path, kind: str) -> None:
    whole = write_clip(tmp_path, kind)
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    report = report_of(cut)
    assert 0 < report.frames < 60
    assert report.is_damaged


def test_a_transport_stream_cut_within_a_packet_is_damaged(tmp_path: Path) -> None:
    whole = write_clip(tmp_path, "ts")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2 // 188 * 188 + 100])
    assert "in the middle of a packet" in report_of(whole).summary


def test_a_gap_in_a_constant_frame_rate_is_found_where_no_table_explains_it(tmp_path: Path) -> None:
    report = report_of(write_at(tmp_path / "a.mkv", [*range(30), *range(34, 60)]))
    assert report.gaps == 1
    assert (report.gap_s, report.first_gap_s) == pytest.approx((0.16, 1.2), abs=0.003)
    assert "1 gap in the times (0.16 s without frames, first at 1.20 s)" in report.summary


def test_parts_that_overlap_in_time_are_not_put_in_order_without_a_word(tmp_path: Path) -> None:
    part = write_at(tmp_path / "part.ts", range(15)).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part + part)
    report = report_of(joined)
    assert report.frames == 30
    assert report.overlap_s == pytest.approx(0.6, abs=0.05)
    assert "times overlap by 0.6" in report.summary
    twice = write_at(tmp_path / "long.ts", range(50)).read_bytes()
    joined.write_bytes(twice + twice)
    with pytest.raises(RecordingError, match="jump back"):
        report_of(joined)


def test_what_ffmpeg_complains_of_is_counted_and_quoted(tmp_path: Path) -> None:
    whole = write_clip(tmp_path, "mp4")
    whole.write_bytes(spoilt(whole.read_bytes()))
    report = report_of(whole)
    assert report.errors > 0
    assert report.messages
    assert f"FFmpeg: {report.messages[0]}" in report.summary
    assert all("\n" not in message for message in report.messages)
    assert MediaReport.from_json(report.to_json()) == report


def test_messages_of_one_file_are_not_another_files(tmp_path: Path) -> None:
    whole = write_clip(tmp_path, "mkv_h264")
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(spoilt(whole.read_bytes()))
    readers = [VideoReader(path) for path in (whole, bad, whole, bad)]
    chunks = [iter(reader) for reader in readers]
    for _ in range(8):  # in turn, in one thread
        for turn in chunks:
            next(turn, None)
    assert [reader.report.errors > 0 for reader in readers] == [False, True, False, True]


def test_a_stream_that_begins_in_the_middle_of_a_file_is_a_word_and_no_index_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.flv")
    with open_media(path) as container:
        packets = list(container.demux(container.streams.video[0]))

        class Stub:  # PyAV, when it comes to the end of such a file
            format = container.format
            streams = container.streams

            def demux(self):
                yield from packets
                raise IndexError("list index out of range")

        frames = StreamFrames(Stub(), container.streams.video[0])
        assert len(list(frames)) == 20
    assert frames.log.messages == ["container: a stream begins in the middle of the file"]


def test_a_codec_that_ffmpeg_lacks_is_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path, "mkv_mpeg4", frames=5)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_NOBODYS/CODEC"))
    with pytest.raises(RecordingError, match="'V_NOBODYS/CODEC', is not known to FFmpeg"):
        VideoReader(path).clock()


# Caps -----------------------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is that large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def write_pngs(path: Path, pictures: Sequence[bytes]) -> Path:
    """A mov of PNGs, by what its header says of 64 x 64."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        container.start_encoding()
        for number, data in enumerate(pictures):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, stream.codec_context.time_base
            packet.pts = packet.dts = number
            packet.duration = 1
            container.mux(packet)
    return path


PEAK = """
import resource, sys
from pathlib import Path
import aupipe.extract.media.images, aupipe.extract.media.video
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from aupipe.errors import RecordingError
path = Path(sys.argv[1])
try:
    if path.suffix == ".png":
        aupipe.extract.media.images.read_image(path)
    else:
        aupipe.extract.media.video.VideoReader(path).clock()
except RecordingError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_pictures_beyond_the_cap_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    ok, small = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
    assert ok
    inside = write_pngs(tmp_path / "inside.mov", [small.tobytes(), png(15000, 15000), small.tobytes()])
    first = write_pngs(tmp_path / "first.mov", [png(15000, 15000), small.tobytes()])
    image = tmp_path / "00001.png"
    image.write_bytes(png(30000, 30000))
    for path in (inside, first, image):
        asked = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
        reason, grown_kb = asked.stdout.splitlines()
        assert "at most 64 megapixels" in reason, reason
        assert str(path) in reason
        assert int(grown_kb) < 100_000


def test_frames_and_hours_have_a_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecordingError, match="50 hours after the first, at most 48"):
        report_of(write_at(tmp_path / "long.mkv", [*range(10), 50 * 3600 * 25], "mpeg4"))
    monkeypatch.setattr(decode, "MAX_FRAMES", 19)
    with pytest.raises(RecordingError, match="more than 19 frames"):
        report_of(write_video(tmp_path / "a.mp4"))


def test_images_of_any_kind_are_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    for suffix in (".png", ".bmp", ".jpg", ".webp"):
        file = tmp_path / f"00001{suffix}"
        file.write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
        assert read_image(file).shape == (40, 30, 3)
    (tmp_path / "00001.png").write_bytes(b"no image")
    with pytest.raises(RecordingError, match=r"00001\.png: not an image"):
        read_image(tmp_path / "00001.png")
    shutil.copy(tmp_path / "00001.jpg", tmp_path / "x.jpg")
    with pytest.raises(RecordingError):
        list(ImageReader(tmp_path / "x.jpg", np.zeros(1)))


def test_messages_are_told_apart_when_many_threads_decode_damaged_files(tmp_path: Path) -> None:
    whole = write_clip(tmp_path, "mkv_h264", frames=30)
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(spoilt(whole.read_bytes()))
    alone = {path: report_of(path) for path in (whole, bad)}
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(report_of, [whole, bad] * 20))
    assert found == [alone[whole], alone[bad]] * 20


# What public bug reports describe -------------------------------------------------------------------------------------


@pytest.mark.assets
def test_reported_files_are_told_apart(assets: Path) -> None:
    folder = assets / "reported"
    kinds = {".mp4", ".mkv", ".avi", ".ts", ".mov", ".webm"}
    wholes = [path for path in (*folder.iterdir(), *(folder / "right").iterdir()) if path.suffix in kinds]
    assert len(wholes) > 12
    assert {path.name: report_of(path).summary for path in wholes} == {path.name: "" for path in wholes}
    for name, words in {
        "cut_16_of_150.avi": "truncated: ends at 0.64 s of 6.00 s declared",
        "cut_23_of_150.ts": "in the middle of a packet; 1 gap",
        "one_bit_17_of_20.mp4": "3 frames of 20 missing",
        "silent_0619_s_h264_del3000.mkv": "1 gap",
        "joined_times_sorted.m2ts": "times overlap by 0.80 s",
        "one_bit_indexerror.flv": "Packet mismatch",
    }.items():
        assert words in report_of(folder / "damaged" / name).summary, name
    for name, words in {
        "unknown_codec.mkv": "'V_UNKNOWN/CODEC'",
        "png15k_inside.mov": "a picture of 15000x15000, at most 64 megapixels",
    }.items():
        with pytest.raises(RecordingError, match=words):
            report_of(folder / "damaged" / name)


@pytest.mark.slow
@pytest.mark.assets
def test_real_videos_are_whole(assets: Path, clips: dict[str, int]) -> None:
    assert {name: report_of(assets / "videos" / name).summary for name in clips} == dict.fromkeys(clips, "")
