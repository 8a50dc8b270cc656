"""Detection on every n-th frame: which frames, where the shots are cut, and the faces of the frames between.

Off by default. On talking heads n = 3 moves landmarks by no more than the detector's own jitter; in crowds and stage
light faces are lost (specs/stages.md, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces.track import detection_rows, iou
from aupipe.types import Detections

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
    rows: NDArray[np.float32],
    present: NDArray[np.bool_],
    detected: NDArray[np.bool_],
    cuts: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Detection rows (T, N, 17) of every frame, from those of the detected ones.

    A face of the frame before and one of the frame after are the same where their boxes overlap (best first, at least
    `MIN_IOU`); between them box, points and score change in equal steps. A face without partner is in none of the
    frames between, and nothing reaches across a cut. ``present``, ``detected``, ``cuts`` (T,): see `Schedule.masks`;
    rows without a picture stay as they are. Detected rows are returned as they came.
    """
    filled = rows.copy()
    known = np.flatnonzero(detected)
    for before, after in pairwise(known):
        inside = np.arange(before + 1, after)[present[before + 1 : after]]
        if not len(inside) or cuts[before + 1 : after + 1].any():
            continue
        pairs = _partners(rows[before], rows[after])
        if not pairs:
            continue
        first = np.stack([rows[before, i] for i, _ in pairs])
        second = np.stack([rows[after, j] for _, j in pairs])
        for t in inside:
            share = np.float32((t - before) / (after - before))
            faces = first + (second - first) * share
            found = Detections(faces[:, :4], faces[:, 4:14].reshape(-1, 5, 2), faces[:, 14])
            height, width = (int(side) for side in first[0, 15:])
            filled[t] = detection_rows(found, height, width, rows.shape[1])
    return filled


def _partners(first: NDArray[np.float32], second: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Places of the same face in two frames' rows (N, 17), best overlap first; none where the size changed."""
    a, b = np.flatnonzero(first[:, 14] > 0), np.flatnonzero(second[:, 14] > 0)
    if not len(a) or not len(b) or (first[a[0], 15:] != second[b[0], 15:]).any():
        return []
    overlap = iou(first[a, :4], second[b, :4])
    pairs: list[tuple[int, int]] = []
    while overlap.max() >= MIN_IOU:
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        pairs.append((int(a[i]), int(b[j])))
        overlap[i], overlap[:, j] = -1, -1
    return pairs
