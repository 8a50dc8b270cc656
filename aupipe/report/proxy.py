"""A small copy of a recording's video that every browser plays, frame k of it row k of the store, at its own time.

Browsers refuse AVI, WMV and MPEG, and show some HEVC black; this is H.264 and AAC in mp4. In the same pass over the
pictures the tiles of the contact sheet are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aupipe.report.drawing import Faces, Picture, hidden
from aupipe.report.faces import RecordingFaces
from aupipe.report.frames import pictures
from aupipe.report.sheet import TILES, choose_rows, draw_tile
from aupipe.report.video_file import even, write_mp4
from aupipe.types import Recording, Waveform

LONGEST_SIDE_PX = 640
BLANK = 128  # grey level of a row whose picture is missing
# Every second one whole picture, and none that refers to later ones: seeking is quick and needs no edit list.
OPTIONS = {"crf": "24", "g": "30", "bf": "0"}


@dataclass
class Proxy:
    """What was written: the ``size`` (W, H) of the recording's pictures, and ``tiles`` of the contact sheet by row."""

    size: tuple[int, int] = (0, 0)
    missing: int = 0  # pictures of rows that a folder of images lacks
    tiles: dict[int, Picture] = field(default_factory=dict)


def write_proxy(
    recording: Recording, stored: RecordingFaces, path: Path, faces: Faces, sound: Waveform | None
) -> Proxy:
    """Write the video, with ``sound`` if there is any. ``faces``: show or blur.

    Raises RecordingError where the pictures cannot be decoded, or are another number than there are rows.
    """
    made = Proxy()
    wanted = set(choose_rows(stored, TILES))

    def frames() -> Iterator[tuple[float, Picture]]:
        last, shape = -1, (LONGEST_SIDE_PX // 2, LONGEST_SIDE_PX)
        for row, picture in pictures(recording, stored):
            if last < 0:
                made.size = (picture.shape[1], picture.shape[0])
            if row in wanted:
                made.tiles[row] = draw_tile(picture, stored, row, faces)
            scale = min(1.0, LONGEST_SIDE_PX / max(picture.shape[:2]))
            small = even(hidden(picture, stored, row, faces), scale)
            shape = small.shape[:2]
            yield from blank(last + 1, row, shape)
            yield float(stored.times_s[row]), small
            last = row
        yield from blank(last + 1, len(stored), shape)

    def blank(first: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[float, Picture]]:
        for row in range(first, stop):
            made.missing += 1
            yield float(stored.times_s[row]), np.full((*shape[:2], 3), BLANK, np.uint8)

    write_mp4(path, frames(), sound, float(stored.times_s[0]), OPTIONS)
    return made
