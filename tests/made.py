"""Material made by code, for who has nothing but a clone: talking faces with a voice, in the containers people have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path

import av
import numpy as np

from aupipe.demo.corpus import SAMPLE_RATE_HZ, RecordingPlan, plan_corpus, render_frames, synthesise_audio
from aupipe.types import Waveform

FPS = 25
# Suffix -> codec of the pictures, codec of the sound.
CODECS = {
    ".mp4": ("h264", "aac"),
    ".mov": ("hevc", "aac"),
    ".mkv": ("h264", "flac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".avi": ("mpeg4", "pcm_s16le"),
    ".wmv": ("wmv2", "wmav2"),
    ".mpg": ("mpeg1video", "mp2"),
}
OPTIONS = {
    "h264": {"threads": "1", "preset": "veryfast"},
    "hevc": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
TICK = Fraction(1, 12800)  # of stated times: a multiple of the usual frame rates


@lru_cache(maxsize=4)
def recording_plans(seed: int, seconds: float) -> list[RecordingPlan]:
    """Three recordings before they are drawn: one person, another, and two together."""
    return plan_corpus(recordings=3, seconds=seconds, fps=FPS, seed=seed)


@lru_cache(maxsize=16)
def talking(number: int = 0, frames: int = 24, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A drawn person who talks (0 or 1), or two (2): pictures (T, 256, W, 3) uint8 and sound (N,) float32 at 16 kHz."""
    plan = recording_plans(seed, max(frames / FPS, 1.0))[number]
    pictures = np.stack([picture for picture, _ in islice(render_frames(plan), frames)])
    sound = synthesise_audio(plan)[: frames * SAMPLE_RATE_HZ // FPS]
    for array in (pictures, sound):
        array.setflags(write=False)  # everybody gets the same one
    return pictures, sound


def write_media(
    path: Path,
    pictures: np.ndarray | None,
    sound: np.ndarray | None = None,
    *,
    times_s: Sequence[float] | None = None,
    sound_start_s: float = 0.0,
    pixels: str = "yuv420p",
    codec: str = "",
) -> Path:
    """FrameChunk (T, H, W, 3) and sound (N,) at 16 kHz as the file that the suffix says (`CODECS`).

    ``times_s``: of each frame, by default 25 a second. ``sound_start_s``: of the first sample.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    video_codec, audio_codec = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = voice = None
        if pictures is not None:
            video_codec = codec or video_codec
            stream = container.add_stream(video_codec, rate=FPS, options=OPTIONS.get(video_codec, {}))
            stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
            if times_s is not None:
                stream.codec_context.time_base = TICK
        if sound is not None:
            voice = container.add_stream(audio_codec, rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=64_000)
        if stream is not None and pictures is not None:
            for number, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                if times_s is not None:
                    frame.pts, frame.time_base = round(times_s[number] / TICK), TICK
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if voice is not None and sound is not None:
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
            block.sample_rate, block.time_base = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
            block.pts = round(sound_start_s * SAMPLE_RATE_HZ)
            container.mux(voice.encode(block))
            container.mux(voice.encode(None))
    return path


def write_talking(path: Path, number: int = 0, frames: int = 24, *, silent: bool = False, seed: int = 5) -> Path:
    """A file of `talking`: its pictures, and its sound unless ``silent``."""
    pictures, sound = talking(number, frames, seed)
    return write_media(path, pictures, None if silent else sound)


def read_audio(path: Path, sample_rate: int, until_s: float = math.inf) -> Waveform:
    """The sound alone of `read_audio_and_report`."""
    from aupipe.extract.media.audio import read_audio_and_report

    return read_audio_and_report(path, sample_rate, until_s)[0]


def spoken_s(path: Path) -> tuple[float, float]:
    """When speech begins and ends in a file of `talking`, on the file's clock, by the loudness of its sound."""
    wave = read_audio(path, SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(wave.samples) > 0.1 * np.abs(wave.samples).max()) / SAMPLE_RATE_HZ + wave.start_s
    return float(loud[0]) - 0.1, float(loud[-1]) + 0.1  # as much as a detector of speech adds at both ends
