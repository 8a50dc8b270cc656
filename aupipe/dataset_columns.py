"""Values of recordings, such as a scene, in a CSV file of the data set."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from aupipe.dataset_model import label_name
from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.types import Recording

log = logging.getLogger(__name__)


def read_columns(file: Path, recordings: Iterable[Recording]) -> tuple[Recording, ...]:
    """The recordings with their values in a CSV file ``recording,<column>,...``.

    A row names a recording by its id, by its name in annotation files, or by its video. Names without a recording are
    logged as a warning; an empty cell is no value. Raises UsageError naming file and line for anything else.
    """
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", "") or "it is no UTF-8 text" * isinstance(error, UnicodeDecodeError) or error
        raise UsageError(f"[dataset] columns: {file} cannot be read: {why}") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if header[:1] != ["recording"] or len(header) < 2 or not all(header) or len(set(header)) < len(header):
        raise UsageError(f"{file}, line 1: {','.join(header)!r}: expected recording,<column>, such as recording,scene")
    values: dict[str, tuple[tuple[str, str], ...]] = {}
    for number, row in enumerate(rows[1:], 2):
        name, *cells = (cell.strip() for cell in row) if row else ("",)
        if row and len(row) != len(header):
            raise UsageError(f"{file}, line {number}: {len(row)} cells, expected {len(header)}")
        own = tuple((column, value) for column, value in zip(header[1:], cells, strict=False) if value)
        if name and values.setdefault(name, own) != own:
            raise UsageError(f"{file}, line {number}: {name!r} has other values above: leave one row")
    known: set[str] = set()
    found = []
    for recording in recordings:
        names = [name for name in (recording.id, label_name(recording), recording.video_id) if name in values]
        known.update(names)
        # The columns of a part of a joint data set stay where this file says nothing else.
        own = tuple((dict(recording.columns) | dict(values[names[0]])).items()) if names else recording.columns
        found.append(replace(recording, columns=own))
    if unknown := [name for name in values if name not in known]:
        many = counted(len(unknown), "name")
        log.warning("%s: %s of no recording of this data set, e.g. %s", file, many, unknown[0])
    return tuple(found)
