"""Words with their times, from the files people have them in."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aupipe.documents import parse_json
from aupipe.errors import RecordingError
from aupipe.files import write_file
from aupipe.types import AS_PLAYED, StreamChoice

LAST_WORD_S = 0.5  # duration of a word that has no stated end and no word after it
GRID_RATE = 25000  # GRID's alignments count samples at 25 kHz
SILENCE = {"sil", "sp", "<sil>", "spn"}


@dataclass(frozen=True)
class Word:
    """One word, spoken from ``start_s`` to ``end_s``; words of one ``utterance`` are read together."""

    text: str
    start_s: float
    end_s: float
    utterance: int = 0

    @property
    def middle_s(self) -> float:
        return (self.start_s + self.end_s) / 2


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

    ``talk.json`` for ``talk.mp4``; in the folder ``a/talk.json`` for the id ``a/talk.mp4``.
    """
    places = [folder / (video_id or video.name), video] if folder else [video]
    found = (place.with_suffix(suffix) for place in places for suffix in READERS)
    return next((path for path in found if path.is_file()), None)


def spoken_words(
    video: Path, folder: Path | None = None, video_id: str = "", streams: StreamChoice = AS_PLAYED
) -> Transcript:
    """The words of a video on its clock, from the transcript `find_transcript` finds.

    Raises RecordingError where there is none, or when it cannot be read.
    """
    path = find_transcript(video, folder, video_id)
    if path is None:
        raise RecordingError(f"{video}: no transcript beside it; expected {video.stem} + {', '.join(READERS)}")
    from aupipe.extract.media.audio import media_starts

    player_start_s, sound_start_s = media_starts(video, streams)
    return read_transcript(path).on_video_clock(player_start_s=player_start_s, sound_start_s=sound_start_s)


