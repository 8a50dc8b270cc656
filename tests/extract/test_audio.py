"""Sound is what librosa reads, on the video's clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.config import EncoderConfig
from aupipe.errors import RecordingError
from aupipe.extract.encoders import build_encoder
from aupipe.extract.encoders.frame_alignment import resample_to_frames
from aupipe.extract.media.audio import media_starts, read_audio_and_report
from aupipe.extract.media.video import VideoReader
from tests.conftest import write_video
from tests.made import read_audio, talking, write_media


@pytest.mark.assets
def test_sound_starts_where_the_container_says(assets: Path) -> None:
    stated = {
        "face_then_noface_vfr_hevc.mov": (2.430, 3.97),
        "hamilton_lowlight_multiface_speech.mp4": (0.008, 10.01),
        "derived_face_leaves_and_returns.avi": (0.0, 13.06),
        "derived_hamilton_wmv2.wmv": (0.092, 9.98),
    }
    waves = {name: read_audio(assets / "videos" / name, 16000) for name in stated}
    starts = {name: wave.start_s for name, wave in waves.items()}
    assert starts == pytest.approx({name: start_s for name, (start_s, _) in stated.items()}, abs=2e-3)
    durations = {name: wave.duration_s for name, wave in waves.items()}
    assert durations == pytest.approx({name: duration_s for name, (_, duration_s) in stated.items()}, abs=0.02)


# Suffix -> how far the first sample stands from where the encoder was given it: codecs begin with samples of their own.
EARLY_S = {".mov": 1024 / 16000, ".mkv": 0.0, ".webm": 0.0, ".mp4": 1024 / 16000}


@pytest.mark.parametrize("suffix", EARLY_S)
@pytest.mark.parametrize("start_s", [0.0, 0.4])
def test_made_sound_starts_where_the_container_says(tmp_path: Path, suffix: str, start_s: float) -> None:
    pictures, _ = talking(frames=16)
    sound = (0.2 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    path = write_media(tmp_path / f"a{suffix}", pictures, sound, sound_start_s=start_s)
    waveform = read_audio(path, 16000)
    early_s = EARLY_S[suffix] if start_s else 0.0  # at 0 a player leaves them away
    assert waveform.start_s == pytest.approx(start_s - early_s, abs=2e-3)
    assert waveform.start_s + waveform.duration_s == pytest.approx(start_s + 0.5, abs=0.07)
    assert waveform.samples.dtype == np.float32
    heard = np.abs(np.correlate(waveform.samples, sound[4000:5000], "valid"))
    assert waveform.start_s + heard.argmax() / 16000 == pytest.approx(start_s + 0.25, abs=3e-3)


def test_mixing_and_resampling_equal_librosa(tmp_path: Path) -> None:
    import librosa
    import soundfile

    rng = np.random.default_rng(0)
    stereo = (rng.standard_normal((44100, 2)) * 0.1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 44100, subtype="PCM_16")
    expected, _ = librosa.load(tmp_path / "a.wav", sr=16000, mono=True)
    found = read_audio(tmp_path / "a.wav", 16000)
    assert len(found.samples) == pytest.approx(len(expected), abs=1)
    n = min(len(expected), len(found.samples))
    np.testing.assert_allclose(found.samples[:n], expected[:n], atol=3e-5)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_gives_the_same_sound(tmp_path: Path, subtype: str) -> None:
    import soundfile

    tone = (0.5 * np.sin(np.arange(8000) * 0.05)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, -tone / 2], axis=1), 16000, subtype=subtype)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 16000).samples, tone / 4, atol=0.01)


def test_a_video_without_sound_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no audio stream"):
        read_audio(write_video(tmp_path / "a.mp4"), 16000)


def test_a_hole_in_the_stream_keeps_later_sound_at_its_time(tmp_path: Path) -> None:
    import av

    path = tmp_path / "hole.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for k in range(20):
            loud = np.full((1, 1600), 8000 if k >= 10 else 0, np.int16)
            frame = av.AudioFrame.from_ndarray(loud, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, k * 1600 + (16000 if k >= 10 else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    waveform = read_audio(path, 16000)
    first_loud_s = waveform.start_s + np.argmax(waveform.samples > 0.1) / 16000
    assert first_loud_s == pytest.approx(2.0, abs=0.01)
    _, report = read_audio_and_report(path, 16000)
    assert (report.holes, report.is_damaged) == (1, False)
    assert "1 pause between packets of sound filled with silence" in report.notes[0]


@pytest.mark.assets
def test_frames_without_sound_are_invalid_and_all_others_are_not(assets: Path) -> None:
    for name, first_s, last_s in (
        ("face_then_noface_vfr_hevc.mov", 2.43, 6.40),  # sound begins long after the picture
        ("hamilton_lowlight_multiface_speech.mp4", 0.008, 10.02),  # and long before it
        ("derived_face_leaves_and_returns.avi", 0.0, 13.06),  # and ends before it
    ):
        assert_heard(assets / "videos" / name, first_s, last_s)


@pytest.mark.parametrize(("first_s", "last_s"), [(0.4, 0.8), (0.0, 0.5), (0.5, 1.3)])
def test_made_frames_without_sound_are_invalid_and_all_others_are_not(
    tmp_path: Path, first_s: float, last_s: float
) -> None:
    pictures, sound = talking()
    part = np.resize(sound, round((last_s - first_s) * 16000))
    assert_heard(write_media(tmp_path / "a.mkv", pictures, part, sound_start_s=first_s), first_s, last_s)


def assert_heard(video: Path, first_s: float, last_s: float) -> None:
    clock = VideoReader(video).clock()
    encoder = build_encoder(EncoderConfig("x", "logmel", "audio"))
    rows = resample_to_frames(encoder.load("cpu")(read_audio(video, 16000)), clock, encoder)
    heard = ~np.isnan(rows[:, 0])
    sure = (np.abs(clock - first_s) > 0.03) & (np.abs(clock - last_s) > 0.03)
    np.testing.assert_array_equal(heard[sure], ((clock > first_s) & (clock < last_s))[sure], err_msg=video.name)
    assert heard.any()


def test_a_made_video_says_when_a_player_begins_and_when_it_is_first_heard(tmp_path: Path) -> None:
    pictures, sound = talking()
    times_s = 0.2 + np.arange(24) / 25
    late = write_media(tmp_path / "late.mkv", pictures, sound, times_s=times_s, sound_start_s=0.4)
    early = write_media(tmp_path / "early.mkv", pictures, sound, times_s=times_s, sound_start_s=0.04)
    silent = write_media(tmp_path / "silent.mkv", pictures, times_s=times_s)
    for path, expected in ((late, (0.2, 0.4)), (early, (0.04, 0.04)), (silent, (0.2, 0.2))):
        assert media_starts(path) == pytest.approx(expected, abs=1e-3), path.name


@pytest.mark.assets
def test_a_video_says_when_a_player_begins_and_when_it_is_first_heard(assets: Path) -> None:
    starts = {
        "face_then_noface_vfr_hevc.mov": (0.0, 2.43),
        "hamilton_lowlight_multiface_speech.mp4": (0.008, 0.008),
        "asl_again_no_audio.mkv": (0.033, 0.033),
    }
    for name, expected in starts.items():
        assert media_starts(assets / "videos" / name) == pytest.approx(expected, abs=1e-3), name
