"""Sound: the first audio stream of a media file as a mono `Waveform` on the video's clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.container import StreamFrames, open_media
from aupipe.extract.decode import REORDER_S
from aupipe.types import Waveform

log = logging.getLogger(__name__)

MAX_HOLE_S = 3600.0  # a longer one is a broken clock, and would be a great deal of silence
GAP_S = 0.05  # a jump between audio timestamps longer than this is a hole in the recording

# What one step of an integer sample format is worth, and its midpoint.
INTEGER_FORMATS = {"u8": (128.0, 128.0), "s16": (32768.0, 0.0), "s32": (2147483648.0, 0.0)}


class NoAudioError(RecordingError):
    """A video without any audio stream, which is no fault of the video."""


def read_audio(path: Path, sample_rate: int) -> Waveform:
    """Decode, mix to mono and resample.

    Channels are averaged and resampled by soxr HQ, which is what librosa.load does; FFmpeg's own down-mix is 1.41 times
    louder (specs/stages.md, section 2). ``start_s`` is the container's time of the first sample, so sound and frames
    share one clock. Where the stream has a hole, silence keeps later sound at its time, and a warning says so.
    Raises NoAudioError ``no audio stream``, and RecordingError when nothing can be decoded.
    """
    blocks: list[NDArray[np.float32]] = []
    start_s: float | None = None
    native_rate = 0
    written = 0  # native samples handed to the resampler
    resampler: Any = None
    for block, rate, time_s in _blocks(path):
        if start_s is None:
            start_s, native_rate = time_s or 0.0, rate
            resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32") if rate != sample_rate else None
        if rate != native_rate:
            raise RecordingError(f"{path}: the sample rate changes from {native_rate} to {rate} Hz mid-stream")
        if time_s is not None:
            hole_s = time_s - (start_s + written / native_rate)
            if not -REORDER_S < hole_s < MAX_HOLE_S:
                raise RecordingError(
                    f"{path}: sound jumps by {hole_s:.0f} s at {time_s:.2f} s; several files joined into one? Remux it"
                )
            if hole_s > GAP_S:
                log.warning("%s: %.2f s without sound at %.2f s, filled with silence", path, hole_s, time_s - hole_s)
                block = np.concatenate([np.zeros(round(hole_s * native_rate), dtype=np.float32), block])
        written += len(block)
        blocks.append(resampler.resample_chunk(block) if resampler else block)
    if start_s is None:
        raise RecordingError(f"{path}: the audio stream holds no sound that can be decoded")
    if resampler:
        blocks.append(resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    return Waveform(np.concatenate(blocks), sample_rate, start_s)


def media_starts(path: Path) -> tuple[float, float]:
    """When a player begins and when the first sound is heard, in seconds on the container's clock.

    A player begins with the earliest stream. Where there is no sound, both are that. Raises RecordingError.
    """
    with open_media(path) as container:
        player_s = (container.start_time or 0) / 1e6
        has_sound = bool(container.streams.audio)
    first = next(_blocks(path), None) if has_sound else None
    return player_s, player_s if first is None or first[2] is None else first[2]


def _blocks(path: Path) -> Iterator[tuple[NDArray[np.float32], int, float | None]]:
    """Mono float32 blocks of the first audio stream, their sample rate and their time."""
    with open_media(path) as container:
        if not container.streams.audio:
            raise NoAudioError(f"{path}: no audio stream (--on-missing-audio mask gives it invalid rows instead)")
        stream = container.streams.audio[0]
        frames = StreamFrames(container, stream)
        for frame in frames:
            yield _mono(frame), frame.sample_rate, frame.time
        if frames.damaged:
            log.warning("%s: %d damaged audio packets skipped", path, frames.damaged)


def _mono(frame: Any) -> NDArray[np.float32]:
    """(N,) float32 in [-1, 1]: the mean over channels of one decoded frame."""
    samples = frame.to_ndarray()
    name = frame.format.name.removesuffix("p")
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T  # (1, N*C) -> (C, N)
    if name in INTEGER_FORMATS:
        scale, middle = INTEGER_FORMATS[name]
        samples = (samples.astype(np.float32) - np.float32(middle)) / np.float32(scale)
    mono = samples.astype(np.float32).mean(axis=0, dtype=np.float32)
    return np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0) if not np.isfinite(mono).all() else mono
