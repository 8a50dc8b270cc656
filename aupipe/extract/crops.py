"""From frames to what encoders read: one crop per face and distinct template, made while the frame is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces.align import CropTemplate, crop
from aupipe.extract.faces.table import FaceTable
from aupipe.extract.memory import Budget
from aupipe.types import FaceTrack, Frames

MAX_KEPT_FACES = 4  # in a frame with more, decoding it again is cheaper than cropping everybody

Crops = NDArray[np.uint8]


def track_crops(frames: Frames, track: FaceTrack, template: CropTemplate) -> tuple[NDArray[np.int64], Crops]:
    """The rows (n,) of a chunk in which the subject is seen, and its crops (n, S, S, 3)."""
    seen = np.flatnonzero(track.valid[frames.index])
    index = frames.index[seen]
    if not len(index):
        return index, _no_crops(template)
    return index, crop(frames.rgb[seen], track.box[index], track.landmarks[index], template)


def whole_crops(frames: Frames, template: CropTemplate) -> Crops:
    """(n, S, S, 3) whole pictures: the shorter side scaled to S, the middle cut out.

    A square picture of another size (an aligned crop somebody else made) is scaled, never warped again.
    """
    size = template.size_px
    height, width = frames.rgb.shape[1:3]
    if (height, width) == (size, size):
        return frames.rgb
    scale = size / min(height, width)
    scaled = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crops = np.empty((len(frames), size, size, 3), np.uint8)
    for frame, out in zip(frames.rgb, crops, strict=True):
        out[:] = cv2.resize(frame, scaled, interpolation=how)[top : top + size, left : left + size]
    return crops


def _no_crops(template: CropTemplate) -> Crops:
    return np.zeros((0, template.size_px, template.size_px, 3), np.uint8)


@dataclass
class _Kept:
    """Crops of the faces of one chunk: crop i is face ``slot[i]`` of frame ``row[i]``."""

    row: NDArray[np.int64]
    slot: NDArray[np.int64]
    crops: dict[CropTemplate, Crops]
    nbytes: int


@dataclass
class KeptCrops:
    """Crops of every face of the first frames of a video, made before anybody knows whose features are wanted.

    Who the subject is shows when the whole video has been seen. Keeping the crops until then saves decoding it again;
    ``complete`` is the row up to which they were kept, before the budget ran out or a frame was too crowded.
    """

    templates: Sequence[CropTemplate]
    budget: Budget
    complete: int = 0
    full: bool = False
    _chunks: list[_Kept] = field(default_factory=list)

    def add_faces(self, frames: Frames, faces: FaceTable) -> None:
        """Keep the crops of a chunk; ``faces`` are those of its frames."""
        if self.full or not len(frames):
            return
        if faces.counts.max(initial=0) > MAX_KEPT_FACES:
            self.full = True
            return
        at = faces.frame
        if not self._room(len(at)):
            return
        rgb = frames.rgb if len(at) == len(frames) and (faces.counts == 1).all() else frames.rgb[at]
        boxes, points = faces.rows[:, :4], faces.rows[:, 4:14].reshape(-1, 5, 2)
        made = {template: crop(rgb, boxes, points, template) for template in self.templates} if len(at) else {}
        self._keep(frames, frames.index[at], faces.place, made)

    def add_whole(self, frames: Frames) -> None:
        """Keep a chunk's whole pictures."""
        if self.full or not self._room(len(frames)):
            return
        made = {template: whole_crops(frames, template) for template in self.templates}
        self._keep(frames, frames.index, np.zeros(len(frames), np.int64), made)

    def _room(self, faces: int) -> bool:
        nbytes = faces * sum(3 * template.size_px**2 for template in self.templates)
        self.full = not self.budget.try_take(nbytes)
        return not self.full

    def _keep(
        self, frames: Frames, row: NDArray[np.int64], slot: NDArray[np.int64], made: dict[CropTemplate, Crops]
    ) -> None:
        nbytes = len(row) * sum(3 * template.size_px**2 for template in self.templates)
        self._chunks.append(_Kept(row, slot, made, nbytes))
        self.complete = int(frames.index[-1]) + 1

    def chosen(
        self, picked: Iterable[tuple[NDArray[np.int64], CropTemplate]]
    ) -> Iterator[list[tuple[NDArray[np.int64], Crops]]]:
        """Chunk by chunk, for every (face chosen in each row or -1, template): rows (n,) and crops (n, S, S, 3).

        A chunk is let go of when the next one is asked for.
        """
        wanted = list(picked)
        while self._chunks:
            kept = self._chunks.pop(0)
            pieces = []
            for choice, template in wanted:
                keep = np.flatnonzero(choice[kept.row] == kept.slot)
                crops = kept.crops.get(template)
                pieces.append((kept.row[keep], _no_crops(template) if crops is None else crops[keep]))
            yield pieces
            self.budget.give_back(kept.nbytes)

    def drop(self) -> None:
        """Let go of everything."""
        for kept in self._chunks:
            self.budget.give_back(kept.nbytes)
        self._chunks.clear()
