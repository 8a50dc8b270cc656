"""A transport stream whose codec changes on the way gives all of its pictures and all of its sound, and says so."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from aupipe.extract.media.audio import read_audio_and_report
from aupipe.extract.media.ts_parts import WHOLE, parts_of
from aupipe.extract.media.video import VideoReader

FRAMES, RATE = 30, 25
AUDIO = {"aac": ("aac", 48000), "mp2": ("mp2", 48000), "ac3": ("ac3", 48000)}


def write_pictures(path: Path, codec: str, first: int, muxer: dict[str, str] | None = None) -> bytes:
    """A transport stream of `FRAMES` pictures: picture k of all, of grey level 2k + 20, is shown at 1 + k / 25 s."""
    with av.open(str(path), "w", format="mpegts", options=muxer or {}) as container:
        options = {"bf": "0", "preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {"bf": "0"}
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        delay: int | None = None
        for k in [*range(first, first + FRAMES), None]:
            frame = None
            if k is not None:
                frame = av.VideoFrame.from_ndarray(np.full((128, 160, 3), 2 * k + 20, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                start = round((1 + first / RATE) / packet.time_base)
                delay = packet.pts if delay is None else delay
                packet.pts, packet.dts = packet.pts - delay + start, packet.dts - delay + start
                container.mux(packet)
    return path.read_bytes()


def write_tone(path: Path, codec: str, first_s: float) -> bytes:
    """A transport stream of a second of 440 Hz that begins at ``first_s``."""
    name, rate = AUDIO[codec]
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream(name, rate=rate, layout="mono")
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        for start in range(0, rate, 4800):
            samples = (32767 * tone[start : start + 4800]).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            for packet in stream.encode(frame):
                _mux_later(container, packet, first_s)
        for packet in stream.encode():
            _mux_later(container, packet, first_s)
    return path.read_bytes()


def _mux_later(container: av.container.OutputContainer, packet: av.Packet, by_s: float) -> None:
    by = round(by_s / packet.time_base)
    packet.pts, packet.dts = packet.pts + by, packet.dts + by
    container.mux(packet)


@pytest.mark.parametrize("muxer", [{}, {"mpegts_m2ts_mode": "1"}], ids=["ts", "m2ts"])
@pytest.mark.parametrize("codecs", [("libx264", "mpeg2video"), ("mpeg2video", "libx264"), ("libx264",) * 2])
def test_every_picture_of_joined_streams_is_there_at_its_time(
    tmp_path: Path, codecs: tuple[str, str], muxer: dict[str, str]
) -> None:
    parts = [write_pictures(tmp_path / f"{k}.ts", codec, k * FRAMES, muxer) for k, codec in enumerate(codecs)]
    joined = tmp_path / ("joined.m2ts" if muxer else "joined.ts")
    joined.write_bytes(b"".join(parts))
    reader = VideoReader(joined)
    levels = np.concatenate([frames.rgb.mean(axis=(1, 2, 3)) for frames in reader])
    np.testing.assert_allclose(levels, 2 * np.arange(2 * FRAMES) + 20, atol=3)
    np.testing.assert_allclose(np.diff(reader.ordered_clock()), 1 / RATE, atol=1e-3)
    assert reader.report.damage == []
    assert reader.report.frames == 2 * FRAMES
    changes = [note for note in reader.report.notes if note.startswith("the codec changes on the way")]
    assert len(changes) == len(set(codecs)) - 1
    assert len(parts_of(joined, "mpegts", "video")) == len(set(codecs))


@pytest.mark.parametrize("codecs", [("aac", "mp2"), ("ac3", "aac")])
def test_sound_goes_on_where_its_codec_changes(tmp_path: Path, codecs: tuple[str, str]) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(write_tone(tmp_path / f"{k}.ts", codec, k) for k, codec in enumerate(codecs)))
    wave, report = read_audio_and_report(joined, 16000)
    assert math.isclose(len(wave.samples) / 16000, 2.0, abs_tol=0.06)
    loud = np.abs(wave.samples[: 16000 * 19 // 10].reshape(-1, 160)).max(axis=1) > 0.3
    assert loud[10:].mean() > 0.97
    assert report.undecodable == 0
    assert any("the codec changes on the way" in note for note in report.notes)


def test_a_stream_of_one_codec_is_one_part_and_a_file_of_another_kind_is_not_read(tmp_path: Path) -> None:
    alone = tmp_path / "alone.ts"
    write_pictures(alone, "mpeg2video", 0)
    assert parts_of(alone, "mpegts", "video") == (WHOLE,)
    assert parts_of(tmp_path / "none.mp4", "mov", "audio") == (WHOLE,)


def test_frames_that_share_a_time_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * k, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                _mux_at(container, packet, k - (k >= 10))
        for packet in stream.encode():
            container.mux(packet)
    reader = VideoReader(path)
    times_s = reader.clock()
    assert len(times_s) == 20
    assert reader.report.notes == ["1 frame at the time of the frame before"]


def _mux_at(container: av.container.OutputContainer, packet: av.Packet, row: int) -> None:
    packet.pts = packet.dts = round(row / RATE / packet.time_base)
    container.mux(packet)


def packets_of(content: bytes) -> list[bytes]:
    return [content[at : at + 188] for at in range(0, len(content), 188)]


def pid_of(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def test_where_only_the_codec_of_the_sound_changes_the_pictures_are_one_part(tmp_path: Path) -> None:
    """A part begins with a decoder that knows nothing: pictures of one codec are never cut."""
    pictures = write_pictures(tmp_path / "p.ts", "libx264", 0)
    tables = [write_tone(tmp_path / f"{codec}.ts", codec, 0) for codec in ("aac", "mp2")]
    joined = tmp_path / "joined.ts"
    # The program map tables of sound name no pictures: what they say of another medium does not count.
    joined.write_bytes(tables[0] + pictures + tables[1])
    assert parts_of(joined, "mpegts", "video") == (WHOLE,)
    assert len(parts_of(joined, "mpegts", "audio")) == 2


def test_two_programs_beside_each_other_are_no_change(tmp_path: Path) -> None:
    first = packets_of(write_pictures(tmp_path / "1.ts", "libx264", 0))
    options = {"mpegts_start_pid": "0x200", "mpegts_pmt_start_pid": "0x1100", "mpegts_service_id": "2"}
    second = packets_of(write_pictures(tmp_path / "2.ts", "mpeg2video", 0, options))
    mixed = [packet for pair in zip(first, second, strict=False) for packet in pair]
    path = tmp_path / "two.ts"
    path.write_bytes(b"".join(mixed))
    assert parts_of(path, "mpegts", "video") == (WHOLE,)


def test_a_part_behind_one_that_is_cut_within_a_packet_is_found(tmp_path: Path) -> None:
    first, second = (
        write_pictures(tmp_path / f"{k}.ts", c, k * FRAMES) for k, c in enumerate(("mpeg2video", "libx264"))
    )
    path = tmp_path / "cut.ts"
    path.write_bytes(first[:-100] + second)
    parts = parts_of(path, "mpegts", "video")
    assert parts[0].start == 0
    assert len(parts) == 2
    assert abs(parts[1].start - (len(first) - 100)) <= 188


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_picture_is_damage_also_where_the_frame_rate_varies(tmp_path: Path, lost: bool) -> None:
    path, random = tmp_path / "vfr.ts", np.random.default_rng(0)
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"bf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        stream.codec_context.time_base, time_ms = Fraction(1, 1000), 0
        for _ in range(60):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (128, 160, 3)).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            time_ms += int(random.choice([20, 40, 60, 80]))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    packets = packets_of(path.read_bytes())
    begins = [k for k, packet in enumerate(packets) if pid_of(packet) == 0x100 and packet[1] & 0x40]
    if lost:
        del packets[begins[30] : begins[31]]
        path.write_bytes(b"".join(packets))
    reader = VideoReader(path)
    assert sum(len(frames) for frames in reader) == 60 - lost
    assert bool(reader.report.damage) == lost
