"""What decoding one stream of a media file gave, held against what its container says: is it damaged, and how?

FFmpeg goes on where a file is broken, and mostly raises nothing: frames are missing, or come at other times. What can
be known of that is counted here. A whole file must not be called damaged: variable frame rates, edit lists, pauses,
sound that ends after the picture and streams that begin in the middle of a group of pictures are ordinary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from aupipe.extract.media.clock import Clock
from aupipe.extract.media.container import BROADCAST, StreamFrames
from aupipe.extract.media.file_end import missing_end
from aupipe.extract.media.gaps import gaps_in, is_even
from aupipe.extract.media.streams import candidates, stated_end_s
from aupipe.quantities import counted

INDEXED = ("mov", "avi")  # containers with a table of every packet
ONE_TO_ONE = ("h264", "hevc", "av1", "mjpeg", "png", "prores", "dnxhd")  # each packet of these codecs gives a frame
FIELDS_APART = ("mpegts", "mpeg")  # where a packet may hold half an interlaced picture
SHORT_OVERLAP_S = 0.1  # what joining transport streams leaves; each frame is still within this of its own time


@dataclass(frozen=True)
class MediaReport:
    """Counts of one stream. Times in seconds on the container's clock; 0 wherever there is nothing to report.

    ``is_damaged`` judges, ``summary`` says in one line what is wrong, ``notes`` what is odd and no damage.
    """

    frames: int = 0  # decoded
    declared_frames: int = 0  # by the header, which is often wrong: a hint only
    surplus: int = 0  # frames beyond those, in a container whose header is exact
    listed: int = 0  # packets in the container's own table, where some are missing
    missing: int = 0  # of those, could not be read
    undecodable: int = 0  # packets, or errors of the demuxer
    dropped: int = 0  # packets that gave no frame, of codecs where each gives one
    corrupt_packets: int = 0  # flagged by the demuxer: a break in the count of a transport stream's packets
    corrupt_frames: int = 0  # flagged by the decoder: parts of the picture are made up
    leading: int = 0  # packets before the first frame of a stream that begins within a group of pictures
    untimed: int = 0  # frames without a timestamp
    gaps: int = 0  # jumps ahead in the times of a constant frame rate
    gap_s: float = 0.0  # in all, without frames
    first_gap_s: float = 0.0  # where the first begins
    mirrored: bool = False  # the display matrix exchanges left and right, and so were they
    pixel_aspect: str = ""  # "4:3": pixels were that wide and high, and pictures were stretched so that they are square
    shown: str = ""  # "640x360": the pictures then, upright, in whose pixels boxes and landmarks are
    jumps_back: int = 0
    repeats: int = 0  # frames with the time of the one before
    is_regular: bool = False  # where packets are flagged: what is missing would be seen as a gap or a hole
    overlap_s: float = 0.0  # by how much parts overlap in time at most
    first_overlap_s: float = 0.0
    end_s: float = 0.0  # of the last packet read, where that is before ...
    declared_end_s: float = 0.0  # ... the end that the container states
    streams: int = 0  # of this kind that could have been meant, where there are several
    stream: int = 0  # the one that was read, counted from 0 among all of its kind
    holes: int = 0  # pauses between packets of sound, filled with silence
    hole_s: float = 0.0  # in all
    first_hole_s: float = 0.0  # where the first begins
    trims: int = 0  # overlaps of packets of sound, cut
    trim_s: float = 0.0  # in all
    first_trim_s: float = 0.0  # where the first begins
    drift: float = 0.0  # share by which sound lasts longer by its timestamps than by its rate: its clock is slow
    drift_s: float = 0.0  # in all
    silent: bool = False  # throughout
    cancelled: float = 0.0  # share of the channels' energy that is lost in their mean, where that is much
    clipped: float = 0.0  # share of samples at full scale, where they are many
    codecs: str = ""  # "h264, mpeg2video": of the parts of a file whose codec changes on the way
    cut: str = ""  # how the file's length contradicts what it says of it
    errors: int = 0  # lines in FFmpeg's error log
    messages: tuple[str, ...] = ()  # the first distinct ones

    @property
    def damage(self) -> list[str]:
        """What is wrong, each in a few words."""
        found = []
        if self.missing:
            found.append(f"{counted(self.missing, 'frame')} of {self.listed} missing")
        if self.declared_end_s:
            found.append(f"truncated: ends at {self.end_s:.2f} s of {self.declared_end_s:.2f} s declared")
        if self.cut:
            found.append(f"file ends early: {self.cut}")
        if self.surplus:
            found.append(f"{counted(self.frames, 'frame')} where the header says {self.declared_frames}")
        if self.undecodable:
            found.append(f"{counted(self.undecodable, 'packet')} not decodable")
        if self.dropped:
            found.append(f"{counted(self.dropped, 'packet')} without a frame")
        if self.corrupt_frames:
            found.append(f"{counted(self.corrupt_frames, 'frame')} corrupt")
        if self.corrupt_packets and not self.is_only_joined:
            found.append(f"{counted(self.corrupt_packets, 'packet')} corrupt")
        if self.gaps:
            where = f"{self.gap_s:.2f} s without frames, first at {self.first_gap_s:.2f} s"
            found.append(f"{counted(self.gaps, 'gap')} in the times ({where})")
        if self.overlap_s > SHORT_OVERLAP_S:
            found.append(f"times overlap by {self.overlap_s:.2f} s at {self.first_overlap_s:.2f} s: joined from parts?")
        if self.errors:
            found.append(f"FFmpeg: {self.messages[0]}" + f" (and {self.errors - 1} more)" * (self.errors > 1))
        return found

    @property
    def is_only_joined(self) -> bool:
        """Whether a break in the count of a transport stream's packets is a joint, at which nothing is lost."""
        lost = self.undecodable or self.dropped or self.corrupt_frames or self.errors or self.gaps or self.holes
        return self.corrupt_packets <= self.jumps_back or (self.is_regular and not lost)

    @property
    def is_damaged(self) -> bool:
        return bool(self.damage)

    @property
    def summary(self) -> str:
        """One line; empty for a whole file."""
        return "; ".join(self.damage)

    @property
    def notes(self) -> list[str]:
        """What is odd and no damage."""
        found = []
        if self.streams:
            which = "[dataset] video_stream and audio_stream pick another"
            found.append(f"{self.streams} streams, number {self.stream} is read; {which}")
        if self.codecs:
            found.append(f"the codec changes on the way ({self.codecs}): each part is decoded by its own")
        if self.holes:
            where = f"{self.hole_s:.2f} s, first at {self.first_hole_s:.2f} s"
            found.append(f"{counted(self.holes, 'pause')} between packets of sound filled with silence ({where})")
        if self.trims:
            where = f"{self.trim_s:.2f} s, first at {self.first_trim_s:.2f} s"
            found.append(f"{counted(self.trims, 'overlap')} of packets of sound cut ({where})")
        if self.drift_s:
            pace = f"{100 * abs(self.drift):.2g} % {'slow' if self.drift > 0 else 'fast'}"
            found.append(f"the clock of the sound is {pace} ({abs(self.drift_s):.2f} s in all): resampled")
        if self.silent:
            found.append("the sound is silent throughout")
        if self.cancelled:
            lost = f"{min(99.9, 100 * self.cancelled):.3g} %"
            found.append(f'channels out of phase, their mean loses {lost}: [dataset] audio_channels = "left" reads one')
        if self.clipped:
            found.append(f"the sound is clipped: {100 * self.clipped:.2g} % of its samples are at full scale")
        if self.untimed:
            found.append(f"{counted(self.untimed, 'frame')} without a timestamp, timed by the frame rate")
        if self.leading:
            found.append(
                f"begins within a group of pictures: {counted(self.leading, 'packet')} before its first frame left out"
            )
        if self.corrupt_packets and self.is_only_joined and not self.overlap_s:
            found.append("the count of its packets breaks and nothing is lost: joined from parts")
        if self.repeats:
            found.append(f"{counted(self.repeats, 'frame')} at the time of the frame before")
        if 0 < self.overlap_s <= SHORT_OVERLAP_S:
            found.append(f"times overlap by {self.overlap_s:.2f} s at {self.first_overlap_s:.2f} s, brought in order")
        if self.pixel_aspect:
            found.append(f"pixels of {self.pixel_aspect}: pictures stretched to {self.shown}, boxes are in those")
        return found

    def to_json(self) -> dict[str, Any]:
        """The counts that are not 0, and the notes in words."""
        found = {name: value for name, value in vars(self).items() if value}
        found = {name: round(value, 6) if isinstance(value, float) else value for name, value in found.items()}
        lists = {"messages": list(self.messages), "notes": self.notes}
        return found | {name: lines for name, lines in lists.items() if lines}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MediaReport:
        """The inverse of `to_json`; fields of a later version are passed over."""
        known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        return cls(**known | {"messages": tuple(content.get("messages", ()))})


