"""JSON of speech recognisers, by its structure: records of words or lines, wherever in the document they lie.

So write aupipe, Whisper, whisperX, faster-whisper, whisper.cpp, transformers, Vosk, OpenAI, AssemblyAI, Deepgram,
Google, AWS, Azure, Rev, and YouTube's captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aupipe.documents import parse_json
from aupipe.extract.media.transcripts.timed_fields import LINE, START, Fields, fields_of, in_seconds, piece_of
from aupipe.extract.media.transcripts.word_times import NotATranscriptError, Piece

# Fields that hold the records; of several the first. Words are preferred to the lines that they make up.
INSIDE = (
    "segments", "utterances", "words", "chunks", "transcription", "result", "results", "recognizedphrases",
    "channels", "alternatives", "nbest", "monologues", "elements", "items", "events", "segs",
)  # fmt: skip
BEST_FIRST = ("alternatives", "nbest", "channels")  # other readings of the same, other channels
OF_SPEECH = {"segments", "utterances", "words", "chunks", "transcription", "transcript", "text"}  # silence too
OF_WORDS = ("words", "elements", "items", "result")


def read_json(text: str) -> list[Piece]:
    """The pieces of a document. Raises NotATranscriptError for one of another kind, ValueError for a broken one."""
    if not text.strip():
        raise NotATranscriptError("an empty file")
    content = parse_json(text)
    if not content and isinstance(content, dict):
        raise NotATranscriptError("an empty JSON object")
    if not isinstance(content, (dict, list)):
        raise NotATranscriptError(f"a JSON {type(content).__name__}, not words with their times")
    reading = _Reading()
    try:
        reading.read(content)
    except RecursionError:
        raise NotATranscriptError("nested too deeply") from None
    if not reading.pieces and isinstance(content, dict) and not OF_SPEECH & fields_of(content).keys():
        raise NotATranscriptError(f"no words in {', '.join(map(repr, list(content)[:8]))}")
    return in_seconds(reading.pieces)


@dataclass
class _Reading:
    pieces: list[Piece] = field(default_factory=list)
    _utterances: int = 0

    def read(self, content: Any, is_word: bool = False) -> None:
        """Take in what lies in a list or in a record."""
        if isinstance(content, list):
            for item in content:
                if not isinstance(item, (dict, list)):
                    raise NotATranscriptError(f"a list of {type(item).__name__}, not of words")
                self.read(item, is_word)
            return
        fields = fields_of(content)
        for name in _inside(fields):
            inner = fields[name]
            if not isinstance(inner, (list, dict)):
                raise ValueError(f"{name!r} is {inner!r}, not a list of words")
            if name in BEST_FIRST and isinstance(inner, list):
                inner = inner[:1]
            if name == "alternatives" and inner and "content" in inner[0]:  # AWS: times beside the alternatives
                self._add(fields | fields_of(inner[0]), True)
                return
            if isinstance(inner, list) and _lacks_words(fields, name):
                continue
            if name == "segs":
                inner = _segments(fields, inner)
            before = len(self.pieces)
            self.read(inner, name in OF_WORDS)
            self._end_of(name, fields, before)
            return
        self._add(fields, is_word)

    def _end_of(self, name: str, fields: Fields, before: int) -> None:
        """Of a segment's words: they are one utterance, and the outermost have the segment's times where none else."""
        if name not in ("words", "segs", "elements") or len(self.pieces) == before:
            return
        words = self.pieces[before:]
        if all(word.utterance is None for word in words):
            words = [replace(word, utterance=self._utterances) for word in words]
        try:
            segment = piece_of({"text": ""} | fields)
        except ValueError:
            segment = Piece("", None)
        if words[0].start_s is None:
            words[0] = replace(words[0], start_s=segment.start_s)
        if words[-1].end_s is None:
            words[-1] = replace(words[-1], end_s=segment.end_s)
        self.pieces[before:] = words
        self._utterances += 1

    def _add(self, fields: Fields, is_word: bool) -> None:
        fields = _unfolded(fields)
        if fields.get("type") in ("punctuation", "punct"):
            mark = str(fields.get("content") or fields.get("value") or "").strip()
            if mark and self.pieces:
                self.pieces[-1] = replace(self.pieces[-1], text=self.pieces[-1].text + mark)
            return
        if "tstartms" in fields and "utf8" not in fields:
            return  # YouTube: an event without text
        utterance = next((fields[name] for name in ("utterance", "utteranceid", "segment") if name in fields), None)
        self.pieces.append(piece_of(fields, None if utterance in (None, "") else int(utterance), is_word))


def _inside(fields: Fields) -> Iterator[str]:
    """The fields that may hold the records; not an empty list of words beside a line with its times."""
    is_line = any(name in fields for name in START) and any(fields.get(name) for name in LINE)
    return (name for name in INSIDE if name in fields and (fields[name] or not (is_line or fields[name] is None)))


def _lacks_words(fields: Fields, name: str) -> bool:
    """Whether lines are named ``name``, and the words that make them up lie beside them (OpenAI, AssemblyAI)."""
    if name not in ("segments", "utterances") or not fields.get("words"):
        return False
    return not any(isinstance(line, dict) and line.get("words") for line in fields[name])


def _segments(event: Fields, segments: Any) -> list[Fields]:
    """The segments of an event of YouTube's captions, which count their times from its own."""
    start_ms, length_ms = event.get("tstartms", 0), event.get("ddurationms")
    each = [{"utf8": ""} | segment | {"tStartMs": start_ms + segment.get("tOffsetMs", 0)} for segment in segments]
    return each if len(each) > 1 else [{**only, "dDurationMs": length_ms} for only in each]


def _unfolded(fields: Fields) -> Fields:
    """A record whose times lie in a record of their own, or in units that only its writer knows, as a plain one."""
    for name in ("offsets", "timestamps"):  # whisper.cpp: milliseconds, and the same as clock times
        times = fields.get(name)
        if isinstance(times, Mapping) and {"from", "to"} <= times.keys():
            unit = {"startms": times["from"], "endms": times["to"]} if name == "offsets" else dict(times)
            return fields | unit
    if "offset" in fields and "duration" in fields and "onset" not in fields:  # Azure
        ticks = {"offsetinticks": fields["offset"], "durationinticks": fields["duration"]}
        # Batch results have both: ticks, and the same as text (PT0.5S).
        return ticks | fields | {"offset": None, "duration": None}
    return fields
