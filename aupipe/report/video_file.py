"""Writing an mp4 (H.264, AAC) whose k-th frame is row k of the store, at the recording's own times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.media.audio import NoAudioError, read_audio_and_report
from aupipe.extract.media.long_arrays import cut
from aupipe.report.drawing import Picture
from aupipe.types import Recording, Waveform

TIME_BASE = Fraction(1, 90_000)
APART_S = 1e-4  # of two frames, at least: a browser counts microseconds
SOUND_HZ = 48_000
SOUND_BLOCK = 1024  # samples of a frame of AAC


def write_mp4(
    path: Path,
    frames: Iterable[tuple[float, Picture]],
    sound: Waveform | None,
    start_s: float,
    options: Mapping[str, str],
) -> int:
    """Write pictures (H, W, 3) with even sides, each with its time in seconds; returns how many there were.

    The file's own time 0 is ``start_s``. Sound before it is left out, and is silent where there is none: a player then
    needs no edit list. A picture of another size than the first is scaled to that. Frames and sound depend on the
    arguments alone, so do the bytes. ``options`` are those of x264.
    """
    count = 0
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        video = container.add_stream("h264", options={"preset": "veryfast", "threads": "1", **options})
        video.pix_fmt, video.time_base = "yuv420p", TIME_BASE
        video.codec_context.time_base = TIME_BASE
        audio = container.add_stream("aac", rate=SOUND_HZ, layout="mono") if sound is not None else None
        last, heard = -1, 0  # the time of the last picture; samples written
        for time_s, picture in frames:
            if not count:
                video.height, video.width = picture.shape[:2]
            elif picture.shape[:2] != (video.height, video.width):
                picture = np.asarray(cv2.resize(picture, (video.width, video.height)), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            last = max(round((time_s - start_s) / TIME_BASE), last + 1)  # mp4 has one frame at a time
            frame.pts, frame.time_base = last, TIME_BASE
            container.mux(video.encode(frame))
            if sound is not None and audio is not None:
                heard = _encode_sound(container, audio, sound, start_s, heard, time_s)
            count += 1
        container.mux(video.encode(None))
        if sound is not None and audio is not None:
            _encode_sound(container, audio, sound, start_s, heard, np.inf)
            container.mux(audio.encode(None))
    return count


def even(picture: Picture, scale: float) -> Picture:
    """A picture enlarged so much, with even sides, as H.264 with halved colour needs them."""
    size = tuple(max(2, round(side * scale / 2) * 2) for side in picture.shape[1::-1])
    if size == picture.shape[1::-1]:
        return picture
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=kind), np.uint8)


def read_sound(recording: Recording) -> Waveform | None:
    """The sound of a recording's video, mono; None where it has none that can be decoded."""
    if recording.video is None:
        return None
    try:
        return read_audio_and_report(recording.video, SOUND_HZ, streams=recording.streams)[0]
    except (NoAudioError, RecordingError):
        return None


def rising(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times (T,) in which every frame has one of its own: of frames at one time each is `APART_S` after the other."""
    if (np.diff(times_s) >= APART_S / 2).all():
        return times_s
    apart = np.arange(len(times_s)) * APART_S
    return np.asarray(np.maximum.accumulate(times_s - apart) + apart, np.float64)


def _encode_sound(
    container: av.container.OutputContainer,
    stream: av.AudioStream,
    sound: Waveform,
    start_s: float,
    first: int,
    until_s: float,
) -> int:
    """Write the blocks from sample ``first`` of the file on that begin by ``until_s``; returns the sample that is next.

    Sound lies beside its pictures in the file: a player reads the file once, from its beginning.
    """
    begin = round((sound.start_s - start_s) * SOUND_HZ)
    while first < begin + len(sound.samples) and start_s + first / SOUND_HZ <= until_s:
        block = cut(sound.samples, first - begin, first - begin + SOUND_BLOCK)
        frame = av.AudioFrame.from_ndarray(block[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, first, Fraction(1, SOUND_HZ)
        container.mux(stream.encode(frame))
        first += SOUND_BLOCK
    return first
