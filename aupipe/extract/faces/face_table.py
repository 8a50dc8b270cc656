"""The faces of many frames, compactly: hours of video in a few megabytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aupipe.types import Detections

COLUMNS = 17  # box, five points, score, height and width of the frame
BLOCK_FRAMES = 4096


@dataclass(frozen=True)
class FaceTable:
    """``counts`` (T,): faces of each frame; ``rows`` (sum, 17): those faces, frame after frame, largest first."""

    counts: NDArray[np.int64]
    rows: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """(k, 17): the faces of each frame."""
        stop = 0
        for count in self.counts:
            start, stop = stop, stop + int(count)
            yield self.rows[start:stop]

    @classmethod
    def joined(cls, parts: Iterable[FaceTable]) -> FaceTable:
        """Tables of successive frames as one."""
        parts = list(parts)
        return cls(
            np.concatenate([part.counts for part in parts]) if parts else np.zeros(0, np.int64),
            np.concatenate([part.rows for part in parts]) if parts else np.zeros((0, COLUMNS), np.float32),
        )

    @classmethod
    def from_dense(cls, dense: NDArray[np.float32]) -> FaceTable:
        """From the stored form (T, N, 17), in which places without a face have no score above 0."""
        parts = []
        for start in range(0, len(dense), BLOCK_FRAMES):
            block = np.asarray(dense[start : start + BLOCK_FRAMES], dtype=np.float32)
            here = block[:, :, 14] > 0  # False for NaN
            parts.append(cls(here.sum(axis=1).astype(np.int64), block[here]))
        return cls.joined(parts)

    def dense(self, max_faces: int) -> Iterator[NDArray[np.float32]]:
        """The stored form, in blocks (n, max_faces, 17).

        Places without a face are 0; a frame without any face is NaN throughout.
        """
        start = 0
        for first in range(0, len(self), BLOCK_FRAMES):
            counts = self.counts[first : first + BLOCK_FRAMES]
            part = FaceTable(counts, self.rows[start : start + counts.sum()])
            start += len(part.rows)
            block = np.zeros((len(counts), max_faces, COLUMNS), np.float32)
            block[counts == 0] = np.nan
            block[part.frame, part.place] = part.rows
            yield block

    @property
    def frame(self) -> NDArray[np.int64]:
        """(sum,) the frame of each face."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def place(self) -> NDArray[np.int64]:
        """(sum,) 0 for the first face of each frame, 1 for the second, and so on."""
        starts = np.cumsum(self.counts) - self.counts
        return np.arange(len(self.rows)) - np.repeat(starts, self.counts)

    def spread(self, index: NDArray[np.int64], length: int) -> FaceTable:
        """The same faces in a longer recording, of which these are the frames ``index``, rising."""
        counts = np.zeros(length, np.int64)
        counts[index] = self.counts
        return FaceTable(counts, self.rows)

    def chosen(self, boxes: NDArray[np.float32]) -> NDArray[np.int64]:
        """(T,) the place of the face whose box is ``boxes`` (T, 4), exactly; -1 where no face has it."""
        same = np.flatnonzero((self.rows[:, :4] == boxes[self.frame]).all(axis=1))[::-1]  # the first one wins
        places = np.full(len(self), -1, np.int64)
        places[self.frame[same]] = self.place[same]
        return places


class PaddedFaces(NamedTuple):
    """The faces of B frames in K places each, of which the first ``number`` (B,) hold one.

    ``box`` (B, K, 4) xyxy px, ``landmarks`` (B, K, 5, 2) px, ``score`` (B, K); ``settled`` (B,): whether that is sure.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: NDArray[np.float32]
    number: NDArray[np.int64]
    settled: NDArray[np.bool_]

    def to_detections(self) -> list[Detections]:
        """Frame by frame."""
        return [
            Detections(self.box[i, :n], self.landmarks[i, :n], self.score[i, :n]) for i, n in enumerate(self.number)
        ]


def pad_faces(found: Sequence[Detections]) -> PaddedFaces:
    """What was found frame by frame, as one array."""
    number = np.array([len(one.score) for one in found], dtype=np.int64)
    shape = len(found), int(number.max(initial=0))
    places = PaddedFaces(
        np.zeros((*shape, 4), np.float32),
        np.zeros((*shape, 5, 2), np.float32),
        np.zeros(shape, np.float32),
        number,
        np.ones(len(found), bool),
    )
    for i, one in enumerate(found):
        for place, values in zip(places[:3], (one.box, one.landmarks, one.score), strict=True):
            place[i, : len(values)] = values
    return places


def to_table(
    found: PaddedFaces, factor: int, height: int, width: int, max_faces: int, min_score: float = -np.inf
) -> FaceTable:
    """The faces of frames of ``height`` x ``width`` that were shrunk by ``factor``, largest first, ``max_faces`` each.

    Coordinates are those of the whole frame.
    """
    most = int(found.number.max(initial=0))
    score = found.score[:, :most]
    there = (np.arange(most) < found.number[:, None]) & (score >= min_score)  # (B, K)
    box, points = (enlarged(part[:, :most], factor) for part in (found.box, found.landmarks))
    area = np.prod(box[..., 2:] - box[..., :2], axis=-1)
    order = np.lexsort((-area, ~there), axis=1)[:, :max_faces]
    counts = np.minimum(there.sum(axis=1), max_faces)
    row, place = np.nonzero(np.arange(order.shape[1]) < counts[:, None])
    taken = row, order[row, place]
    rows = np.empty((len(row), COLUMNS), dtype=np.float32)
    rows[:, :4] = box[taken]
    rows[:, 4:14] = points[taken].reshape(-1, 10)  # (n, 5, 2) -> (n, 10)
    rows[:, 14] = score[taken]
    rows[:, 15:] = height, width
    return FaceTable(counts, rows)


def enlarged(coordinates: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Coordinates in a picture shrunk by a whole factor, in the full picture: pixel centres map to block centres."""
    return coordinates * np.float32(factor) + np.float32((factor - 1) / 2)
