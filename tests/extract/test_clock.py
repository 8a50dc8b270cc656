"""Each frame is shown at its own time, also where a file states only when frames are decoded, or was joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from aupipe.errors import RecordingError
from aupipe.extract.media.clock import REORDER_FRAMES, clock_of, in_order
from aupipe.extract.media.video import VideoReader
from tests.extract.mutations import SIZE, number_in, numbered

NO_B_FRAMES = {"bf": "0"}


def write_avi(
    path: Path, ticks: Sequence[int], codec: str = "libx264", fps: int = 25, options: dict[str, str] | None = None
) -> Path:
    """Pictures that carry their places in ``ticks``, which are their times in frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"threads": "1", **(options or {})})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for place, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered(place), format="rgb24")
            frame.pts = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rows(path: Path) -> tuple[list[int], np.ndarray, VideoReader]:
    """The number in the picture of each row, and the rows' times."""
    reader = VideoReader(path)
    numbers = [number_in(picture) for chunk in reader for picture in chunk.rgb]
    return numbers, reader.ordered_clock(), reader


@pytest.mark.parametrize("fps", [25, 1])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", NO_B_FRAMES),
        ("libx264", {}),
        ("libx264", {"bf": "8", "x264-params": "b-pyramid=normal:b-adapt=0"}),
        ("mpeg4", {}),
        ("mpeg4", {"bf": "2"}),
    ],
)
def test_row_k_of_an_avi_is_at_k_frames_and_shows_picture_k(
    tmp_path: Path, codec: str, options: dict[str, str], fps: int
) -> None:
    numbers, clock, reader = rows(write_avi(tmp_path / "a.avi", range(40), codec, fps, options))
    assert numbers == list(range(40))
    np.testing.assert_allclose(clock, np.arange(40) / fps, atol=1e-9)
    assert (reader.report.summary, reader.report.notes) == ("", [])


