"""Pictures of a video file: `Frames`, one row per decoded frame, in decode order.

Container frame counts are never used: they were wrong in 12 of 33 files (specs/stages.md, section 1).
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.container import StreamFrames, open_media
from aupipe.types import Frames

if TYPE_CHECKING:
    from aupipe.extract.device.frames import DeviceFrames

log = logging.getLogger(__name__)

Pictures: TypeAlias = "Frames | DeviceFrames"  # a chunk of decoded frames, on the host or on a device

CHUNK_FRAMES = 32
REORDER_S = 1.0  # B-frames are shown at most this long after their neighbours in the file
CHUNK_BYTES = 64 << 20  # of RGB: what bounds memory for large pictures
MAX_PIXELS = 64_000_000  # a header may claim anything; this is refused before anything is allocated


class Hardware(Protocol):
    """A decoder beside the processor."""

    @property
    def accel(self) -> HWAccel: ...

    def decodes(self, stream: Any) -> bool:
        """Whether it gives the processor's samples for a video stream."""
        ...

    def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame of its as the processor's decoder would give it."""
        ...


class Canvas(Protocol):
    """Where decoded frames are gathered into a chunk."""

    @property
    def hardware(self) -> Hardware | None:
        """What may decode the frames that come here; None for the processor alone."""
        ...

    def add(self, frame: av.VideoFrame) -> bool:
        """Put a frame with those before it; False where it begins another chunk, and is not put there."""
        ...

    def cut(self, pts_s: NDArray[np.float64], index: NDArray[np.int64]) -> Pictures:
        """The frames put here since the last cut; there is at least one."""
        ...


class HostCanvas:
    """RGB in host memory: gives `Frames`."""

    hardware = None

    def __init__(self) -> None:
        self.count = 0
        self._reformatter = VideoReformatter()  # one for the whole file: a new one a frame costs more than its work
        self._kind: tuple[int, ...] = ()
        self._chunk: NDArray[np.uint8] = np.empty((0, 0, 0, 3), np.uint8)

    def add(self, frame: av.VideoFrame) -> bool:
        kind = frame.height, frame.width, frame.rotation
        if self.count and (self.count == len(self._chunk) or kind != self._kind):
            return False
        (plane,) = self._reformatter.reformat(frame, format="rgb24", threads=1).planes
        picture = rotated(plane_pixels(plane, 3), frame.rotation)
        if not self.count:
            self._kind = kind
            self._chunk = np.empty((chunk_length(picture.nbytes), *picture.shape), np.uint8)
        self._chunk[self.count] = picture
        self.count += 1
        return True

    def cut(self, pts_s: NDArray[np.float64], index: NDArray[np.int64]) -> Frames:
        chunk, self.count = self._chunk[: self.count], 0
        self._chunk = self._chunk[:0]
        return Frames(chunk, pts_s, index)


