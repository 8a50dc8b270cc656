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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.limits import MAX_CLOCK_S, MAX_FRAMES, MAX_PIXELS
from aupipe.extract.media.clock import clock_of, in_order
from aupipe.extract.media.container import DECODER_OPTIONS, StreamFrames, open_media, sniff
from aupipe.extract.media.display import Display, display_of, pixel_aspect_of
from aupipe.extract.media.ffmpeg_log import ErrorLog
from aupipe.extract.media.frame_buffer import FrameBuffer, FrameChunk, Hardware, HostFrameBuffer, plane_pixels
from aupipe.extract.media.report import MediaReport, joined, report_on
from aupipe.extract.media.streams import pick_stream, stated_length_s
from aupipe.extract.media.ts_parts import WHOLE, Part, parts_of

logger = logging.getLogger(__name__)


class DecodedFrame(NamedTuple):
    """A frame, its time (`StreamFrames.time_s`, or one period after its predecessor's) and how it is shown."""

    picture: av.VideoFrame
    time_s: float
    display: Display


@dataclass
class VideoReader:
    """The frames of one video file, in decode order.

    Iterate for chunks of what ``frame_buffer`` makes of them (RGB `Frames` on the host), or call `clock` for
    timestamps alone (no colour conversion). After either, ``report`` states what was found, and
    whether the file is damaged. A file may be decoded several times, so the caller that asks for the report uses it.

    ``stream``: the number of the video stream, None for the one a player begins with (`pick_stream`). Pictures are
    upright, as the display matrix says, and have square pixels. Damaged packets are skipped, the rest goes on; frames
    the decoder flags as corrupt keep their row.

    ``wanted`` is asked for each row whether its picture is needed: rows that are not are decoded and counted, never
    converted, and left out of the chunks. ``times_s`` holds the time of every frame decoded so far, as the file states
    it; `ordered_clock` is what becomes of them.
    """

    path: Path
    wanted: Callable[[int], bool] = lambda row: True
    frame_buffer: Callable[[], FrameBuffer] = HostFrameBuffer
    stream: int | None = None

    def __post_init__(self) -> None:
        self.report = MediaReport()
        self.times_s = array("d")
        self._by_decoding_time = False
        self._stated_s = 0.0

    @property
    def decoded(self) -> int:
        """Frames decoded so far, wanted or not."""
        return len(self.times_s)

    def position(self) -> tuple[float, float]:
        """Seconds decoded, and how long the video is by its header: a hint, 0 where it says nothing."""
        times_s = self.times_s
        done_s = max(0.0, times_s[-1] - times_s[0]) if times_s else 0.0
        return done_s, max(done_s, self._stated_s)

    def __iter__(self) -> Iterator[FrameChunk]:
        frame_buffer = self.frame_buffer()
        rows: list[int] = []
        self.times_s = array("d")
        for frame in self._frames(frame_buffer.hardware):
            row = len(self.times_s)
            self.times_s.append(frame.time_s)
            if not self.wanted(row):
                continue
            if not frame_buffer.append(frame.picture, frame.display):
                yield self._flush(frame_buffer, rows)
                rows = []
                frame_buffer.append(frame.picture, frame.display)
            rows.append(row)
        if rows:
            yield self._flush(frame_buffer, rows)

    def _flush(self, frame_buffer: FrameBuffer, rows: list[int]) -> FrameChunk:
        return frame_buffer.flush(np.array([self.times_s[row] for row in rows]), np.array(rows))

    def clock(self) -> NDArray[np.float64]:
        """(T,) presentation time of every frame, in seconds on the container's clock, in rising order."""
        self.times_s = array("d", (frame.time_s for frame in self._frames()))
        return self.ordered_clock()

    def ordered_clock(self) -> NDArray[np.float64]:
        """`clock`, after all frames were decoded. Raises RecordingError where no clock can be had (`in_order`)."""
        return in_order(np.array(self.times_s), self.path, self._by_decoding_time)

    def _frames(self, hardware: Hardware | None = None) -> Iterator[DecodedFrame]:
        """Decoded frames with their times, by ``hardware`` where its first picture is the processor's to the bit."""
        if hardware is not None and (first := self._first_for(hardware)) is not None:
            frames = self._decoded(hardware)
            begun = None
            with suppress(RecordingError):  # whether that is the GPU's fault or the file's, the processor shows
                begun = next(frames)
            if begun is not None and same_picture(begun.picture, first):
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

    def _decoded(self, hardware: Hardware | None = None) -> Generator[DecodedFrame, None, None]:
        """Decoded frames; one without a timestamp follows its predecessor by one period."""
        times_s, reports = array("d"), list[MediaReport]()
        parts = parts_of(self.path, sniff(self.path), "video")
        for part in parts:
            yield from self._decoded_part(part, hardware if part is WHOLE else None, times_s, reports)
        if not times_s:
            report = joined(reports)
            why = f"; FFmpeg: {report.messages[0]}" if report.messages else ""
            raise RecordingError(f"{self.path}: no frame could be decoded ({report.undecodable} damaged packets{why})")
        self.report = joined(reports)

    def _decoded_part(
        self, part: Part, hardware: Hardware | None, times_s: array[float], reports: list[MediaReport]
    ) -> Generator[DecodedFrame, None, None]:
        """The frames of a part of the file; adds their times, and a report that knows all times until then."""
        log = ErrorLog()
        with open_media(self.path, hardware.accel if hardware else None, log, part) as container:
            if part is not WHOLE and not container.streams.video:
                return
            stream = _video_stream(container, self.path, self.stream)
            self._stated_s = stated_length_s(container, stream) if part is WHOLE else 0.0
            period_s = float(1 / stream.average_rate) if stream.average_rate else 0.04
            aspect = pixel_aspect_of(stream)
            shown: dict[str, Any] | None = None
            beside = False  # whether the hardware has done it, and not the processor in its place
            time_s = times_s[-1] if times_s else -period_s
            frames = StreamFrames(container, stream, log)
            self._by_decoding_time = frames.by_decoding_time
            for frame in frames:
                stated_s = frames.time_s(frame)
                time_s = time_s + period_s if stated_s is None else stated_s
                times_s.append(time_s)
                display = display_of(frame, aspect)
                _refuse_large(self.path, *display.square_size(frame.height, frame.width)[::-1])
                _refuse_endless(self.path, len(times_s), time_s - times_s[0])
                picture = hardware.planar(frame) if hardware else frame
                beside |= picture is not frame
                shown = shown or _shown(display, frame.height, frame.width)
                yield DecodedFrame(picture, time_s, display)
            if frames.too_large:
                raise RecordingError(f"{self.path}: {_pixels_refused(log)} at frame {frames.frames}")
            harm = frames.damaged + frames.corrupt_frames
            if beside and harm:  # each decoder goes on in its own way: rows would be other rows
                raise RecordingError(f"{self.path}: {harm} damaged packets: decode it without --nvdec")
            if hardware is not None and not beside:
                logger.info("%s: this GPU does not decode it; decoded by the processor", self.path)
            clock = clock_of(np.array(times_s), frames.by_decoding_time) if times_s else None
            report = replace(report_on(frames, self.path, clock), **(shown or {}))
            reports.append(report if part is WHOLE else replace(report, codecs=stream.codec_context.name))


def _shown(display: Display, height: int, width: int) -> dict[str, Any]:
    """What is done to decoded pictures beside turning them, as fields of `MediaReport`."""
    found: dict[str, Any] = {"mirrored": display.is_mirrored}
    if not display.is_square:
        height, width = display.square_size(height, width)
        shown = (height, width) if display.is_transposed else (width, height)
        aspect = f"{display.pixel_aspect.numerator}:{display.pixel_aspect.denominator}"
        found |= {"pixel_aspect": aspect, "shown": "{}x{}".format(*shown)}
    return found


def same_picture(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Whether two frames of planes of bytes hold the same samples at the same time."""
    if one.time != other.time or len(one.planes) != len(other.planes):
        return False
    planes = zip(one.planes, other.planes, strict=True)
    return all(np.array_equal(plane_pixels(ours), plane_pixels(theirs)) for ours, theirs in planes)


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


def _refuse_endless(path: Path, count: int, span_s: float) -> None:
    """Raises RecordingError for a frame beyond what one video may hold."""
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
