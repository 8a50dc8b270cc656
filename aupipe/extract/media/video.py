"""Frames of a video file: `Frames`, one row per decoded frame, in decode order.

Rows are never counted by what a container claims: 12 of 33 real files claimed another number than they held. A claim
is a hint only, of whether something is missing (`aupipe.extract.media.report`).
"""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.limits import MAX_CLOCK_S, MAX_FRAMES, MAX_PIXELS
from aupipe.extract.media.container import DECODER_OPTIONS, StreamFrames, open_media
from aupipe.extract.media.ffmpeg_log import ErrorLog
from aupipe.extract.media.frame_buffer import FrameBuffer, FrameChunk, Hardware, HostFrameBuffer, plane_pixels
from aupipe.extract.media.report import MediaReport, overlap_in, report_on
from aupipe.extract.media.streams import pick_stream

logger = logging.getLogger(__name__)

REORDER_FRAMES = 16  # of H.264 and HEVC, at most
REORDER_S = 1.0  # B-frames are shown at most this long after their neighbours in the file


@dataclass
class VideoReader:
    """The frames of one video file, in decode order.

    Iterate for chunks of what ``frame_buffer`` makes of them (RGB `Frames` on the host), or call `clock` for
    timestamps alone (no colour conversion). After either, ``report`` states what was found, and
    whether the file is damaged. A file may be decoded several times, so the caller that asks for the report uses it.

    ``stream``: the number of the video stream, None for the one a player begins with (`pick_stream`).
    Rotation metadata is honoured, as OpenCV does. Damaged packets are skipped, the rest goes on; frames the decoder
    flags as corrupt keep their row.

    ``wanted`` is asked for each row whether its picture is needed: rows that are not are decoded and counted, never
    converted, and left out of the chunks. ``times_s`` holds the time of every frame decoded so far.
    """

    path: Path
    wanted: Callable[[int], bool] = lambda row: True
    frame_buffer: Callable[[], FrameBuffer] = HostFrameBuffer
    stream: int | None = None

    def __post_init__(self) -> None:
        self.report = MediaReport()
        self.times_s = array("d")

    @property
    def decoded(self) -> int:
        """Frames decoded so far, wanted or not."""
        return len(self.times_s)

    def __iter__(self) -> Iterator[FrameChunk]:
        frame_buffer = self.frame_buffer()
        rows: list[int] = []
        self.times_s = array("d")
        for frame, time_s in self._frames(frame_buffer.hardware):
            row = len(self.times_s)
            self.times_s.append(time_s)
            if not self.wanted(row):
                continue
            if not frame_buffer.append(frame):
                yield self._flush(frame_buffer, rows)
                rows = []
                frame_buffer.append(frame)
            rows.append(row)
        if rows:
            yield self._flush(frame_buffer, rows)

    def _flush(self, frame_buffer: FrameBuffer, rows: list[int]) -> FrameChunk:
        return frame_buffer.flush(np.array([self.times_s[row] for row in rows]), np.array(rows))

    def clock(self) -> NDArray[np.float64]:
        """(T,) presentation time of every frame, in seconds on the container's clock, in rising order."""
        times_s = np.array([time_s for _, time_s in self._frames()], dtype=np.float64)
        return in_order(times_s, self.path)

    def _frames(self, hardware: Hardware | None = None) -> Iterator[tuple[av.VideoFrame, float]]:
        """Decoded frames with their times, by ``hardware`` where its first picture is the processor's to the bit."""
        if hardware is not None and (first := self._first_for(hardware)) is not None:
            frames = self._decoded(hardware)
            begun = None
            with suppress(RecordingError):  # whether that is the GPU's fault or the file's, the processor shows
                begun = next(frames)
            if begun is not None and same_picture(begun[0], first):
                yield begun
                yield from frames
                return
            frames.close()
            what = "has another first picture" if begun else "fails at the first picture"
            logger.warning("%s: NVDEC %s; decoded by the processor", self.path, what)
        yield from self._decoded()

    def _first_for(self, hardware: Hardware) -> av.VideoFrame | None:
        """The first frame, of what ``hardware`` decodes."""
        with open_media(self.path) as container:
            stream = _video_stream(container, self.path, self.stream)
            if not hardware.decodes(stream):
                return None
            return next(iter(StreamFrames(container, stream)), None)

    def _decoded(self, hardware: Hardware | None = None) -> Generator[tuple[av.VideoFrame, float], None, None]:
        """Decoded frames with their times; a frame without a timestamp follows its predecessor by one period."""
        log = ErrorLog()
        times_s = array("d")
        with open_media(self.path, hardware.accel if hardware else None, log) as container:
            stream = _video_stream(container, self.path, self.stream)
            period_s = float(1 / stream.average_rate) if stream.average_rate else 0.04
            beside = False  # whether the hardware has done it, and not the processor in its place
            time_s = -period_s
            frames = StreamFrames(container, stream, log)
            for frame in frames:
                time_s = time_s + period_s if frame.time is None else frame.time
                times_s.append(time_s)
                _refuse_endless(self.path, frame, len(times_s), time_s - times_s[0])
                shown = hardware.planar(frame) if hardware else frame
                beside |= shown is not frame
                yield shown, time_s
            if frames.too_large:
                raise RecordingError(f"{self.path}: {_pixels_refused(log)} at frame {frames.frames}")
            harm = frames.damaged + frames.corrupt_frames
            if beside and harm:  # each decoder goes on in its own way: rows would be other rows
                raise RecordingError(f"{self.path}: {harm} damaged packets: decode it without --nvdec")
            if hardware is not None and not beside:
                logger.info("%s: this GPU does not decode it; decoded by the processor", self.path)
            if not times_s:
                why = f"; FFmpeg: {log.messages[0]}" if log.messages else ""
                raise RecordingError(f"{self.path}: no frame could be decoded ({frames.damaged} damaged packets{why})")
            self.report = report_on(frames, self.path, np.array(times_s))


