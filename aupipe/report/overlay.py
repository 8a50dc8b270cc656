"""A video of a recording with its boxes drawn in, frame k of it row k of the store, at the recording's own times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from aupipe.errors import RecordingError, UsageError
from aupipe.extract.media.audio import NoAudioError, read_audio_and_report
from aupipe.files import PRIVATE, refuse_existing, staged_file
from aupipe.report.drawing import Faces, Picture, draw_row
from aupipe.report.faces import RecordingFaces
from aupipe.report.frames import pictures
from aupipe.types import Recording, Waveform

TIME_BASE = Fraction(1, 90_000)
SOUND_HZ = 48_000
SOUND_BLOCK = 1024  # samples of a frame of AAC


def write_overlay(
    recording: Recording,
    stored: RecordingFaces,
    path: Path,
    faces: Faces = "show",
    height: int = 0,
    overwrite: bool = False,
) -> int:
    """Write an mp4 (H.264, AAC) whose k-th frame is row k; returns the number of frames.

    ``height`` in pixels, 0: as the video. With ``faces="none"`` there is no sound either. Raises UsageError for a path
    that exists, unless ``overwrite``, and for one that is no .mp4; RecordingError where the video cannot be decoded.
    """
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"{path}: the video is an mp4: choose a name that ends in .mp4")
    refuse_existing(path, overwrite)
    count = 0
    with staged_file(path, overwrite, PRIVATE) as staged, av.open(str(staged), "w", format="mp4") as container:
        video = container.add_stream("h264", options={"crf": "20", "preset": "veryfast"})
        video.pix_fmt, video.time_base = "yuv420p", TIME_BASE
        video.codec_context.time_base = TIME_BASE
        sound = _sound(recording) if faces != "none" else None
        audio = container.add_stream("aac", rate=SOUND_HZ, layout="mono") if sound is not None else None
        start_s = min(float(stored.times_s[0]), sound.start_s if sound is not None else np.inf)
        last, heard = -1, 0  # the time of the last picture; samples written
        for row, picture in pictures(recording, stored):
            drawn = _even(draw_row(picture, stored, row, faces), height)
            if not count:
                video.height, video.width = drawn.shape[:2]
            elif drawn.shape[:2] != (video.height, video.width):
                drawn = np.asarray(cv2.resize(drawn, (video.width, video.height)), np.uint8)
            frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
            last = max(round((stored.times_s[row] - start_s) / TIME_BASE), last + 1)  # mp4 has one frame at a time
            frame.pts, frame.time_base = last, TIME_BASE
            container.mux(video.encode(frame))
            if sound is not None and audio is not None:
                heard = _encode_sound(container, audio, sound, start_s, heard, stored.times_s[row])
            count += 1
        container.mux(video.encode(None))
        if sound is not None and audio is not None:
            _encode_sound(container, audio, sound, start_s, heard, np.inf)
            container.mux(audio.encode(None))
    return count


def _even(picture: Picture, height: int) -> Picture:
    """A picture of this height (0: its own), with even sides, as H.264 with halved colour needs them."""
    own = picture.shape[0]
    scale = height / own if height else 1.0
    size = tuple(max(2, round(side * scale / 2) * 2) for side in picture.shape[1::-1])
    if size == picture.shape[1::-1]:
        return picture
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=kind), np.uint8)


def _sound(recording: Recording) -> Waveform | None:
    """The sound of a recording's video, mono; None where it has none that can be decoded."""
    if recording.video is None:
        return None
    try:
        return read_audio_and_report(recording.video, SOUND_HZ, streams=recording.streams)[0]
    except (NoAudioError, RecordingError):
        return None


def _encode_sound(
    container: av.container.OutputContainer,
    stream: av.AudioStream,
    sound: Waveform,
    start_s: float,
    first: int,
    until_s: float,
) -> int:
    """Write the blocks from sample ``first`` on that begin by ``until_s``; returns the sample that comes next.

    Sound lies beside its pictures in the file: a player reads the file once, from its beginning.
    """
    begin = round((sound.start_s - start_s) * SOUND_HZ)
    while first < len(sound.samples) and sound.start_s + first / SOUND_HZ <= until_s:
        block = np.ascontiguousarray(sound.samples[None, first : first + SOUND_BLOCK], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, begin + first, Fraction(1, SOUND_HZ)
        container.mux(stream.encode(frame))
        first += SOUND_BLOCK
    return first
