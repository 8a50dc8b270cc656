"""Sound stands where the timestamps of its packets say, in files like those that people report."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from aupipe.errors import RecordingError
from aupipe.extract.media.audio import read_audio_and_report
from aupipe.extract.media.long_arrays import cut
from aupipe.extract.media.report import MediaReport
from aupipe.extract.media.sound_placement import Block, place_sound
from tests.extract.test_long_sound import write_sound
from tests.made import read_audio

RATE = 16000
CLICK = (20000 * np.sin(np.arange(40) * 0.8)).astype(np.int16)


def clicks(first: int, count: int, every: float) -> np.ndarray:
    """Samples (1, count) from number ``first`` on, with a click at every multiple of ``every`` samples but at 0."""
    samples = np.zeros(count + len(CLICK), np.int16)
    for number in range(max(1, int(first // every)), int((first + count) // every) + 1):
        begin = round(number * every) - first
        if 0 <= begin < count:
            samples[begin : begin + len(CLICK)] = CLICK
    return samples[None, :count]


def off_by_s(path: Path, every_s: float = 0.5) -> tuple[np.ndarray, MediaReport]:
    """How far from every multiple of ``every_s`` a click is heard, in seconds, for as long as there are any."""
    wave, report = read_audio_and_report(path, RATE)
    loud = [
        first + np.flatnonzero(np.abs(cut(wave.samples, first, first + (1 << 20))) > 0.3)
        for first in range(0, len(wave.samples), 1 << 20)
    ]
    heard = np.concatenate(loud) / RATE + wave.start_s
    heard = heard[np.diff(heard, prepend=-1.0) > 0.1]  # where each begins
    return heard - np.round(heard / every_s) * every_s, report


def paced(seconds: float, pace: float, block: int = 1024, jitter_s: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
    """A sound card that takes ``pace`` seconds for what should be one; a click every half second."""
    random = np.random.default_rng(0)
    for first in range(0, round(seconds * RATE / pace), block):
        at_s = first * pace / RATE + jitter_s * random.uniform(-1, 1) * (first > 0)
        yield at_s, clicks(first, block, 0.5 * RATE / pace)


@pytest.mark.parametrize(
    ("pace", "seconds", "words"),
    [
        (0.98, 20, "% fast (0.4"),
        (1.02, 20, "% slow (0.3"),
        (1.0005, 120, "% slow (0.06"),
        (0.9995, 120, "% fast (0.06"),
    ],
)
def test_a_sound_card_that_is_fast_or_slow_stays_with_the_picture_and_is_said_once(
    tmp_path: Path, pace: float, seconds: float, words: str
) -> None:
    off, report = off_by_s(write_sound(tmp_path / "a.mkv", paced(seconds, pace)))
    assert len(off) > 1.9 * seconds - 3
    assert np.abs(off).max() < 0.0135
    (note,) = report.notes
    assert words in note
    assert report.drift == pytest.approx(pace - 1, rel=0.1)
    assert not report.is_damaged


def test_a_clock_that_is_too_wrong_to_be_resampled_is_cut_or_filled(tmp_path: Path) -> None:
    for pace in (0.9, 1.1):
        off, report = off_by_s(write_sound(tmp_path / "a.mkv", paced(10, pace)))
        assert np.abs(off).max() < 0.02
        assert len(report.notes) == 1
        assert report.trim_s + report.hole_s == pytest.approx(10 * abs(1 / pace - 1), rel=0.1)


def test_timestamps_that_jitter_move_nothing(tmp_path: Path) -> None:
    even = read_audio(write_sound(tmp_path / "even.mkv", paced(20, 1.0)), RATE)
    wave, report = read_audio_and_report(write_sound(tmp_path / "a.mkv", paced(20, 1.0, jitter_s=0.015)), RATE)
    np.testing.assert_array_equal(wave.samples, even.samples)
    assert report.notes == []


@pytest.mark.parametrize(("parts", "part_s", "overlap_s"), [(12, 1.0, 0.0213), (60, 0.4, 0.0213), (4, 1.0, 0.3)])
def test_sound_of_joined_parts_that_overlap_stays_with_the_picture_to_the_end(
    tmp_path: Path, parts: int, part_s: float, overlap_s: float
) -> None:
    def joined() -> Iterator[tuple[float, np.ndarray]]:
        for part in range(parts):
            begin, end = round(part * part_s * RATE), round((part + 1) * part_s * RATE)
            for first in range(begin, end, 400):
                surplus = round(overlap_s * RATE) if first + 400 == end else 0
                yield first / RATE, clicks(first, 400 + surplus, 0.5 * RATE)

    off, report = off_by_s(write_sound(tmp_path / "a.mkv", joined()))
    assert len(off) == int(2 * parts * part_s) - (parts * part_s % 0.5 == 0) + (overlap_s > 0.01)
    assert np.abs(off).max() < 0.002
    (note,) = report.notes
    assert f"{parts - 1} overlaps of packets of sound cut (" in note
    assert report.trim_s == pytest.approx((parts - 1) * overlap_s, rel=0.05)


def test_a_hole_of_thirty_milliseconds_is_filled(tmp_path: Path) -> None:
    def with_holes() -> Iterator[tuple[float, np.ndarray]]:
        for number in range(40):
            first = number * 4000
            yield first / RATE, clicks(first, 4000 - 480, 0.5 * RATE)

    off, report = off_by_s(write_sound(tmp_path / "a.mkv", with_holes()))
    assert np.abs(off).max() < 0.002
    assert report.notes == ["39 pauses between packets of sound filled with silence (1.17 s, first at 0.22 s)"]


def joined_streams(tmp_path: Path, *kinds: tuple[int, str]) -> Path:
    """A transport stream whose AAC changes sample rate or layout each second; a tone of 440 Hz throughout."""
    joined = tmp_path / "joined.ts"
    data = b""
    for number, (rate, layout) in enumerate(kinds):
        part = tmp_path / f"{number}.ts"
        times = number + np.arange(rate) / rate
        tone = np.tile(0.3 * np.sin(2 * np.pi * 440 * times).astype(np.float32), (1 if layout == "mono" else 2, 1))
        blocks = ((number + first / rate, tone[:, first : first + 1024]) for first in range(0, rate - 1023, 1024))
        write_sound(part, blocks, codec="aac", fmt="fltp", layout=layout, rate=rate)
        data += part.read_bytes()
    joined.write_bytes(data)
    return joined


def test_a_change_of_rate_or_layout_within_a_stream_loses_nothing(tmp_path: Path) -> None:
    path = joined_streams(tmp_path, (48000, "stereo"), (44100, "stereo"), (44100, "mono"), (22050, "stereo"))
    wave, report = read_audio_and_report(path, RATE)
    assert wave.duration_s == pytest.approx(4.0, abs=0.08)
    assert not report.is_damaged, report.summary
    for at in np.arange(0.2, 3.8, 0.1):
        part = wave.samples[round(at * RATE) : round(at * RATE) + 1600]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 14))
        if np.abs(at + 0.05 - round(at + 0.05)) > 0.15:  # an encoder begins and ends with something else
            assert spectrum.argmax() * RATE / (1 << 14) == pytest.approx(440, abs=2)


def test_every_sample_of_every_rate_is_in_the_result() -> None:
    rates = (48000, 44100, 16000, 8000, 16000)

    def blocks() -> Iterator[Block]:
        for second, rate in enumerate(rates):
            for first in range(0, rate, 1000):
                times = second + np.arange(first, min(first + 1000, rate)) / rate
                tone = np.sin(2 * np.pi * 300 * times).astype(np.float32)
                yield Block(tone, rate, None if first % 3000 else times[0])

    wave, found = place_sound(blocks(), RATE, np.inf, Path("x"), 0.01)
    assert found == {}
    assert wave is not None
    assert len(wave.samples) == 5 * RATE
    expected = np.sin(2 * np.pi * 300 * np.arange(5 * RATE) / RATE)
    inner = np.abs((np.arange(5 * RATE) / RATE + 0.5) % 1 - 0.5) > 0.01
    np.testing.assert_allclose(wave.samples[inner], expected[inner], atol=2e-3)


def test_one_wrong_timestamp_moves_nothing_and_a_jump_that_lasts_is_an_error(tmp_path: Path) -> None:
    def blocks(wrong: range, by_s: float) -> Iterator[Block]:
        for number in range(100):
            at_s = number / 10 + by_s * (number in wrong)
            yield Block(np.full(1600, 0.1, np.float32), RATE, at_s)

    for by_s in (0.5, -0.5, 9000.0, -9000.0):
        wave, found = place_sound(blocks(range(50, 51), by_s), RATE, np.inf, Path("x"), 0.01)
        assert found == {}
        assert wave is not None
        assert len(wave.samples) == 100 * 1600
    for by_s in (9000.0, -9000.0):
        with pytest.raises(RecordingError, match=r"x: sound jumps by -?9000 s"):
            place_sound(blocks(range(50, 100), by_s), RATE, np.inf, Path("x"), 0.01)


def test_pauses_of_a_telephone_are_one_line(tmp_path: Path) -> None:
    """As discontinuous transmission leaves them: a packet of 20 ms in 400, and speech between."""

    def blocks() -> Iterator[tuple[float, np.ndarray]]:
        for number in range(500):
            if number % 100 < 40 or number % 20 == 0:
                yield number * 0.02, clicks(number * 320, 320, 0.5 * RATE)

    off, report = off_by_s(write_sound(tmp_path / "a.mkv", blocks()))
    assert np.abs(off).max() < 0.002
    assert len(report.notes) == 1
    assert report.holes > 10


@pytest.mark.slow
def test_three_hours_of_a_clock_100_ppm_off_end_with_the_picture(tmp_path: Path) -> None:
    seconds, pace = 3 * 3600, 1.0001
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=1)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        voice = container.add_stream("flac", rate=RATE, layout="mono")
        for second in range(0, seconds, 10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), second % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = second, Fraction(1, 1)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        for at_s, samples in paced(seconds, pace, block=4608):
            block = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, round(at_s * 1e6), Fraction(1, 1_000_000)
            container.mux(voice.encode(block))
        container.mux(voice.encode(None))
    off, report = off_by_s(path)
    assert len(off) == pytest.approx(2 * seconds, abs=30)  # a click between two blocks may be lost
    assert np.abs(off).max() < 0.012  # at its end as everywhere
    assert report.drift == pytest.approx(pace - 1, rel=0.05)
    (note,) = report.notes
    assert note == "the clock of the sound is 0.01 % slow (1.08 s in all): resampled"
