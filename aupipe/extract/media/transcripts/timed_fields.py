"""Texts and times in records of named fields, by the names that recognisers and annotation programs give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from aupipe.extract.media.transcripts.word_times import NotATranscriptError, Piece

MILLISECOND, TICK = 1e-3, 1e-7  # a tick is Azure's unit
WORD = ("word", "token")
LINE = ("text", "utf8", "label", "annotation", "transcript", "transcription", "sentence", "value", "content")
# Name, in lower case and without other signs -> seconds of its unit.
START = {
    "start": 1.0, "starts": 1.0, "starttime": 1.0, "startoffset": 1.0, "startsec": 1.0, "begin": 1.0, "begins": 1.0,
    "begintime": 1.0, "begintimessmsec": 1.0, "begintimehhmmssms": 1.0, "begintimehhmmssmsec": 1.0, "onset": 1.0,
    "tmin": 1.0, "xmin": 1.0, "timestamp": 1.0, "time": 1.0, "ts": 1.0, "from": 1.0,
    "startms": MILLISECOND, "tstartms": MILLISECOND, "starttimems": MILLISECOND, "beginms": MILLISECOND,
    "begintimemsec": MILLISECOND, "offsetmilliseconds": MILLISECOND, "offsetinticks": TICK,
}  # fmt: skip
END = {
    "end": 1.0, "ends": 1.0, "endtime": 1.0, "endoffset": 1.0, "endsec": 1.0, "stop": 1.0, "endts": 1.0, "offset": 1.0,
    "endtimessmsec": 1.0, "endtimehhmmssms": 1.0, "endtimehhmmssmsec": 1.0, "tmax": 1.0, "xmax": 1.0, "to": 1.0,
    "endms": MILLISECOND, "endtimems": MILLISECOND, "endtimemsec": MILLISECOND,
}  # fmt: skip
DURATION = {
    "duration": 1.0, "durations": 1.0, "dur": 1.0, "durationms": MILLISECOND, "ddurationms": MILLISECOND,
    "durationmilliseconds": MILLISECOND, "durationinticks": TICK,
}  # fmt: skip
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)")
WHOLE_MS = 50  # whole numbers that words or lines last for so long are milliseconds: nobody speaks 50 s at a stretch

Fields = dict[str, Any]


def fields_of(record: Mapping[str, Any]) -> Fields:
    """The fields under names in lower case, without other signs than letters and digits."""
    return {re.sub(r"[\W_]", "", str(name).lower()): value for name, value in record.items() if name}


def name_of_text(names: Sequence[str]) -> str:
    """Which field holds the text. Raises NotATranscriptError where none does."""
    found = next((name for name in (*WORD, *LINE) if name in names), None)
    if found is None:
        raise NotATranscriptError(f"no column 'word' among {', '.join(map(repr, names[:8]))}")
    return found


def piece_of(fields: Fields, utterance: int | None = None, is_word: bool = False) -> Piece:
    """The piece of speech that a record holds.

    Raises NotATranscriptError without a field for text or start, ValueError for a time that is none.
    """
    name = name_of_text(list(fields))
    start = next((key for key in START if key in fields), None)
    if start is None and not any(key in fields for key in (*END, *DURATION)) and not is_word:
        raise NotATranscriptError(f"no column 'start' among {', '.join(map(repr, list(fields)[:8]))}")
    start_s, end_s = None if start is None else fields[start], None
    if isinstance(start_s, (list, tuple)):  # transformers: the two of them
        start_s, end_s = (*start_s, None)[:2]
    first_s = seconds_of(start_s, START[start] if start else 1.0)
    last_s = seconds_of(end_s)
    for key, unit in END.items():
        if last_s is None and key in fields:
            last_s = seconds_of(fields[key], unit)
    for key, unit in DURATION.items():
        if last_s is None and first_s is not None and key in fields:
            length_s = seconds_of(fields[key], unit)
            last_s = None if length_s is None else first_s + length_s
    text = "" if fields[name] is None else str(fields[name])
    return Piece(text, first_s, last_s, utterance, is_word or name in WORD)


def seconds_of(value: Any, unit: float = 1.0) -> float | None:
    """A time in seconds: a number, "1.3", "1.3s", "00:00:01,300", Google's {"seconds", "nanos"}; None for nothing.

    Raises ValueError.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, Mapping):
        return float(value.get("seconds", 0)) + float(value.get("nanos", 0)) * 1e-9
    if isinstance(value, str) and (clock := CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    text = value.strip().removesuffix("s") if isinstance(value, str) else value
    seconds_in = float(text) * unit
    if not abs(seconds_in) < 1e9:  # not a number among them
        raise ValueError(f"{value!r} is no time")
    return seconds_in


def in_seconds(pieces: list[Piece]) -> list[Piece]:
    """The same pieces; whole numbers that would be minutes for each word are milliseconds (Whisper's TSV, AssemblyAI).

    Numbers with fractions are left as they are.
    """
    stated = [(piece.start_s, piece.end_s) for piece in pieces if piece.start_s is not None]
    lengths = [end - start for start, end in stated if start is not None and end is not None]
    whole = all(time is None or float(time).is_integer() for pair in stated for time in pair)
    if not lengths or not whole or median(lengths) < WHOLE_MS:
        return pieces
    return [replace(piece, start_s=_thousandth(piece.start_s), end_s=_thousandth(piece.end_s)) for piece in pieces]


def _thousandth(time: float | None) -> float | None:
    return None if time is None else time / 1000
