"""Sound: the first audio stream of a media file as a mono `Waveform` on the video's clock."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.limits import MAX_HOLE_S, MAX_SOUND_S
from aupipe.extract.media.clock import REORDER_S
from aupipe.extract.media.container import ErrorLog, StreamFrames, open_media
from aupipe.extract.media.long_arrays import ArrayBuilder
from aupipe.extract.media.report import MediaReport, report_on
from aupipe.types import Waveform

PLANES = 8  # plane pointers of an AVFrame
SILENCE_BLOCK = 1 << 18  # samples of a hole made at a time
GAP_S = 0.05  # a jump between audio timestamps longer than this is a hole in the recording

# What one step of an integer sample format is worth, and its midpoint.
INTEGER_FORMATS = {"u8": (128.0, 128.0), "s16": (32768.0, 0.0), "s32": (2147483648.0, 0.0)}


class NoAudioError(RecordingError):
    """A video without any audio stream, which is no fault of the video."""


def read_audio_and_report(path: Path, sample_rate: int, until_s: float = math.inf) -> tuple[Waveform, MediaReport]:
    """Decode, mix to mono and resample; at most until ``until_s`` on the container's clock.

    Channels are averaged and resampled by soxr HQ, which is what librosa.load does; FFmpeg's own down-mix is 1.41 times
    louder. ``start_s`` is the container's time of the first sample, so sound and frames share one clock. Where the
    stream has a hole, silence keeps later sound at its time, and the report says so. Memory is bounded: long sound is a
    read-only memory map of a temporary file.
    Raises NoAudioError ``no audio stream``, and RecordingError when nothing can be decoded, for a jump of more than an
    hour and for more than `MAX_SOUND_S` of sound.
    """
    samples = ArrayBuilder()
    start_s: float | None = None
    resampler: Any = None
    findings = _Findings()
    with closing(_continuous(path, until_s, findings)) as blocks:
        for block, rate, time_s in blocks:
            if start_s is None:
                start_s = time_s
                resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32") if rate != sample_rate else None
            samples.append(resampler.resample_chunk(block) if resampler else block)
    if start_s is None:
        raise RecordingError(f"{path}: the audio stream holds no sound that can be decoded")
    if resampler:
        samples.append(resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    return Waveform(samples.array(), sample_rate, start_s), findings.report()


def media_starts(path: Path) -> tuple[float, float]:
    """When a player begins and when the first sound is heard, in seconds on the container's clock.

    A player begins with the earliest stream. Where there is no sound, both are that. Raises RecordingError.
    """
    with open_media(path) as container:
        player_s = (container.start_time or 0) / 1e6
        has_sound = bool(container.streams.audio)
    first = next(_blocks(path, _Findings()), None) if has_sound else None
    return player_s, player_s if first is None or first[2] is None else first[2]


@dataclass
class _Findings:
    """What there is to say of how sound was read."""

    decoded: MediaReport = field(default_factory=MediaReport)
    holes: list[tuple[float, float]] = field(default_factory=list)  # where, how long; seconds

    def report(self) -> MediaReport:
        if not self.holes:
            return self.decoded
        hole_s = sum(length_s for _, length_s in self.holes)
        return replace(self.decoded, holes=len(self.holes), hole_s=hole_s, first_hole_s=self.holes[0][0])


def _continuous(path: Path, until_s: float, findings: _Findings) -> Generator[tuple[NDArray[np.float32], int, float]]:
    """Mono float32 blocks without holes, their sample rate, and the time of the first sample of all.

    What comes after ``until_s`` is not decoded, and the silence of a hole is never one array.
    """
    start_s: float | None = None
    native_rate = written = 0
    limit = math.inf  # samples
    with closing(_blocks(path, findings)) as blocks:
        for block, rate, time_s in blocks:
            if start_s is None:
                start_s, native_rate = time_s or 0.0, rate
                limit = max(0.0, (until_s - start_s) * rate)
            if rate != native_rate:
                raise RecordingError(f"{path}: the sample rate changes from {native_rate} to {rate} Hz mid-stream")
            if time_s is not None:
                at_s = start_s + written / native_rate
                hole_s = min(time_s, max(until_s, start_s)) - at_s
                if not -REORDER_S < hole_s < MAX_HOLE_S:
                    raise RecordingError(
                        f"{path}: sound jumps by {hole_s:.0f} s at {time_s:.2f} s; several files joined into one? "
                        "Remux it"
                    )
                if hole_s > GAP_S:
                    findings.holes.append((at_s, hole_s))
                    hole = round(hole_s * native_rate)
                    for first in range(0, hole, SILENCE_BLOCK):
                        yield np.zeros(min(SILENCE_BLOCK, hole - first), np.float32), rate, start_s
                    written += hole
            if written + len(block) >= limit:
                yield block[: max(0, math.ceil(limit) - written)], rate, start_s
                return
            written += len(block)
            if written > MAX_SOUND_S * native_rate:
                raise RecordingError(
                    f"{path}: more than {MAX_SOUND_S / 3600:.0f} h of sound; cut it into shorter recordings"
                )
            yield block, rate, start_s


def _blocks(path: Path, findings: _Findings) -> Generator[tuple[NDArray[np.float32], int, float | None]]:
    """Mono float32 blocks of the first audio stream, their sample rate and their time."""
    errors = ErrorLog()
    with open_media(path, log=errors) as container:
        if not container.streams.audio:
            raise NoAudioError(
                f"{path}: no audio stream (--on-missing-audio mask --retry-failed gives it invalid rows)"
            )
        stream = container.streams.audio[0]
        frames, to_end = StreamFrames(container, stream, errors), False
        interleave = _Interleaver(path)
        try:
            for frame in frames:
                time_s = frame.time
                for part in interleave(frame):
                    yield _mono(part), frame.sample_rate, time_s
                    time_s = None  # what is left of the frame follows at once
            to_end = True
        finally:  # the sound after the picture's end is not read
            findings.decoded = report_on(frames, path, to_end=to_end)


class _Interleaver:
    """Gives frames whose planes PyAV can count: 8 or more planar channels are interleaved, the rest is left alone.

    PyAV 18 counts the planes of a frame until it meets a null pointer. There is none after the eighth plane, and it
    reads on into foreign memory, which ends the process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kind: tuple[Any, ...] = ()
        self._resampler: Any = None

    def __call__(self, frame: Any) -> list[Any]:
        channels = frame.layout.nb_channels
        if not frame.format.is_planar or channels < PLANES:
            return [frame]
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        try:
            if kind != self._kind:  # a resampler takes frames of one kind only
                self._kind, self._resampler = kind, av.AudioResampler(format=frame.format.packed.name)
            return list(self._resampler.resample(frame))
        except (av.FFmpegError, ValueError) as error:
            raise RecordingError(f"{self._path}: {channels} channels of sound cannot be mixed: {error}") from error


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
