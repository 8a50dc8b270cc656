"""From stretches of speech as files have them, some without times, to words that each have one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

LAST_WORD_S = 0.5  # duration of a word that has no stated end and no word after it

# Thai and Lao, Burmese, Khmer, kana, Han: scripts that put no space between words (Unicode blocks).
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


class NotATranscriptError(ValueError):
    """A file that is something else, such as a table of another program's; not a transcript with a fault."""


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


@dataclass(frozen=True)
class Piece:
    """What a file times as one: a word (``is_word``), or a line whose words share its time.

    ``start_s``, ``end_s``, ``utterance``: None where the file does not say.
    """

    text: str
    start_s: float | None
    end_s: float | None = None
    utterance: int | None = None
    is_word: bool = False


def timed_words(pieces: Sequence[Piece], end_s: float | None = None) -> tuple[Word, ...]:
    """The words of pieces in any order, in the order of their times. ``end_s``: where the sound ends.

    Pieces without a start stand between their neighbours in the file. A missing end, and that of a line which ends
    before it begins, is the start of the next piece, or half a second for each word, or the sound's end. Words of a
    line share its time by their letters, signs of scripts without spaces likewise.
    Where the file names no utterances, each line is one; words without lines are one all together.
    Raises ValueError where no piece has a time.
    """
    spoken = _placed(_numbered([piece for piece in pieces if piece.text.strip()]))
    spoken.sort(key=lambda piece: piece.start_s or 0.0)
    words: list[Word] = []
    for number, piece in enumerate(spoken):
        assert piece.start_s is not None
        assert piece.utterance is not None
        texts = [piece.text.strip()] if piece.is_word else words_in(piece.text)
        stop_s = piece.end_s
        if stop_s is None or (stop_s < piece.start_s and not piece.is_word):
            later = (other.start_s for other in spoken[number + 1 :])
            following = next((start for start in later if start is not None and start > piece.start_s), end_s)
            stop_s = piece.start_s + LAST_WORD_S * len(texts)
            stop_s = stop_s if following is None else min(stop_s, following)
        words += _shared(texts, piece.start_s, max(stop_s, piece.start_s), piece.utterance)
    return tuple(sorted(words, key=lambda word: word.start_s))


def _numbered(pieces: list[Piece]) -> list[Piece]:
    """The same pieces, each with the number of its utterance."""
    rest = 1 + max((piece.utterance for piece in pieces if piece.utterance is not None), default=-1)
    has_lines = rest > 0 or any(not piece.is_word and len(words_in(piece.text)) > 1 for piece in pieces)
    numbered = []
    for number, piece in enumerate(pieces, rest):
        if piece.utterance is None:
            piece = replace(piece, utterance=number if has_lines and not piece.is_word else rest)
        numbered.append(piece)
    return numbered


def _placed(pieces: list[Piece]) -> list[Piece]:
    """The same pieces, those without a start evenly by their letters between those around them."""
    if pieces and all(piece.start_s is None for piece in pieces):
        raise ValueError(f"none of its words has a time, neither {pieces[0].text.strip()!r} nor what follows")
    placed: list[Piece] = []
    numbered = groupby(range(len(pieces)), key=lambda number: pieces[number].start_s is None)
    for is_untimed, numbers in numbered:
        run = [pieces[number] for number in numbers]
        if not is_untimed:
            placed += run
            continue
        longest_s = LAST_WORD_S * len(run)
        at = len(placed)
        before, after = placed[-1] if placed else None, pieces[at + len(run)] if at + len(run) < len(pieces) else None
        if before is not None and before.start_s is not None:
            first_s = max(before.start_s, before.end_s or before.start_s)
            if before.end_s is None and after is not None and after.start_s is not None:
                first_s += (max(after.start_s, first_s) - first_s) / (len(run) + 1)  # its own share
                placed[-1] = replace(before, end_s=first_s)
            last_s = first_s + longest_s if after is None or after.start_s is None else max(first_s, after.start_s)
        else:
            assert after is not None
            assert after.start_s is not None
            first_s, last_s = max(0.0, after.start_s - longest_s), after.start_s
        if run[-1].end_s is not None:
            last_s = max(first_s, run[-1].end_s)
        times = _shared([piece.text for piece in run], first_s, last_s, 0)
        placed += [
            replace(piece, start_s=word.start_s, end_s=word.end_s) for piece, word in zip(run, times, strict=True)
        ]
    return placed


def words_in(line: str) -> list[str]:
    """The words of a line; of a script without spaces its signs, with what cannot stand alone left beside them."""
    found: list[str] = []
    for token in line.split():
        if not UNSPACED.search(token):
            found.append(token)
            continue
        signs: list[str] = []
        for sign in token:
            stands_alone = unicodedata.category(sign) == "Lo" and bool(UNSPACED.match(sign))
            leaves = bool(signs) and sign.isalnum() and bool(UNSPACED.match(signs[-1][0])) and not UNSPACED.match(sign)
            if not signs or ((stands_alone or leaves) and any(map(str.isalnum, signs[-1]))):
                signs.append(sign)
            else:
                signs[-1] += sign
        found += signs
    return found


def _shared(texts: Sequence[str], start_s: float, end_s: float, utterance: int) -> list[Word]:
    """Words of a stretch of speech, each given time by its number of letters."""
    letters = max(1, sum(map(len, texts)))
    words: list[Word] = []
    spoken = 0
    for text in texts:
        first_s = start_s + (end_s - start_s) * spoken / letters
        spoken += len(text)
        words.append(Word(text, first_s, start_s + (end_s - start_s) * spoken / letters, utterance))
    return words
