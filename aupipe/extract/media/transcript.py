"""Words with their times, from the files people have them in."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from aupipe.errors import RecordingError
from aupipe.extract.media.transcripts.recognizer_json import read_json
from aupipe.extract.media.transcripts.subtitles import read_subtitles
from aupipe.extract.media.transcripts.word_tables import read_align, read_table
from aupipe.extract.media.transcripts.word_times import NotATranscriptError, Piece, Word, timed_words
from aupipe.files import write_file
from aupipe.types import AS_PLAYED, StreamChoice

READERS: dict[str, Callable[[str], list[Piece]]] = {
    ".json": read_json,
    ".vtt": read_subtitles,
    ".srt": read_subtitles,
    ".csv": read_table,
    ".tsv": read_table,
    ".align": read_align,
}
MAX_BYTES = 256 << 20  # of a transcript: a word takes a hundred at most
HEAD_BYTES = 64 << 10  # of a table, by which it is known for one of words
BEYOND_S = 1.0  # after the sound's end a word is not of this video


class NoTranscriptError(RecordingError):
    """A video without a transcript, which is no fault of the video."""


Clock = Literal["video", "player", "sound"]


@dataclass(frozen=True)
class Transcript:
    """The words of a video in the order of their times, in seconds.

    ``clock`` says what second 0 is: ``video``, the container's own 0, on which frames and sound are timed; ``player``,
    where a player begins, the earliest stream (subtitles); ``sound``, the first sample (recognisers are given the
    sound alone).
    """

    words: tuple[Word, ...] = ()
    clock: Clock = "video"

    def __len__(self) -> int:
        return len(self.words)

    def on_video_clock(self, *, player_start_s: float, sound_start_s: float) -> Transcript:
        """The same words on the video's clock, given when the container and its sound begin on it."""
        by_s = {"video": 0.0, "player": player_start_s, "sound": sound_start_s}[self.clock]
        moved = (replace(word, start_s=word.start_s + by_s, end_s=word.end_s + by_s) for word in self.words)
        return Transcript(tuple(moved))


def find_transcript(video: Path, folder: Path | None = None, video_id: str = "") -> Path | None:
    """The transcript of a video: in ``folder`` under its id, else beside it under its name; None where there is none.

    ``talk.json`` for ``talk.mp4``; in the folder ``a/talk.json`` for the id ``a/talk.mp4``. Files of that name that are
    something else, such as another program's table, are passed over.
    """
    return next((path for path in _candidates(video, folder, video_id) if not reason_against(path)), None)


def _candidates(video: Path, folder: Path | None, video_id: str) -> list[Path]:
    places = [folder / (video_id or video.name), video] if folder else [video]
    found = (place.with_suffix(suffix) for place in places for suffix in READERS)
    return [path for path in found if path.is_file()]