def report_on(
    read: StreamFrames,
    path: Path,
    clock: Clock | None = None,
    to_end: bool = True,
    decoded_to_s: float = -math.inf,
) -> MediaReport:
    """What was found when a stream of a file was read.

    ``clock``: of its frames, where the steps between them are to be judged.
    ``to_end``: whether it was read to its end; else nothing can be said of what is missing. ``decoded_to_s``: where its
    last frame ends, of sound: packets may not say how long they are.
    """
    stream, kind = read.stream, read.kind
    packets, leading, dropped = read.packets, read.leading, 0
    if stream.type != "video":  # the first packets of sound fill the decoder, and are heard of no more
        leading = 0
    elif read.begins_late and kind not in BROADCAST:
        leading, dropped = 0, leading
    if stream.type == "video" and stream.codec_context.name in ONE_TO_ONE and kind not in FIELDS_APART:
        lost = packets - read.discarded - read.frames - read.damaged
        dropped = max(0, lost - leading)
    declared, streams = _declared_frames(stream), candidates(read.container, stream.type)
    listed = len(stream.index_entries) if kind in INDEXED and to_end else 0
    found: dict[str, Any] = truncation_of(read, decoded_to_s) if to_end else {}
    if clock is not None:
        found |= {name: getattr(clock, name) for name in ("jumps_back", "overlap_s", "first_overlap_s", "repeats")}
        if kind not in INDEXED:  # there a step is as long as the table of packets says
            found |= gaps_in(clock.times_s)
    if read.corrupt_packets:
        found["is_regular"] = stream.type == "audio" or (clock is not None and is_even(np.diff(clock.times_s)))
    return MediaReport(
        frames=read.frames,
        declared_frames=declared,
        surplus=max(0, read.frames - declared) if _is_surplus(read, declared) else 0,
        cut=missing_end(path, kind) if to_end else "",
        listed=listed if listed > packets else 0,
        missing=max(0, listed - packets),
        undecodable=read.damaged,
        dropped=dropped,
        corrupt_packets=read.corrupt_packets,
        corrupt_frames=read.corrupt_frames,
        leading=leading,
        untimed=read.untimed if stream.type == "video" else 0,  # sound follows what was before it
        streams=len(streams) if len(streams) > 1 else 0,
        stream=list(getattr(read.container.streams, stream.type)).index(stream),
        errors=read.log.count,
        messages=tuple(read.log.messages),
        **found,
    )


