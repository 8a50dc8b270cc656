"""Sound and streams of the files that people report, each as its README says; the chirp tells which moment is heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.config import EncoderConfig
from aupipe.extract.encoders import build_encoder
from aupipe.extract.encoders.frame_alignment import resample_to_frames
from aupipe.extract.media.audio import read_audio_and_report
from aupipe.extract.media.report import MediaReport
from aupipe.extract.media.video import VideoReader
from aupipe.types import AS_PLAYED, StreamChoice, Waveform

RATE = 16000
CHIRP_HZ = (500.0, 3500.0)

pytestmark = pytest.mark.assets


def read(path: Path, streams: StreamChoice = AS_PLAYED) -> tuple[Waveform, MediaReport, np.ndarray]:
    """Sound, what is said of it, and the times of the pictures."""
    reader = VideoReader(path, stream=streams.video)
    clock = reader.clock()
    assert not reader.report.is_damaged, reader.report.summary
    wave, report = read_audio_and_report(path, RATE, float(clock[-1]) + 60.0, streams)
    assert not report.is_damaged, report.summary
    return wave, report, clock


def heard_s(wave: Waveform, at_s: float, chirp_s: float) -> float:
    """Which moment of a chirp of ``chirp_s`` is heard at ``at_s``."""
    first = round((at_s - 0.05 - wave.start_s) * RATE)
    part = wave.samples[first : first + RATE // 10] * np.hanning(RATE // 10)
    peak_hz = np.abs(np.fft.rfft(part, 1 << 17)).argmax() * RATE / (1 << 17)
    low, high = CHIRP_HZ
    return (peak_hz - low) / (high - low) * chirp_s


def test_twelve_joined_parts_stay_in_sync_to_the_end(assets: Path) -> None:
    wave, report, clock = read(assets / "reported" / "joined12_concat_copy_aac.mp4")
    for at_s in np.arange(0.1, 11.4, 0.24):
        assert heard_s(wave, at_s, 12.0) == pytest.approx(at_s - clock[0], abs=0.006)
    assert report.notes == ["11 overlaps of packets of sound cut (0.23 s, first at 0.98 s)"]


def test_sixty_joined_parts_have_rows_of_sound_to_the_end(assets: Path) -> None:
    wave, report, clock = read(assets / "reported" / "joined60_concat_copy_aac.mp4")
    for part in range(60):
        at_s = clock[0] + 0.4 * part + 0.2
        assert heard_s(wave, at_s, 12.0) == pytest.approx(0.2, abs=0.0125)  # each part is the beginning of the chirp
    assert len(report.notes) == 1
    encoder = build_encoder(EncoderConfig("x", "mfcc", "audio"))
    rows = resample_to_frames(encoder.load("cpu")(wave), clock, encoder)
    assert len(rows) == 600
    assert not np.isnan(rows).any()


def test_both_halves_of_a_stream_that_changes_its_sample_rate_are_heard_in_sync(assets: Path) -> None:
    wave, _, clock = read(assets / "reported" / "sample_rate_changes_48_to_44k.ts")
    assert len(clock) == 50
    for at_s in np.arange(0.2, 1.85, 0.1):
        moment_s = at_s - 0.08 if at_s < 1.02 else at_s  # the second half's pictures begin 80 ms early too
        if abs(at_s - 1.04) > 0.1:
            assert heard_s(wave, at_s, 2.0) == pytest.approx(moment_s, abs=0.006)


def test_sound_that_is_out_of_phase_is_said_and_one_channel_is_the_chirp(assets: Path) -> None:
    path = assets / "reported" / "stereo_out_of_phase.mov"
    _, report, _ = read(path)
    assert len(report.notes) == 1
    assert "out of phase" in report.notes[0]
    wave, report, _ = read(path, StreamChoice(channels="left"))
    assert heard_s(wave, 1.0, 2.0) == pytest.approx(1.0, abs=0.006)
    assert report.notes == []


def test_sound_that_is_longer_than_the_picture_is_no_truncation(assets: Path) -> None:
    _, report, clock = read(assets / "reported" / "mkv_sound_longer_than_video.mkv")
    assert len(clock) == 12
    assert report.notes == []


def test_the_second_sound_track_is_read_where_it_is_the_default(assets: Path) -> None:
    path = assets / "reported" / "unclear" / "a2_default.mkv"
    wave, report, clock = read(path)
    assert report.notes == ["2 streams, number 1 is read; [dataset] video_stream and audio_stream pick another"]
    assert heard_s(wave, 1.0, 2.0) == pytest.approx(1.0 - clock[0], abs=0.006)
    _, report, _ = read(path, StreamChoice(audio=0))
    assert report.notes[1:] == ["the sound is silent throughout"]


def test_a_thumbnail_before_the_film_is_not_the_film(assets: Path) -> None:
    wave, _, clock = read(assets / "reported" / "unclear" / "thumb_first.mov")
    assert len(clock) == 50
    assert heard_s(wave, 1.0, 2.0) == pytest.approx(1.0, abs=0.006)


def test_pauses_of_opus_are_one_line(assets: Path) -> None:
    _, report, clock = read(assets / "reported" / "unclear" / "dtx.mkv")
    assert len(clock) == 300
    assert report.notes == ["15 pauses between packets of sound filled with silence (6.00 s, first at 0.39 s)"]


def test_holes_of_an_hour_end_with_the_picture(assets: Path) -> None:
    wave, _, clock = read(assets / "reported" / "damaged" / "holes8.mkv")
    assert wave.start_s + wave.duration_s == pytest.approx(clock[-1] + 60.0, abs=0.001)


def test_eight_channels_are_heard(assets: Path) -> None:
    wave, report, _ = read(assets / "reported" / "damaged" / "surround_71_aac.mp4")
    assert wave.duration_s > 1.0
    assert report.notes == []


@pytest.mark.parametrize(
    ("name", "late_s"),
    [
        ("mpeg4_avi_empty_chunks.avi", 0.0),
        ("ts_pts_wraps.ts", -1.018),
        ("vfr_bframes.mp4", 0.0),
        ("vp8_size_changes_twice.webm", 0.0),
        ("elst_video_starts_1s_late.mp4", 0.0),
    ],
)
def test_what_was_right_stays_in_sync(assets: Path, name: str, late_s: float) -> None:
    wave, report, _ = read(assets / "reported" / "right" / name)
    for moment_s in np.arange(0.2, 1.8, 0.2):
        assert heard_s(wave, moment_s + late_s, 2.0) == pytest.approx(moment_s, abs=0.006)
    assert report.notes == []
