"""Subtitles: SubRip (.srt) and WebVTT (W3C Recommendation), as players and video sites write them.

By structure, since half of what is found breaks the rules: a line that is nothing but two times begins a cue. Of the
libraries, pysubs2 1.8 leaves entities and the times inside a line as text, webvtt-py 0.6 takes "1 < 2 and 3 > 2" for
markup and drops those times, and both repeat the lines that automatic captions carry over.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from aupipe.extract.media.transcripts.word_times import Piece

TIME = r"(?:(\d+):)?(\d+):(\d+)[.,](\d+)"
CUE = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
INNER = re.compile(rf"<{TIME}>")
# Of WebVTT, of SubRip's HTML, and override blocks of SubStation Alpha; other signs are text.
MARKUP = re.compile(  # only some tags have attributes: "a<b and c>d" is no markup
    r"</?(?:[cibus]|em|strong|ruby|rt)(?:\.[^<>\s]*)?>|</?(?:v|lang|span|font)(?:[.\s][^<>]*)?>|<br\s*/?>|\{\\[^}]*\}",
    re.I,
)
NO_CUES = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s.*)?")
CARRY_S = 0.05  # a cue as short as this, or one that adds a line, may repeat the lines of the cue it follows


@dataclass
class Cue:
    """``lines`` as the file has them, between the times of the cue."""

    start_s: float
    end_s: float
    lines: list[str] = field(default_factory=list)


def read_subtitles(text: str) -> list[Piece]:
    """The lines of a subtitle file; every cue is an utterance. Raises ValueError where it has no cue."""
    pieces: list[Piece] = []
    shown: list[str] = []  # lines of the cue before
    shown_until_s = 0.0
    cues = _cues(text)
    for number, cue in enumerate(cues):
        lines = [line for line in cue.lines if _plain(line)]
        plain = [_plain(line) for line in lines]
        carried = _carried(shown, plain) if abs(cue.start_s - shown_until_s) <= CARRY_S else 0
        if carried < len(lines) or cue.end_s - cue.start_s <= CARRY_S:
            lines = lines[carried:]
        shown, shown_until_s = plain, cue.end_s
        pieces += _pieces_of(cue, " ".join(lines), number)
    if not cues and text.strip() and not text.startswith("WEBVTT"):
        raise ValueError("no line like 00:00:01,000 --> 00:00:02,000")
    return pieces


def _cues(text: str) -> list[Cue]:
    cues: list[Cue] = []
    before: list[str] = []  # lines since the last time line
    has_names = text.startswith("WEBVTT")  # of cues: SubRip has numbers
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        times = CUE.fullmatch(line)
        if times is None:
            before.append(line)
            continue
        if cues:
            is_name = bool(before) and (before[-1].strip().isdecimal() or (has_names and before[-2:-1] == [""]))
            cues[-1].lines = _text_lines(before[:-1] if is_name else before)
        cues.append(Cue(_seconds(*times.groups()[:4]), _seconds(*times.groups()[4:])))
        before = []
    if cues:
        cues[-1].lines = _text_lines(before)
    return cues


def _text_lines(lines: list[str]) -> list[str]:
    """The text among the lines below a time line: no comment, no style."""
    kept, in_comment = [], False
    for number, line in enumerate(lines):
        in_comment = bool(line) and (in_comment or (number > 0 and not lines[number - 1] and _is_comment(line)))
        if not in_comment:
            kept.append(line)
    return kept


def _is_comment(line: str) -> bool:
    return NO_CUES.fullmatch(line) is not None


def _carried(shown: list[str], lines: list[str]) -> int:
    """How many lines a cue begins with that the cue before ended with."""
    most = min(len(shown), len(lines))
    return next((count for count in range(most, 0, -1) if shown[-count:] == lines[:count]), 0)


def _pieces_of(cue: Cue, said: str, utterance: int) -> list[Piece]:
    """The pieces of a cue's text, cut where it carries times of its own: text, time, text, time, text."""
    marks = [cue.start_s, *(_seconds(*mark.groups()) for mark in INNER.finditer(said))]
    texts = INNER.split(said)[:: INNER.groups + 1]
    ends: list[float] = [*marks[1:], cue.end_s]
    pieces = zip(texts, marks, ends, strict=True)
    return [Piece(plain, start, end, utterance) for text, start, end in pieces if (plain := _plain(text))]


def _plain(text: str) -> str:
    """Text without markup and entities, which no-break spaces are among."""
    return " ".join(html.unescape(MARKUP.sub(" ", INNER.sub(" ", text))).split())


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