def reason_against(path: Path) -> str:
    """Why a file of a transcript's name is something else; empty for a transcript, also for a broken one."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return _reason_against(path, found.st_size, found.st_mtime_ns)


@lru_cache(4096)
def _reason_against(path: Path, size: int, mtime_ns: int) -> str:
    if size > MAX_BYTES:
        return f"{size >> 20} MiB"
    reader = READERS[path.suffix.lower()]
    try:
        if reader is read_table:
            with path.open("rb") as file:
                head = _decoded(file.read(HEAD_BYTES), errors="replace")
            reader(head.rpartition("\n")[0] if size > HEAD_BYTES else head)
        elif reader is read_json:
            reader(_read_text(path))
    except NotATranscriptError as error:
        return str(error)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error):
        pass  # whoever reads it hears of that
    return ""


def spoken_words(
    video: Path, folder: Path | None = None, video_id: str = "", streams: StreamChoice = AS_PLAYED
) -> Transcript:
    """The words of a video on its clock, from the transcript `find_transcript` finds.

    Raises NoTranscriptError where there is none, and RecordingError when it cannot be read, or when most of its words
    lie after the end of the sound.
    """
    path = find_transcript(video, folder, video_id)
    if path is None:
        others = [f"; {other.name} is none: {reason_against(other)}" for other in _candidates(video, folder, video_id)]
        raise NoTranscriptError(
            f"{video}: no transcript beside it; expected {video.stem} + {', '.join(READERS)}{''.join(others[:1])} "
            "(--on-missing-text mask --retry-failed gives it invalid rows)"
        )
    from aupipe.extract.media.audio import media_starts

    player_start_s, sound_start_s = media_starts(video, streams)
    begins_s = {"video": 0.0, "player": player_start_s, "sound": sound_start_s}
    end_s = _sound_end_s(video)
    pieces, clock = _pieces(path)
    own_end_s = None if end_s is None else end_s - begins_s[clock]
    with _named(path):
        words = timed_words(pieces, own_end_s)
    if own_end_s is not None:
        beyond = sum(word.start_s > own_end_s + BEYOND_S for word in words)
        if beyond > len(words) / 2:
            raise RecordingError(
                f"{path}: {beyond} of {len(words)} words lie after the end of the sound, {own_end_s:.1f} s, the last "
                f"at {words[-1].start_s:.0f} s: in milliseconds, or of another video?"
            )
    return Transcript(words, clock).on_video_clock(player_start_s=player_start_s, sound_start_s=sound_start_s)


def _sound_end_s(video: Path) -> float | None:
    """Where the sound ends, or the picture where there is none, as the container states it; None where it does not."""
    from aupipe.extract.media.container import open_media

    with open_media(video) as container:
        for kind in (container.streams.audio, container.streams.video):
            ends = [((each.start_time or 0) + each.duration) * (each.time_base or 0) for each in kind if each.duration]
            if ends:
                return float(max(ends))
        return ((container.start_time or 0) + container.duration) / 1e6 if container.duration else None


def read_transcript(path: Path) -> Transcript:
    """The words of a .json (ours, Whisper's, other recognisers'), .vtt, .srt, .csv, .tsv or GRID .align file.

    Subtitles time whole lines; unless they carry times of their own inside a line, the words share the line's time by
    their letters. A table has columns for text and start, in seconds, and may have an end or duration and an utterance.
    Raises RecordingError for a file that is not what its name says.
    """
    pieces, clock = _pieces(path)
    with _named(path):
        return Transcript(timed_words(pieces), clock)


def _pieces(path: Path) -> tuple[list[Piece], Clock]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RecordingError(f"{path}: no transcript format is called {path.suffix!r}; known: {', '.join(READERS)}")
    with _named(path):
        text = _read_text(path)
        pieces = reader(text)
    if reader is read_json and '"clock": "video"' in text[:100]:
        return pieces, "video"
    return pieces, "player" if reader is read_subtitles else "sound"


def _read_text(path: Path) -> str:
    return _decoded(path.read_bytes())


def _decoded(content: bytes, errors: str = "strict") -> str:
    """Text in UTF-8, or in UTF-16 where it begins with that mark, as redirected on Windows."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what a reader raises for a broken file into a RecordingError with the file's name."""
    try:
        yield
    except json.JSONDecodeError as error:
        raise RecordingError(
            f"{path}: not a transcript: no JSON from line {error.lineno} on: write it again"
        ) from error
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not a transcript: no UTF-8 at byte {error.start}: save it as UTF-8") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, csv.Error) as error:
        raise RecordingError(f"{path}: not a transcript: {' '.join(str(error).split())}") from error


def write_transcript(path: Path, transcript: Transcript) -> None:
    """Write the JSON `read_transcript` reads, whole or not at all. Raises UsageError where one is there already."""
    content = {"clock": transcript.clock, "words": [asdict(word) for word in transcript.words]}
    write_file(path, json.dumps(content, ensure_ascii=False, indent=1))