@pytest.mark.parametrize("options", [NO_B_FRAMES, {"bf": "2"}])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_that_an_avi_dropped_leave_their_times_out(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    """Dropped frames are empty chunks. Frame k has the k-th smallest decoding time of the chunks that are not."""
    ticks = [*range(10), *range(15, 30), *range(31, 45)]
    path = write_avi(tmp_path / "a.avi", ticks, codec, options=options)
    with av.open(str(path)) as container:
        decoded = sorted(packet.dts for packet in container.demux(video=0) if packet.size and packet.dts is not None)
    assert len(decoded) == len(ticks) < decoded[-1]
    numbers, clock, reader = rows(path)
    assert numbers == list(range(len(ticks)))
    np.testing.assert_allclose(clock, np.array(decoded) / 25, atol=1e-9)
    if options == NO_B_FRAMES:
        np.testing.assert_allclose(clock, np.array(ticks) / 25, atol=1e-9)
    assert not reader.report.is_damaged, reader.report.summary


def write_packed(path: Path, frames: int) -> Path:
    """MPEG-4 as DivX 5 packed it: a chunk holds a frame and the B-frame shown before it, the next one stands in."""
    plain = write_avi(path.with_suffix(".plain.avi"), range(frames), "mpeg4", options={"bf": "1", "b_strategy": "0"})
    with av.open(str(plain)) as source:
        coded = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    vop, not_coded = b"\0\0\1\xb6", bytes([0, 0, 1, 0xB6, 0x50, 0x00, 0x00, 0x00])
    is_b = [data[data.index(vop) + 4] >> 6 == 2 for data in coded]
    assert sum(is_b) > frames // 3
    chunks: list[bytes] = []
    for data, b_frame in zip(coded, is_b, strict=True):
        if b_frame:
            chunks[-1] += data
            chunks.append(not_coded)
        else:
            chunks.append(data)
    mark = b"\0\0\1\xb2DivX503b1393p"
    chunks[0] = chunks[0].replace(vop, mark + vop, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
        for number, data in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, stream.codec_context.time_base
            packet.pts = packet.dts = number
            packet.is_keyframe = number == 0
            container.mux(packet)
    return path


def test_b_frames_that_divx_packed_come_at_their_own_times(tmp_path: Path) -> None:
    numbers, clock, reader = rows(write_packed(tmp_path / "a.avi", 41))
    assert numbers == list(range(41))
    np.testing.assert_allclose(clock, np.arange(41) / 25, atol=1e-9)
    assert not reader.report.is_damaged, reader.report.summary


# Times that do not rise -----------------------------------------------------------------------------------------------


def test_frames_out_of_order_among_their_neighbours_are_put_in_order() -> None:
    swapped = np.arange(60.0)
    swapped[[10, 11, 30, 31, 32]] = swapped[[11, 10, 32, 30, 31]]
    for seconds in (0.04, 1.0, 10.0):  # a bound in frames, not in seconds
        clock = clock_of(swapped * seconds)
        np.testing.assert_array_equal(clock.times_s, np.arange(60) * seconds)
        assert (clock.jumps_back, clock.overlap_s) == (0, 0.0)


def test_times_that_rise_are_left_as_they_are() -> None:
    times_s = np.cumsum(np.random.default_rng(0).choice([0.0, 0.01, 0.04, 3.0], 200))
    np.testing.assert_array_equal(clock_of(times_s).times_s, times_s)
    assert clock_of(times_s).overlap_s == 0


@pytest.mark.parametrize("overlap", [2, 5.5, 10, 20])
@pytest.mark.parametrize("length", [20, 200])
def test_where_parts_overlap_no_frame_gets_another_frames_time(length: int, overlap: float) -> None:
    first = np.arange(length) / 25
    second = (np.arange(length) + length - overlap) / 25
    clock = clock_of(np.concatenate([first, second]))
    assert clock.jumps_back == 1
    assert clock.overlap_s == pytest.approx(overlap / 25, abs=0.001)
    np.testing.assert_array_equal(clock.times_s[:length], first)
    kept = second > first[-1]
    np.testing.assert_array_equal(clock.times_s[length:][kept], second[kept])
    assert (np.diff(clock.times_s) > 0).all()


def test_parts_in_another_order_are_not_sorted_into_each_other() -> None:
    """Each time is there once, but far from its place: the pictures would be in another order than their times."""
    times_s = np.concatenate([np.arange(20, 40), np.arange(20)]) / 60
    clock = clock_of(times_s)
    assert clock.overlap_s > 0
    np.testing.assert_array_equal(clock.times_s[:20], times_s[:20])
    assert (np.diff(clock.times_s) > 0).all()
    with pytest.raises(RecordingError, match=r"x\.ts: times jump back from 1\.56 to 0\.00 s at frame 20"):
        in_order(np.concatenate([np.arange(20, 40), np.arange(20)]) / 25, Path("x.ts"))
    assert REORDER_FRAMES < 20


# What public bug reports describe -------------------------------------------------------------------------------------


def number_of(picture: np.ndarray) -> int:
    """The number in the 8 squares of 32 px in the middle of a reported clip's bottom, least significant bit left."""
    left = (picture.shape[1] - 256) // 2
    squares = picture[-32:, left : left + 256].mean(axis=2).reshape(32, 8, 32)[8:24, :, 8:24].mean(axis=(0, 2))
    return int((squares > 128) @ (1 << np.arange(8)))


REPORTED = {
    "h264_no_bframes.avi": np.arange(50) / 25,
    "h264_bframes_1fps.avi": np.arange(12.0),
    "right/mpeg4_avi_empty_chunks.avi": np.array([k for k in range(50) if k not in (*range(10, 15), 30)]) / 25,
    "right/elst_video_starts_1s_late.mp4": 1 + np.arange(50) / 25,
    "right/ts_cut_mid_gop.ts": 1.04 + np.arange(26) / 25,
    "right/vfr_bframes.mp4": (np.arange(50) + 0.4 * (np.arange(50) % 3)) / 25,
    "right/vp8_size_changes_twice.webm": np.arange(50) / 25,
}


@pytest.mark.assets
@pytest.mark.parametrize("name", REPORTED)
def test_rows_of_reported_files_are_at_their_times(assets: Path, name: str) -> None:
    reader = VideoReader(assets / "reported" / name)
    np.testing.assert_allclose(reader.clock(), REPORTED[name], atol=1e-3)
    assert not reader.report.is_damaged


@pytest.mark.assets
def test_a_reported_file_whose_times_wrap_is_read_across_the_wrap(assets: Path) -> None:
    clock = VideoReader(assets / "reported" / "right" / "ts_pts_wraps.ts").clock()
    assert len(clock) == 50
    np.testing.assert_allclose(np.diff(clock), 0.04, atol=1e-6)


@pytest.mark.assets
@pytest.mark.parametrize("name", [name for name in REPORTED if "vp8" not in name])
def test_pictures_of_reported_files_are_in_order(assets: Path, name: str) -> None:
    pictures = np.concatenate([chunk.rgb for chunk in VideoReader(assets / "reported" / name)])
    numbers = [number_of(picture) for picture in pictures]
    lost = {"right/mpeg4_avi_empty_chunks.avi": (*range(10, 15), 30)}.get(name, ())
    first = numbers[0]
    assert numbers == [k for k in range(first, first + len(numbers) + len(lost)) if k not in lost]


@pytest.mark.assets
def test_reported_parts_that_overlap_are_not_sorted_into_each_other(assets: Path) -> None:
    reader = VideoReader(assets / "reported" / "damaged" / "joined_times_sorted.m2ts")
    np.testing.assert_allclose(reader.clock(), 1.48 + np.arange(40) / 25, atol=1e-6)
    assert "times overlap by 0.80 s at 1.48 s" in reader.report.summary