SUMMED = (
    *("frames", "declared_frames", "surplus", "listed", "missing", "undecodable", "dropped", "corrupt_packets"),
    *("corrupt_frames", "leading", "untimed", "errors"),
)


def joined(reports: Sequence[MediaReport]) -> MediaReport:
    """The report on a file from those on its parts, of which the last one has what is known of the whole clock."""
    if len(reports) < 2:
        return reports[0] if reports else MediaReport()
    sums = {name: sum(getattr(report, name) for report in reports) for name in SUMMED}
    messages = dict.fromkeys(line for report in reports for line in report.messages)
    codecs = ", ".join(report.codecs for report in reports)
    return replace(reports[-1], **sums, messages=tuple(messages), codecs=codecs)


def _is_surplus(read: StreamFrames, declared: int) -> bool:
    """AVI alone: where its index is lost, FFmpeg takes for frames what looks like them."""
    return read.kind == "avi" and read.stream.type == "video" and 0 < declared < read.frames - max(3, read.frames // 50)


def _declared_frames(stream: Any) -> int:
    if stream.frames or stream.type != "video":
        return int(stream.frames)
    if stream.duration and stream.time_base and stream.average_rate:
        return round(stream.duration * stream.time_base * stream.average_rate)
    return 0


def truncation_of(read: StreamFrames, decoded_to_s: float = -math.inf) -> dict[str, Any]:
    """Where a file ends before its container says, as fields of `MediaReport`.

    A Matroska track may state its own end, and AVI counts its frames; else the end of the longest stream counts, since
    sound may go on after the picture. Broadcasts state nothing: their length is guessed from their last packets.
    """
    container, stream, kind = read.container, read.stream, read.kind
    if kind in BROADCAST or not read.ends:
        return {}
    end_s = max(float(read.ends.get(stream.index, 0) * stream.time_base), decoded_to_s)
    period_s = float(1 / stream.average_rate) if stream.type == "video" and stream.average_rate else 0.04
    declared_s, tolerance_s = 0.0, max(2.5 * period_s, 0.1)
    if kind == "avi" and stream.type == "video" and stream.frames:
        declared_s = stream.frames * period_s
    elif kind == "matroska" and (stated_s := stated_end_s(stream)) is not None:
        declared_s = stated_s
    elif container.duration:
        streams: Any = container.streams
        known = {index: streams[index].time_base for index in read.ends if index < len(streams)}
        end_s = max(end_s, *(float(read.ends[index] * base) for index, base in known.items()))
        declared_s = ((container.start_time or 0) + container.duration) / 1e6
        tolerance_s = max(0.5, 0.02 * declared_s)
    return {"end_s": end_s, "declared_end_s": declared_s} if declared_s - end_s > tolerance_s else {}