def read_transcript(path: Path) -> Transcript:
    """The words of a .json (ours, Whisper's, transformers'), .vtt, .srt, .csv, .tsv or GRID .align file.

    Subtitles time whole lines; unless a .vtt carries times of its own inside a line, the words share the line's time by
    their letters. A CSV has columns ``word`` and ``start``, in seconds, and may have ``end`` and ``utterance``.
    Raises RecordingError for a file that is not what its name says.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RecordingError(f"{path}: no transcript format is called {path.suffix!r}; known: {', '.join(READERS)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = reader(text)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RecordingError(f"{path}: not a transcript: {' '.join(str(error).split())}") from error
    clock: Clock = "player" if reader is _cues else "sound"
    if path.suffix.lower() == ".json" and '"clock": "video"' in text[:100]:
        clock = "video"
    return replace(tidy(rows), clock=clock)


def tidy(rows: Iterable[tuple[str, float, float | None, int]]) -> Transcript:
    """A transcript of (word, start, end or None, utterance) in any order.

    A missing end is the start of the next word, or half a second; an end before its start is the start.
    """
    ordered = sorted((row for row in rows if row[0].strip()), key=lambda row: row[1])
    words = []
    for i, (text, start, end, utterance) in enumerate(ordered):
        if end is None:
            end = min([start + LAST_WORD_S, *(row[1] for row in ordered[i + 1 : i + 2])])
        words.append(Word(text.strip(), float(start), max(float(end), float(start)), utterance))
    return Transcript(tuple(words))


def write_transcript(path: Path, transcript: Transcript) -> None:
    """Write the JSON `read_transcript` reads, whole or not at all. Raises UsageError where one is there already."""
    content = {"clock": transcript.clock, "words": [asdict(word) for word in transcript.words]}
    write_file(path, json.dumps(content, ensure_ascii=False, indent=1))


Rows = list[tuple[str, float, float | None, int]]


def _json(text: str) -> Rows:
    content = parse_json(text)
    if isinstance(content, dict) and "segments" in content:  # Whisper and its relatives
        rows: Rows = []
        for number, segment in enumerate(content["segments"]):
            if segment.get("words"):
                rows += [_spoken(word, number) for word in segment["words"] if "start" in word]
            else:
                rows += share(segment["text"], float(segment["start"]), float(segment["end"]), number)
        return rows
    if isinstance(content, dict) and "chunks" in content:  # transformers' pipeline
        rows = []
        for number, chunk in enumerate(content["chunks"]):
            start, end = chunk["timestamp"]
            several = len(chunk["text"].split()) > 1 and end is not None
            number = number if several else 0
            rows += share(chunk["text"], start, end, number) if several else [(chunk["text"], start, end, number)]
        return rows
    words = content["words"] if isinstance(content, dict) else content
    return [_spoken(word, 0) for word in words]


def _spoken(word: dict[str, Any], utterance: int) -> tuple[str, float, float | None, int]:
    fields = {key.lower().strip(): value for key, value in word.items() if key}
    text = _first(fields, "word", "text", "token")
    start = _first(fields, "start", "start_s", "start_time", "timestamp", "time")
    end = _first(fields, "end", "end_s", "end_time", default=None)
    number = _first(fields, "utterance", "utterance_id", "segment", default=utterance)
    return str(text), float(start), None if end in (None, "") else float(end), int(number)


NEEDED = object()


def _first(fields: dict[str, Any], *names: str, default: Any = NEEDED) -> Any:
    for name in names:
        if name in fields:
            return fields[name]
    if default is NEEDED:
        raise ValueError(f"no column {names[0]!r} among {', '.join(map(repr, fields))}")
    return default


def _table(text: str) -> Rows:
    lines = text.splitlines()
    if not lines:
        return []
    reader = csv.DictReader(lines, delimiter="\t" if "\t" in lines[0] else ";" if ";" in lines[0] else ",")
    return [_spoken(row, 0) for row in reader]


def _align(text: str) -> Rows:
    rows: Rows = []
    for line in text.splitlines():
        if line.strip():
            start, end, word = line.split()
            if word.lower() not in SILENCE:
                rows.append((word, int(start) / GRID_RATE, int(end) / GRID_RATE, 0))
    return rows


CUE = re.compile(r"(?:(\d+):)?(\d+):(\d+)[.,](\d+)\s*-->\s*(?:(\d+):)?(\d+):(\d+)[.,](\d+)")
INNER = re.compile(r"<(?:(\d+):)?(\d+):(\d+)\.(\d+)>")


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def _cues(text: str) -> Rows:
    """Cues of .srt and .vtt: blocks between empty lines, with a line of times somewhere in them."""
    rows: Rows = []
    number = 0
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        at = next((i for i, line in enumerate(lines) if CUE.search(line)), None)
        if at is None:
            continue
        times = CUE.search(lines[at])
        assert times is not None
        start, end = _seconds(*times.groups()[:4]), _seconds(*times.groups()[4:])
        said = " ".join(lines[at + 1 :])
        # Times inside the line: text, time, text, time, text
        marks = [start, *(_seconds(*mark.groups()) for mark in INNER.finditer(said)), end]
        pieces = re.split(r"<(?:\d+:)?\d+:\d+\.\d+>", said)
        for piece, piece_start, piece_end in zip(pieces, marks[:-1], marks[1:], strict=True):
            rows += share(re.sub(r"<[^>]*>|\{[^}]*\}", " ", piece), piece_start, piece_end, number)
        number += 1
    if not rows and text.strip() and text.strip() != "WEBVTT":
        raise ValueError("no line like 00:00:01,000 --> 00:00:02,000")
    return rows


def share(text: str, start_s: float, end_s: float, utterance: int) -> Rows:
    """The words of a stretch of speech, each given time by its number of letters."""
    words = text.split()
    letters = sum(map(len, words))
    rows: Rows = []
    spoken = 0
    for word in words:
        rows.append((
            word,
            start_s + (end_s - start_s) * spoken / letters,
            start_s + (end_s - start_s) * (spoken + len(word)) / letters,
            utterance,
        ))  # fmt: skip
        spoken += len(word)
    return rows


READERS: dict[str, Callable[[str], Rows]] = {
    ".json": _json,
    ".vtt": _cues,
    ".srt": _cues,
    ".csv": _table,
    ".tsv": _table,
    ".align": _align,
}