def same_picture(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Whether two frames of planes of bytes hold the same samples at the same time."""
    if one.time != other.time or len(one.planes) != len(other.planes):
        return False
    planes = zip(one.planes, other.planes, strict=True)
    return all(np.array_equal(plane_pixels(ours), plane_pixels(theirs)) for ours, theirs in planes)


def in_order(times_s: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """The times of frames in the order they are shown.

    Where a file carries decoding times only (AVI with B-frames) each time sits on a wrong frame nearby, though the
    decoder gives the frames in the right order and every time occurs once: sorting puts them where they belong. Times
    that jump back further are no such thing, and raise RecordingError: no clock can be had from them. Times of parts
    that overlap a little are sorted too, and the report of the file says so.
    """
    latest = np.maximum.accumulate(times_s)
    ordered = np.sort(times_s)
    reach_s = REORDER_S
    if len(times_s) > 1 and not overlap_in(times_s):
        reach_s = max(reach_s, REORDER_FRAMES * float(np.median(np.diff(ordered))))  # a few frames a second
    back = np.flatnonzero(times_s < latest - reach_s)
    if len(back):
        raise RecordingError(
            f"{path}: times jump back from {latest[back[0]]:.2f} to {times_s[back[0]]:.2f} s at frame {back[0]}; "
            "several files joined into one? Remux or re-encode it"
        )
    return ordered


def _video_stream(container: Any, path: Path, number: int | None) -> Any:
    """The stream to decode (`pick_stream`), ready to be decoded by one thread."""
    stream = pick_stream(container, path, "video", number)
    if stream is None:
        kind = " (sound only)" if container.streams.audio else ""
        raise RecordingError(
            f"{path}: no video stream{kind}, so no frames to have features of: take it out of the data set"
        )
    _refuse_large(path, stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.thread_count = 1  # many recordings run beside each other, not many threads on one
    stream.codec_context.options = DECODER_OPTIONS
    return stream


def _refuse_large(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise RecordingError(
            f"{path}: pictures of {width}x{height}, at most {MAX_PIXELS / 1e6:.0f} megapixels are decoded"
        )


def _refuse_endless(path: Path, frame: av.VideoFrame, count: int, span_s: float) -> None:
    """Raises RecordingError for a frame beyond what one video may hold."""
    _refuse_large(path, frame.width, frame.height)  # hardware has no option that refuses it before
    if count > MAX_FRAMES:
        raise RecordingError(f"{path}: more than {MAX_FRAMES:,} frames: cut it into parts")
    if span_s > MAX_CLOCK_S:
        hours = MAX_CLOCK_S / 3600
        raise RecordingError(
            f"{path}: a frame {span_s / 3600:.0f} hours after the first, at most {hours:.0f}: remux or cut it"
        )


def _pixels_refused(log: ErrorLog) -> str:
    """What FFmpeg said of a picture that it refused for its size."""
    found = re.search(r"Picture size (\d+x\d+)", " ".join(log.messages))
    size = f" of {found[1]}" if found else ""
    return f"a picture{size}, at most {MAX_PIXELS / 1e6:.0f} megapixels are decoded,"
