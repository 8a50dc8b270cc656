"""Opening media files safely: their kind is told by their first bytes, before any demuxer sees them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from aupipe.errors import RecordingError
from aupipe.extract.limits import MAX_PIXELS
from aupipe.extract.media.ffmpeg_log import ErrorLog, errors_into
from aupipe.extract.media.ts_parts import WHOLE, Part, PartFile
from aupipe.file_kinds import HEAD_BYTES, find_demuxer, is_text

MOST_DAMAGED = 10_000  # packets of a stream, after which nothing more is expected of it
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}  # a decoder refuses larger pictures before it allocates them
BROADCAST = ("mpegts", "mpeg", "mpegvideo")  # containers without a beginning: one may come in at any packet
NO_INDEX = "moov atom not found"  # FFmpeg's words
TOO_LARGE = "exceeds specified max pixel count"  # FFmpeg's words for what `max_pixels` refuses


def sniff(path: Path) -> str:
    """The FFmpeg demuxer for a media file, from its content.

    FFmpeg goes by the content, not the name: a text file called ``x.mp4`` may be a playlist that makes it read other
    files (FFmpeg documentation, demuxer ``concat``). So only known containers are let through, and the demuxer is
    named, not guessed. FFmpeg's option ``format_whitelist`` refuses less: random bytes called ``x.mp3`` are MP3 to it.
    Raises RecordingError for anything else: folders, pipes, empty files, text.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise RecordingError(f"{path} is a folder, not a media file: take it out of the data set")
        if not stat.S_ISREG(mode):
            raise RecordingError(f"{path} is not a regular file: put the video itself there")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise RecordingError(f"{path} is empty (0 bytes): copy it again, or take it out of the data set")
    demuxer = find_demuxer(head)
    if demuxer is None:
        kind = "text" if is_text(head) else "no media container aupipe knows"
        raise RecordingError(f"{path} is {kind}: re-encode it to mp4, or take it out of the data set")
    return demuxer


