"""A contact sheet: one picture of a recording's frames, evenly in time, and where something begins or jumps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError, UsageError
from aupipe.files import PRIVATE, refuse_existing, staged_file
from aupipe.quantities import counted
from aupipe.report.drawing import INK, Faces, Picture, draw_row, draw_strip, write
from aupipe.report.faces import RecordingFaces, State, length_s
from aupipe.report.frames import pictures
from aupipe.types import Recording

TILES, COLUMNS = 24, 6
TILE_PX = 240  # wide
HEAD_PX, GAP_PX = 44, 4
EVENTS_SHARE = 3  # one tile of so many is of a row where the state changes or the subject jumps


def write_sheet(
    recording: Recording,
    stored: RecordingFaces,
    path: Path,
    faces: Faces = "show",
    tiles: int = TILES,
    overwrite: bool = False,
) -> list[int]:
    """Write a contact sheet as .jpg or .png; returns the rows it shows.

    Raises UsageError for a path that exists, unless ``overwrite``, and for another suffix; RecordingError where the
    video cannot be decoded.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UsageError(f"{path}: a contact sheet is a .jpg or .png")
    refuse_existing(path, overwrite)
    wanted = set(choose_rows(stored, tiles))
    found = {
        row: draw_tile(picture, stored, row, faces) for row, picture in pictures(recording, stored, wanted.__contains__)
    }
    content = encode_sheet(found, recording, stored, path.suffix.lower())
    with staged_file(path, overwrite, PRIVATE) as staged:
        staged.write_bytes(content)
    return sorted(found)


def draw_tile(picture: Picture, stored: RecordingFaces, row: int, faces: Faces) -> Picture:
    """A picture of a row as it stands in a sheet: small, with what was found in it."""
    picture = draw_row(picture, stored, row, faces)
    height = max(1, round(picture.shape[0] * TILE_PX / picture.shape[1]))
    return np.asarray(cv2.resize(picture, (TILE_PX, height), interpolation=cv2.INTER_AREA), np.uint8)


def encode_sheet(tiles: Mapping[int, Picture], recording: Recording, stored: RecordingFaces, suffix: str) -> bytes:
    """Tiles by row as one picture in the format of ``suffix``. Raises RecordingError where there is none."""
    if not tiles:
        raise RecordingError(f"{recording.id}: none of its pictures could be read")
    in_order = [tiles[row] for row in sorted(tiles)]
    done, content = cv2.imencode(suffix, _arrange(in_order, recording, stored)[:, :, ::-1])
    if not done:
        raise RecordingError(f"{recording.id}: the contact sheet could not be encoded")
    return content.tobytes()


def choose_rows(stored: RecordingFaces, tiles: int) -> list[int]:
    """The rows of a sheet, rising: where the longest stretches without the subject begin, jumps, and evenly in time."""
    times, states = stored.times_s, stored.states
    starts = np.flatnonzero(np.diff(states.astype(np.int8), prepend=-1))
    stops = np.append(starts[1:], len(states))
    lost = sorted(
        (int(stop - start), int(start))
        for start, stop in zip(starts, stops, strict=True)
        if states[start] != State.SUBJECT
    )
    events = [int(row) for row in stored.jumps] + [start for _, start in reversed(lost)]
    chosen = set(events[: tiles // EVENTS_SHARE])
    even = np.linspace(times[0], times[-1], max(1, tiles - len(chosen)))
    chosen |= {int(row) for row in np.clip(np.searchsorted(times, even), 0, len(times) - 1)}
    return sorted(chosen)


def _arrange(tiles: list[Picture], recording: Recording, stored: RecordingFaces) -> NDArray[np.uint8]:
    """The tiles in rows below a head with the facts."""
    height = max(tile.shape[0] for tile in tiles)
    columns = min(COLUMNS, len(tiles))
    lines = -(-len(tiles) // columns)
    sheet = np.full((HEAD_PX + lines * (height + GAP_PX), columns * (TILE_PX + GAP_PX) - GAP_PX, 3), 32, np.uint8)
    for number, tile in enumerate(tiles):
        line, column = divmod(number, columns)
        top, left = HEAD_PX + line * (height + GAP_PX), column * (TILE_PX + GAP_PX)
        sheet[top : top + tile.shape[0], left : left + TILE_PX] = tile
    write(sheet[: HEAD_PX - 12], f"{recording.id}   {describe(stored)}", INK)
    draw_strip(sheet[: HEAD_PX - 4], stored)
    return sheet


def describe(stored: RecordingFaces) -> str:
    """The shares of the states in words, with the number of jumps."""
    shares = ", ".join(f"{state.words} {stored.share(state):.1%}" for state in reversed(State))
    frames, jumps = counted(len(stored), "frame"), counted(len(stored.jumps), "jump")
    return f"{frames}, {length_s(stored.times_s):.1f} s; {shares}; {jumps}"
