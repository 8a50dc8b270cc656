"""Clicks in real media files land on the frames that show their moment, by every rule and every time-local encoder."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from aupipe.config import EncoderConfig
from aupipe.extract.encoders import build_encoder
from aupipe.extract.encoders.frame_alignment import resample_to_frames
from aupipe.extract.media.video import VideoReader
from tests.made import read_audio

LENGTH_S = 4.0
SOUND_START_S = 0.3  # sample 0 is not time 0
CLICKS_S = (1.0, 1.93, 3.2)
CLICK_S = 0.05  # longer than a frame: what is shorter can fall between two frames, except with "mean"
TICKS = 90000  # per second, what the files count in


def even(rate: Fraction) -> np.ndarray:
    return np.arange(int(LENGTH_S * rate)) / float(rate)


CLOCKS = {
    "23.976": even(Fraction(24000, 1001)),
    "25": even(Fraction(25)),
    "29.97": even(Fraction(30000, 1001)),
    "60": even(Fraction(60)),
    "variable": np.cumsum(np.random.default_rng(0).uniform(0.0137, 0.0417, 140)),  # as in face_then_noface_vfr_hevc.mov
}
TINY = str(Path(__file__).parent / "models" / "tiny-hubert")
TIME_LOCAL = {
    "mfcc": {},
    "logmel": {},
    "egemaps": {},
    "speech": {"model": TINY, "weights": "random", "tap": "extract_features", "normalize": "no"},
}
RULES = [
    {"align": "interpolate"},
    {"align": "nearest"},
    {"align": "mean"},
    {"align": "mean", "align_s": 0.1},
    {"align": "window", "align_rows": 3},
]


def write_clicks(path: Path, clock: np.ndarray, clicks_s: tuple[float, ...] = CLICKS_S) -> Path:
    """A video with frames at these times, and sound that begins late and clicks."""
    samples = np.random.default_rng(0).standard_normal(round((LENGTH_S - SOUND_START_S) * 16000)) * 1e-4
    for click_s in clicks_s:
        at = round((click_s - SOUND_START_S) * 16000)
        half = round(CLICK_S * 8000)
        samples[at - half : at + half] *= 3000
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"threads": "1", "preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, TICKS)
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for k, pts_s in enumerate(clock):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), k % 256, np.uint8), format="rgb24")
            picture.pts, picture.time_base = round(pts_s * TICKS), Fraction(1, TICKS)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for start in range(0, len(pcm), 1600):
            block = av.AudioFrame.from_ndarray(pcm[None, start : start + 1600], format="s16", layout="mono")
            block.sample_rate, block.pts = 16000, start + round(SOUND_START_S * 16000)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_clicks_in_a_file_land_on_their_frames(tmp_path: Path, clock: np.ndarray) -> None:
    path = write_clicks(tmp_path / "clicks.mov", clock)
    pts = VideoReader(path).clock()
    np.testing.assert_allclose(pts, clock, atol=1e-3)  # .mov rounds its beginning to milliseconds
    wave = read_audio(path, 16000)
    assert wave.start_s == pytest.approx(SOUND_START_S, abs=1e-3)
    quiet = read_audio(write_clicks(tmp_path / "quiet.mov", clock, ()), 16000)
    for kind, params in TIME_LOCAL.items():
        encoder = build_encoder(EncoderConfig("x", kind, "audio", params))
        encode = encoder.load("cpu")
        series = encode(wave)
        if kind == "speech":  # its layer norms take loudness out: what the clicks changed is all there is to see
            series = replace(series, data=series.data - encode(quiet).data)
        if kind == "egemaps":
            series = replace(series, data=series.data[:, :1])  # loudness; formants of noise jump about
        for rule in RULES:
            encoder = build_encoder(EncoderConfig("x", kind, "audio", params | rule))
            rows = resample_to_frames(series, pts, encoder).reshape(len(pts), -1)
            silent = np.isnan(rows[:, 0])
            assert silent[pts < SOUND_START_S - 0.06 - encoder.align_s].all()
            # How far each frame is from what silence sounds like; a click is in the middle of what stands out.
            strange = np.nan_to_num(np.linalg.norm(rows - np.nanmedian(rows, axis=0), axis=1))
            for click_s in CLICKS_S:
                near = np.where(np.abs(pts - click_s) < 0.35, strange, 0)
                near[near < near.max() / 2] = 0
                found = float((pts * near).sum() / near.sum())
                frame, expected = (int(np.argmin(np.abs(pts - when))) for when in (found, click_s))
                assert abs(frame - expected) <= 1, (kind, rule, click_s, found)