def open_media(
    path: Path, hardware: HWAccel | None = None, log: ErrorLog | None = None, part: Part = WHOLE
) -> InputContainer:
    """A PyAV container of a local media file, or of a part of one, decoded by ``hardware`` where that can.

    ``log`` takes in what FFmpeg complains of. Raises RecordingError with FFmpeg's reason when it cannot be opened.
    """
    demuxer, log = sniff(path), log or ErrorLog()
    # An absolute path, so that a name like `http:x.avi` or `concat:a|b` is a name. Bytes that are no UTF-8 cannot be
    # passed as a name at all, so the open file is passed.
    absolute = os.path.abspath(path)
    try:
        absolute.encode("utf-8")
        source: object = f"file:{absolute}" if part is WHOLE else PartFile(path, part)
    except UnicodeEncodeError:
        source = path.open("rb") if part is WHOLE else PartFile(path, part)
    try:
        with errors_into(log):
            return av.open(
                source,
                mode="r",
                format=demuxer,
                metadata_errors="replace",
                hwaccel=hardware,
                options=DECODER_OPTIONS,  # probing decodes a picture too
            )
    except (av.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        if any(NO_INDEX in line for line in log.messages):
            reason = "its index (moov) is missing: recording or copying was cut off; copy it again, or repair it"
        raise RecordingError(f"{path} cannot be opened as {demuxer}: {reason}") from error


@dataclass
class StreamFrames:
    """The frames of one stream, in decode order, and what there is to say of how that went.

    Damaged packets are left out, and counted in ``damaged``. ``log`` is that which the container was opened with. All
    streams are read, so that it is known where the file ends; the others are not decoded.

    ``by_decoding_time``: the file says when frames are decoded, not when they are shown (AVI). FFmpeg's guess of the
    latter depends on the frames' order; `time_s` then gives when a frame was decoded.
    """

    container: InputContainer
    stream: Any
    log: ErrorLog = field(default_factory=ErrorLog)
    damaged: int = 0  # packets that could not be decoded, and errors of the demuxer
    packets: int = 0
    discarded: int = 0  # packets that an edit list takes out
    frames: int = 0
    corrupt_packets: int = 0
    corrupt_frames: int = 0
    untimed: int = 0
    leading: int = 0  # packets of times before the first frame's
    begins_late: bool = False  # the first packet gave no frame
    by_decoding_time: bool = field(init=False)
    too_large: bool = False  # the last packet held a picture beyond the cap, and nothing after it is decoded
    ends: dict[int, int] = field(default_factory=dict)  # stream -> where its last packet ends, in its time base
    _first_pts: list[int] = field(default_factory=list)  # of the packets before the first frame

    def __post_init__(self) -> None:
        self.by_decoding_time = self.kind == "avi" and self.stream.type == "video"
        if self.by_decoding_time:
            self.stream.codec_context.copy_opaque = True  # a frame carries what its packet does

    @property
    def kind(self) -> str:
        """The container, by the first of its demuxer's names."""
        return self.container.format.name.partition(",")[0]

    def __iter__(self) -> Iterator[Any]:
        packets = self.container.demux()
        while True:
            packet, frames, is_over = None, [], False
            # Captured is what is logged in this call alone: frames may be taken from several files in turn.
            with av.logging.Capture() as lines:
                try:
                    packet = next(packets, None)
                    if packet is not None and packet.stream is self.stream:
                        if self.by_decoding_time and packet.dts is not None:
                            packet.opaque = [packet.dts]  # an object of its own: PyAV keeps them by identity
                        frames = packet.decode()
                except av.error.EOFError:
                    is_over = True
                except IndexError:  # PyAV, at the end of a file in which another stream has begun on the way
                    self.log.add("container", "a stream begins in the middle of the file")
                    is_over = True
                except av.FFmpegError as error:
                    self.damaged += 1
                    is_over = packet is None or _is_lost(error) or self.damaged > MOST_DAMAGED
                    if packet is None:  # nothing more can be read; what the decoder holds is good
                        frames = self._drained()
            if lines:
                self.log.take(lines)
                self.too_large = any(TOO_LARGE in text for _, _, text in lines)
                if self.too_large:
                    return
            if packet is not None:
                self._count(packet)
            for frame in frames:
                self._count_frame(frame)
                yield frame
            if is_over or packet is None:
                return

    def time_s(self, frame: Any) -> float | None:
        """When a frame is shown, or decoded (``by_decoding_time``), in seconds; None where nothing says so."""
        if not self.by_decoding_time or frame.opaque is None:
            time_s: float | None = frame.time
            return time_s
        base = self.stream.time_base
        return float(frame.opaque[0]) * base.numerator / base.denominator

    def _drained(self) -> list[Any]:
        try:
            frames: list[Any] = self.stream.codec_context.decode(None)
        except av.FFmpegError:
            return []
        return frames

    def _count(self, packet: Any) -> None:
        """Take note of a packet; those that have neither content nor time are PyAV's sign that a stream is over."""
        index, pts = packet.stream.index, packet.pts
        if pts is not None:
            end = pts + (packet.duration or 0)
            self.ends[index] = max(self.ends.get(index, end), end)
        if packet.stream is not self.stream or (pts is None and not packet.size and packet.dts is None):
            return
        self.packets += 1
        self.discarded += packet.is_discard
        self.corrupt_packets += packet.is_corrupt
        if not self.frames and pts is not None and not packet.is_discard and len(self._first_pts) < MOST_DAMAGED:
            self._first_pts.append(pts)

    def _count_frame(self, frame: Any) -> None:
        if not self.frames and frame.pts is not None:
            self.leading = sum(pts < frame.pts for pts in self._first_pts)
            self.begins_late = bool(self._first_pts) and self._first_pts[0] < frame.pts
            if self.kind in BROADCAST:  # what is said of the packets before is no sign of damage
                self.log.clear()
                self.damaged = 0
        self.frames += 1
        self.corrupt_frames += frame.is_corrupt
        self.untimed += self.time_s(frame) is None


def _is_lost(error: Exception) -> bool:
    """True when the demuxer itself cannot go on: reading again would give the same error for ever."""
    return isinstance(error, (av.error.OSError, av.error.MemoryError)) and not isinstance(
        error, av.error.InvalidDataError
    )
