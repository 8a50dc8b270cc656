"""Which stream of a media file is read: the one a player begins with, or the one that was asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from av.stream import Disposition

from aupipe.errors import RecordingError
from aupipe.extract.media.container import sniff
from aupipe.extract.media.ffmpeg_log import unknown_codec

TRACK_END = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

Kind = Literal["video", "audio"]


def pick_stream(container: Any, path: Path, kind: Kind, number: int | None = None) -> Any:
    """The stream to decode, None where there is none of this kind.

    ``number``: of the file's streams of this kind, counted from 0, as in FFmpeg's ``v:0`` and ``a:0``. None: the first
    of `candidates` that is marked as the default, else the first.
    Raises RecordingError for a number the file does not have, and for a codec that FFmpeg does not know.
    """
    streams = getattr(container.streams, kind)
    if number is None:
        found = candidates(container, kind)
        stream = next((one for one in found if one.disposition & Disposition.default), found[0] if found else None)
    elif number < len(streams):
        stream = streams[number]
    else:
        has = "one" if len(streams) == 1 else len(streams) or "no"
        raise RecordingError(
            f"{path}: {has} {kind} stream{'s' * (len(streams) != 1)}, and [dataset] {kind}_stream is {number} "
            "(counted from 0): give one that all videos have"
        )
    if stream is not None and stream.codec_context is None:
        codec = unknown_codec(path, sniff(path), kind)
        raise RecordingError(f"{path}: the codec of its {kind}, {codec!r}, is not known to FFmpeg: re-encode it")
    return stream


def candidates(container: Any, kind: Kind) -> list[Any]:
    """The streams that could be meant: of video, no cover art, no thumbnails, no single picture beside a video."""
    streams = list(getattr(container.streams, kind))
    if kind == "audio":
        return streams
    videos = [stream for stream in streams if not stream.disposition & STILL]
    return [stream for stream in videos if not _is_one_picture(stream)] or videos


def stated_end_s(stream: Any) -> float | None:
    """Where a track of Matroska ends by its own tag; None where it has none."""
    found = TRACK_END.fullmatch(stream.metadata.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def stated_length_s(container: Any, stream: Any) -> float:
    """How long a stream is by its header, or by that of its container; 0 where neither says."""
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base))
    if (end_s := stated_end_s(stream)) is not None:
        return end_s
    return max(0.0, (container.duration or 0) / 1e6)  # in microseconds


def _is_one_picture(stream: Any) -> bool:
    end_s = stated_end_s(stream)
    period_s = float(1 / stream.average_rate) if stream.average_rate else 0.0
    return stream.frames == 1 or (end_s is not None and end_s < 1.5 * period_s)
