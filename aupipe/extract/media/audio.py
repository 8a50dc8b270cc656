"""Sound: one audio stream of a media file as a mono `Waveform` on the video's clock."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.media.container import ErrorLog, StreamFrames, open_media, sniff
from aupipe.extract.media.report import MediaReport, joined, report_on
from aupipe.extract.media.sound_levels import Levels
from aupipe.extract.media.sound_placement import Block, place_sound
from aupipe.extract.media.streams import pick_stream
from aupipe.extract.media.ts_parts import WHOLE, Part, parts_of
from aupipe.types import AS_PLAYED, StreamChoice, Waveform

# By how far sound may stand beside its timestamps. AVI has none: its reader counts bytes, at a rate that the writer may
# have guessed.
TOLERANCE_S, COUNTED_TOLERANCE_S = 0.01, 0.05
PLANES = 8  # plane pointers of an AVFrame

UNNAMED = {"NONE", "UNSD", "UNK"}  # what FFmpeg calls channels of which a file says no more than how many there are

# What one step of an integer sample format is worth, and its midpoint.
INTEGER_FORMATS = {"u8": (128.0, 128.0), "s16": (32768.0, 0.0), "s32": (2147483648.0, 0.0)}


class NoAudioError(RecordingError):
    """A video without any audio stream, which is no fault of the video."""


def read_audio_and_report(
    path: Path, sample_rate: int, until_s: float = math.inf, streams: StreamChoice = AS_PLAYED
) -> tuple[Waveform, MediaReport]:
    """Decode, mix to mono and resample; at most until ``until_s`` on the container's clock.

    ``streams``: which audio stream is read, and which of its channels. Channels are averaged and resampled by soxr HQ,
    which is what librosa.load does; FFmpeg's own down-mix is 1.41 times louder. ``start_s`` is the container's time of
    the first sample, so sound and frames share one clock. Sound stands where the timestamps of its packets say
    (`place_sound`), and the report says what was filled, cut or resampled for that. Memory is bounded: long sound is a
    read-only memory map of a temporary file.
    Raises NoAudioError ``no audio stream``, RecordingError when nothing can be decoded, and what `place_sound` raises.
    """
    sound = _DecodedSound(path, streams)
    tolerance_s = COUNTED_TOLERANCE_S if sniff(path) == "avi" else TOLERANCE_S
    with closing(sound.blocks()) as blocks:
        waveform, placement = place_sound(blocks, sample_rate, until_s, path, tolerance_s)
    if waveform is None:
        raise RecordingError(f"{path}: the audio stream holds no sound that can be decoded")
    return waveform, replace(sound.report, **placement, **sound.levels.found())


def media_starts(path: Path, streams: StreamChoice = AS_PLAYED) -> tuple[float, float]:
    """When a player begins and when the first sound is heard, in seconds on the container's clock.

    A player begins with the earliest stream. Where there is no sound, both are that. Raises RecordingError.
    """
    with open_media(path, part=parts_of(path, sniff(path), "audio")[0]) as container:
        player_s = (container.start_time or 0) / 1e6
        has_sound = bool(container.streams.audio)
    first = next(_DecodedSound(path, streams).blocks(), None) if has_sound else None
    return player_s, player_s if first is None or first.time_s is None else first.time_s


class _DecodedSound:
    """The sound of one stream as it is decoded. ``report`` and ``levels`` are of what `blocks` has given."""

    def __init__(self, path: Path, streams: StreamChoice) -> None:
        self.report = MediaReport()
        self.levels = Levels()
        self._path, self._streams = path, streams
        self._channels: dict[str, int | None] = {}  # layout -> the channel that is read, None for the mean of all

    def blocks(self) -> Generator[Block]:
        """Mono blocks in the order of the file."""
        reports: list[MediaReport] = []
        try:
            for part in parts_of(self._path, sniff(self._path), "audio"):
                yield from self._blocks_of(part, reports)
        finally:
            self.report = joined(reports)
        if not reports:
            raise NoAudioError(
                f"{self._path}: no audio stream (--on-missing-audio mask --retry-failed gives it invalid rows)"
            )

    def _blocks_of(self, part: Part, reports: list[MediaReport]) -> Generator[Block]:
        """The blocks of a part of the file, and then a report on it, unless it has no sound."""
        errors = ErrorLog()
        with open_media(self._path, log=errors, part=part) as container:
            stream = pick_stream(container, self._path, "audio", self._streams.audio)
            if stream is None:
                return
            frames, to_end, end_s = StreamFrames(container, stream, errors), False, -math.inf
            interleave = _Interleaver(self._path)
            try:
                for frame in frames:
                    time_s = frame.time
                    if time_s is not None:
                        end_s = time_s + frame.samples / frame.sample_rate
                    for same in interleave(frame):
                        yield Block(self._mono(same), frame.sample_rate, time_s)
                        time_s = None  # what is left of the frame follows at once
                to_end = True
            finally:  # the sound after the picture's end is not read
                report = report_on(frames, self._path, to_end=to_end, decoded_to_s=end_s)
                reports.append(report if part is WHOLE else replace(report, codecs=stream.codec_context.name))

    def _mono(self, frame: Any) -> NDArray[np.float32]:
        """(N,) float32 in [-1, 1]: the mean over the channels of a frame, or one of them."""
        channels = _channels(frame)
        layout = frame.layout.name
        if layout not in self._channels:
            self._channels[layout] = self._wanted_channel(frame)
        wanted = self._channels[layout]
        if wanted is None:
            mono = np.add.reduce(channels, axis=0) / np.float32(len(channels))  # as `mean`, in half the time
        else:
            channels = channels[wanted : wanted + 1]  # what is said of the sound is said of this one
            mono = np.ascontiguousarray(channels[0])
        if len(mono) and not self.levels.add(channels, mono):
            mono = np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0)
        return mono

    def _wanted_channel(self, frame: Any) -> int | None:
        wanted = self._streams.channels
        if wanted == "mix":
            return None
        names = [channel.name for channel in frame.layout.channels]
        if wanted == "first" or len(names) == 1:
            return 0
        if set(names) <= UNNAMED:
            names[:2] = ["FL", "FR"]  # in this order everywhere
        name = {"left": "FL", "right": "FR"}[wanted]
        if name not in names:
            raise RecordingError(
                f"{self._path}: [dataset] audio_channels is {wanted!r}, and its sound has none called so: "
                f"{', '.join(names)}"
            )
        return names.index(name)


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


def _channels(frame: Any) -> NDArray[np.float32]:
    """(C, N) float32 in [-1, 1]: the samples of one decoded frame."""
    samples = frame.to_ndarray()
    name = frame.format.name.removesuffix("p")
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T  # (1, N*C) -> (C, N)
    if name in INTEGER_FORMATS:
        scale, middle = INTEGER_FORMATS[name]
        samples = (samples.astype(np.float32) - np.float32(middle)) / np.float32(scale)
    return samples.astype(np.float32, copy=False)
