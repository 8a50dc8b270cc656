"""Tables of words or lines: CSV and TSV with or without a header, and GRID's alignments."""

from __future__ import annotations

import csv
import io
from typing import Any

from aupipe.extract.media.transcripts.timed_fields import fields_of, in_seconds, name_of_text, piece_of, seconds_of
from aupipe.extract.media.transcripts.word_times import NotATranscriptError, Piece

GRID_RATE = 25000  # GRID's alignments count samples at 25 kHz
SILENCE = {"sil", "sp", "<sil>", "spn"}
MOST_COLUMNS = 12  # of a table of speech without a header
LOOKED_AT = 50  # rows by which a table without a header is known


def read_table(text: str) -> list[Piece]:
    """The pieces of a table, a row each.

    A header names text and start, and may name an end or a duration, and an utterance (`piece_of`). ELAN's header calls
    the text by its tier. Without a header, the first two columns of times are start and end, and the last column
    of anything else is the text. Raises NotATranscriptError for a table of something else, ValueError for a broken one.
    """
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        return []
    delimiter = next((sign for sign in "\t;" if sign in lines[0]), ",")
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True) if any(row)]
    header, rows = _header(rows)
    pieces: list[Piece] = []
    utterances: dict[str, int] = {}
    for row in rows:
        fields = fields_of(dict(zip(header, row, strict=False)))
        if fields.get("type", "").lower() in ("phones", "phone"):  # Montreal Forced Aligner: each word again
            continue
        name = next((fields[key] for key in ("utterance", "utteranceid", "segment") if fields.get(key)), "")
        pieces.append(piece_of(fields, utterances.setdefault(name, len(utterances)) if name else None))
    return in_seconds(pieces)


def _header(rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Names for the columns, and the rows below them."""
    names = list(fields_of(dict.fromkeys(rows[0])))
    try:
        name_of_text(names)
    except NotATranscriptError:
        if any(name.startswith("begintime") for name in names) and len(names) == len(rows[0]):
            return _elan_header(names), rows[1:]
        if (found := _without_header(rows)) is None:
            raise
        return found, rows
    return rows[0], rows[1:]


def _elan_header(names: list[str]) -> list[str]:
    """ELAN's columns: the text is in the one column that is neither a time nor a person."""
    known = {"begintime", "endtime", "duration", "tier", "participant", "annotator"}
    tiers = [name for name in names if not any(name.startswith(start) for start in known)]
    if not tiers:
        raise NotATranscriptError("no column of text beside ELAN's times")
    return ["text" if name == tiers[-1] else name for name in names]


def _without_header(rows: list[list[str]]) -> list[str] | None:
    """Names for the columns of a table without a header; None where it is no table of speech."""
    looked_at = rows[:LOOKED_AT]
    width = max(map(len, looked_at))
    if width > MOST_COLUMNS:
        return None
    columns = [[row[column] if column < len(row) else "" for row in looked_at] for column in range(width)]
    seconds = {column: [*map(seconds_of, cells)] for column, cells in enumerate(columns) if all(map(_is_time, cells))}
    # ELAN writes each time in several units, one after another.
    times = [column for column in seconds if seconds[column] != seconds.get(column - 1)]
    texts = [column for column, cells in enumerate(columns) if any(cells) and not any(map(_is_time, cells))]
    if len(times) < 2 or not texts:
        return None
    names = {times[0]: "start", times[1]: "end", texts[-1]: "text"}
    return [names.get(column, f"column{column}") for column in range(width)]


def _is_time(cell: Any) -> bool:
    try:
        return seconds_of(cell) is not None
    except ValueError:
        return False


def read_align(text: str) -> list[Piece]:
    """The words of a GRID alignment: first and last sample at 25 kHz, and a word, in each line."""
    pieces: list[Piece] = []
    for line in text.splitlines():
        if line.strip():
            start, end, word = line.split()
            if word.lower() not in SILENCE:
                pieces.append(Piece(word, int(start) / GRID_RATE, int(end) / GRID_RATE, 0, True))
    return pieces
