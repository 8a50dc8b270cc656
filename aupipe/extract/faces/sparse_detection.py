"""Detection on every n-th frame: which frames, where the shots are cut, and the faces of the frames between.

Off by default. On talking heads n = 3 moves landmarks by no more than the detector's own jitter; in crowds and stage
light faces are lost (docs/pipeline.md, ``--detect-every``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.faces.tracking import iou
from aupipe.types import Frames

THUMBNAIL_PX = 32
CUT_GREY = 12.0  # mean change of a thumbnail, in grey levels of 255, from which on it is another shot
MIN_IOU = 0.3  # as in `TrackParams`


def thumbnails(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, 32, 32) grey: what cuts are seen by. ``frames`` (B, H, W, 3) RGB or (B, H, W) grey, such as the Y plane."""
    import cv2

    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    if small.ndim == 3:
        return small
    return np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in small])


@dataclass
class Schedule:
    """Says, chunk by chunk, which frames of a recording are detected.

    Those are every ``every``-th row, the first and the last frame, and the two frames on either side of each cut, of
    each hole in the rows (a folder of images may have some) and of each change of the picture's size. The answer does
    not depend on where one chunk ends and the next begins.
    """

    every: int
    cut_grey: float = CUT_GREY
    _rows: list[int] = field(default_factory=list)  # every frame seen, and beside it:
    _cuts: list[bool] = field(default_factory=list)
    _chosen: list[bool] = field(default_factory=list)
    _last: tuple[NDArray[np.int16], tuple[int, int]] | None = None  # thumbnail and size of the last frame

    def push(self, index: NDArray[np.int64], small: NDArray[np.uint8], size: tuple[int, int]) -> list[int]:
        """The rows to detect that are known now, rising; the last row of the chunk before may be among them.

        ``index`` (B,) rows, ``small`` (B, 32, 32) their `thumbnails`, ``size`` height and width of the pictures.
        """
        if not len(index):
            return []
        start = max(0, len(self._rows) - 1)
        before = list(self._chosen)
        thumbs = small.astype(np.int16)
        for row, thumb in zip(index.tolist(), thumbs, strict=True):
            cut = False
            if self._last is not None:
                change = np.abs(thumb - self._last[0]).mean()
                cut = bool(change >= self.cut_grey) or row != self._rows[-1] + 1 or size != self._last[1]
            if cut:
                self._chosen[-1] = True
            self._chosen.append(cut or not self._rows or row % self.every == 0)
            self._cuts.append(cut)
            self._rows.append(row)
            self._last = thumb, size
        known = before[start:] + [False] * len(index)
        return [row for row, now, was in zip(self._rows[start:], self._chosen[start:], known, strict=True) if now > was]

    def finish(self) -> list[int]:
        """The last row, where it has not been chosen yet."""
        if not self._rows or self._chosen[-1]:
            return []
        self._chosen[-1] = True
        return [self._rows[-1]]

    def masks(self, length: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """(T,) each: which rows have a picture, which of them are detected, and before which a cut lies."""
        masks = tuple(np.zeros(length, dtype=bool) for _ in range(3))
        for mask, values in zip(masks, ([True] * len(self._rows), self._chosen, self._cuts), strict=True):
            mask[self._rows] = values
        return masks  # type: ignore[return-value]


def fill_between(
    faces: FaceTable,
    present: NDArray[np.bool_],
    detected: NDArray[np.bool_],
    cuts: NDArray[np.bool_],
) -> FaceTable:
    """The faces of every frame (T), from those of the detected ones.

    A face of the frame before and one of the frame after are the same where their boxes overlap (best first, at least
    `MIN_IOU`); between them box, points and score change in equal steps. A face without partner is in none of the
    frames between, and nothing reaches across a cut. ``present``, ``detected``, ``cuts`` (T,): see `Schedule.masks`;
    rows without a picture stay as they are. Detected rows are returned as they came.
    """
    filled = list(faces)
    known = np.flatnonzero(detected)
    for before, after in pairwise(known):
        inside = np.arange(before + 1, after)[present[before + 1 : after]]
        if not len(inside) or cuts[before + 1 : after + 1].any():
            continue
        pairs = _partners(filled[before], filled[after])
        if not pairs:
            continue
        first = filled[before][[i for i, _ in pairs]]
        second = filled[after][[j for _, j in pairs]]
        for t in inside:
            share = np.float32((t - before) / (after - before))
            rows = first + (second - first) * share
            area = np.prod(rows[:, 2:4] - rows[:, :2], axis=1)
            filled[t] = rows[np.argsort(-area, kind="stable")]
    return FaceTable(np.array([len(rows) for rows in filled], np.int64), np.concatenate([faces.rows[:0], *filled]))


def _partners(first: NDArray[np.float32], second: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Places of the same face in two frames' rows (k, 17), best overlap first; none where the size changed."""
    if not len(first) or not len(second) or (first[0, 15:] != second[0, 15:]).any():
        return []
    overlap = iou(first[:, :4], second[:, :4])
    pairs: list[tuple[int, int]] = []
    while overlap.max() >= MIN_IOU:
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        pairs.append((int(i), int(j)))
        overlap[i], overlap[:, j] = -1, -1
    return pairs


@dataclass
class SparseDetection:
    """Detection on the scheduled frames of a recording alone, chunk by chunk; the others are filled in at the end.

    ``find`` gives the faces of frames (n, H, W, 3).
    """

    every: int
    find: Callable[[NDArray[np.uint8]], FaceTable]

    def __post_init__(self) -> None:
        self._schedule = Schedule(self.every)
        self._found: list[tuple[list[int], FaceTable]] = []
        self._last: Frames | None = None  # the last frame of the chunk before: a cut after it asks for it

    def push(self, frames: Frames) -> None:
        """Look at the next chunk."""
        height, width = frames.rgb.shape[1:3]
        rows = self._schedule.push(frames.index, thumbnails(frames.rgb), (height, width))
        if self._last is not None and rows and rows[0] == self._last.index[0]:
            self._detect(self._last, rows[:1])
            rows = rows[1:]
        if rows:
            self._detect(frames, rows)
        self._last = Frames(frames.rgb[-1:].copy(), frames.pts_s[-1:], frames.index[-1:])

    def finish(self, length: int) -> FaceTable:
        """The faces of all ``length`` rows."""
        rows = self._schedule.finish()
        if rows and self._last is not None:
            self._detect(self._last, rows)
        index = np.array([row for rows, _ in self._found for row in rows], np.int64)
        known = FaceTable.joined(table for _, table in self._found).spread(index, length)
        return fill_between(known, *self._schedule.masks(length))

    def _detect(self, frames: Frames, rows: list[int]) -> None:
        chosen = np.searchsorted(frames.index, rows)
        self._found.append((rows, self.find(frames.rgb[chosen])))