@dataclass
class VideoReader:
    """The frames of one video file, in decode order.

    Iterate for chunks of what ``canvas`` makes of them (RGB `Frames` on the host), or call `clock` for timestamps alone
    (no colour conversion). After either, ``notes`` says in words what was wrong with the file without making it
    unusable.

    Stream: the first video stream that is no attached picture. Rotation metadata is honoured, as OpenCV does.
    Damaged packets are skipped, the rest goes on; frames the decoder flags as corrupt keep their row.

    ``wanted`` is asked for each row whether its picture is needed: rows that are not are decoded and counted, never
    converted, and left out of the chunks. ``times_s`` holds the time of every frame decoded so far.
    """

    path: Path
    wanted: Callable[[int], bool] = lambda row: True
    canvas: Callable[[], Canvas] = HostCanvas

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.times_s = array("d")

    @property
    def decoded(self) -> int:
        """Frames decoded so far, wanted or not."""
        return len(self.times_s)

    def __iter__(self) -> Iterator[Pictures]:
        canvas = self.canvas()
        rows: list[int] = []
        self.times_s = array("d")
        for frame, time_s in self._frames(canvas.hardware):
            row = len(self.times_s)
            self.times_s.append(time_s)
            if not self.wanted(row):
                continue
            if not canvas.add(frame):
                yield self._cut(canvas, rows)
                rows = []
                canvas.add(frame)
            rows.append(row)
        if rows:
            yield self._cut(canvas, rows)

    def _cut(self, canvas: Canvas, rows: list[int]) -> Pictures:
        return canvas.cut(np.array([self.times_s[row] for row in rows]), np.array(rows))

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
            log.warning("%s: NVDEC %s; decoded by the processor", self.path, what)
        yield from self._decoded()

    def _first_for(self, hardware: Hardware) -> av.VideoFrame | None:
        """The first frame, of what ``hardware`` decodes."""
        with open_media(self.path) as container:
            stream = _video_stream(container, self.path)
            if not hardware.decodes(stream):
                return None
            stream.codec_context.thread_count = 1
            return next(iter(StreamFrames(container, stream)), None)

    def _decoded(self, hardware: Hardware | None = None) -> Generator[tuple[av.VideoFrame, float], None, None]:
        """Decoded frames with their times; a frame without a timestamp follows its predecessor by one period."""
        self.notes = []
        with open_media(self.path, hardware.accel if hardware else None) as container:
            stream = _video_stream(container, self.path)
            stream.codec_context.thread_count = 1  # many recordings run beside each other, not many threads on one
            period_s = float(1 / stream.average_rate) if stream.average_rate else 0.04
            untimed = corrupt = count = 0
            beside = False  # whether the hardware has done it, and not the processor in its place
            time_s = -period_s
            frames = StreamFrames(container, stream)
            for frame in frames:
                if frame.time is None:
                    untimed += 1
                    time_s += period_s
                else:
                    time_s = frame.time
                count += 1
                corrupt += frame.is_corrupt
                shown = hardware.planar(frame) if hardware else frame
                beside |= shown is not frame
                yield shown, time_s
            damaged = frames.damaged
            if beside and (damaged or corrupt):  # each decoder goes on in its own way: rows would be other rows
                raise RecordingError(f"{self.path}: {damaged + corrupt} damaged packets: decode it without --nvdec")
            if hardware is not None and not beside:
                log.info("%s: this GPU does not decode it; decoded by the processor", self.path)
            if count == 0:
                raise RecordingError(f"{self.path}: no frame could be decoded ({damaged} damaged packets)")
            self._note(damaged, corrupt, untimed, time_s + period_s, stream)

    def _note(self, damaged: int, corrupt: int, untimed: int, end_s: float, stream: Any) -> None:
        if damaged:
            self.notes.append(f"{damaged} damaged packets skipped")
        if corrupt:
            self.notes.append(f"{corrupt} frames flagged corrupt by the decoder")
        if untimed:
            self.notes.append(f"{untimed} frames without a timestamp, timed by the frame rate")
        declared_s = 0.0
        if stream.duration and stream.time_base:
            declared_s = float((stream.start_time or 0) * stream.time_base + stream.duration * stream.time_base)
        elif stream.container.duration:  # Matroska states the whole file's alone, in microseconds
            declared_s = ((stream.container.start_time or 0) + stream.container.duration) / 1e6
        if declared_s - end_s > max(1.0, 0.02 * declared_s):
            self.notes.append(f"truncated: frames end at {end_s:.2f} s of {declared_s:.2f} s declared")
        for note in self.notes:  # which whoever runs this reports, once; a file may be decoded several times
            log.info("%s: %s", self.path, note)


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
    that jump back further are no such thing, and raise RecordingError: no clock can be had from them.
    """
    latest = np.maximum.accumulate(times_s)
    back = np.flatnonzero(times_s < latest - REORDER_S)
    if len(back):
        raise RecordingError(
            f"{path}: times jump back from {latest[back[0]]:.2f} to {times_s[back[0]]:.2f} s at frame {back[0]}; "
            "several files joined into one? Remux or re-encode it"
        )
    return np.sort(times_s)


def chunk_length(picture_bytes: int) -> int:
    """How many pictures of this size are decoded, detected and encoded together."""
    return max(1, min(CHUNK_FRAMES, CHUNK_BYTES // picture_bytes))


def _video_stream(container: Any, path: Path) -> Any:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # cover art is no video
            pixels = stream.codec_context.width * stream.codec_context.height
            if pixels > MAX_PIXELS:
                raise RecordingError(f"{path}: pictures of {pixels / 1e6:.0f} megapixels, at most 64 are decoded")
            return stream
    kind = " (sound only)" if container.streams.audio else ""
    raise RecordingError(
        f"{path}: no video stream{kind}, so no frames to have features of: take it out of the data set"
    )


def plane_pixels(plane: Any, channels: int = 1) -> NDArray[np.uint8]:
    """(H, W) or (H, W, channels) where FFmpeg put them: to be copied before the next frame comes."""
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    pixels = lines[: plane.height, : channels * plane.width]
    return pixels if channels == 1 else pixels.reshape(plane.height, plane.width, channels)


def rotated(picture: NDArray[Any], degrees: int) -> NDArray[np.uint8]:
    """The picture upright: FFmpeg's display matrix gives the anticlockwise angle to turn it by."""
    return np.rot90(picture, (degrees // 90) % 4) if degrees % 360 else picture
