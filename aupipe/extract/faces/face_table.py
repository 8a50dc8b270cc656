"""The faces of many frames, compactly: hours of video in a few megabytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
