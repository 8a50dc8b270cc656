"""From frames to what encoders read: one crop per face and distinct template, made while the frame is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.imaging.templates import CropTemplate, crop, is_cut_on_host
from aupipe.extract.media.frame_buffer import FrameChunk
from aupipe.extract.memory import Budget
from aupipe.types import FaceTrack, Frames

MAX_KEPT_FACES = 4  # in a frame with more, decoding it again is cheaper than cropping everybody

Crops = Any  # uint8 (n, S, S, 3): an array on the host, or a tensor where the frames lie on a device


def face_crops(
    frames: FrameChunk,
    at: NDArray[np.int64],
    boxes: NDArray[np.floating],
    landmarks: NDArray[np.floating],
    template: CropTemplate,
) -> Crops:
    """(K, S, S, 3): faces of the frames ``at`` (K,) of a chunk, by boxes (K, 4) and landmarks (K, 5, 2)."""
    if not len(at):
        return _no_crops(template)
    if not isinstance(frames, Frames):
        from aupipe.extract.gpu.frames import DeviceFrames

        assert isinstance(frames, DeviceFrames)
        return frames.crop(at, boxes, landmarks, template)
    everyone = len(at) == len(frames) and (at == np.arange(len(at))).all()
    return crop(frames.rgb if everyone else frames.rgb[at], boxes, landmarks, template)


def track_crops(frames: FrameChunk, track: FaceTrack, template: CropTemplate) -> tuple[NDArray[np.int64], Crops]:
    """The rows (n,) of a chunk in which the subject is seen, and its crops (n, S, S, 3)."""
    seen = np.flatnonzero(track.valid[frames.index])
    index = frames.index[seen]
    return index, face_crops(frames, seen, track.box[index], track.landmarks[index], template)


def whole_crops(frames: FrameChunk, template: CropTemplate) -> NDArray[np.uint8]:
    """(n, S, S, 3) whole pictures: the shorter side scaled to S, the middle cut out.

    A square picture of another size (an aligned crop somebody else made) is scaled, never warped again.
    """
    size = template.size_px
    height, width = frames.size
    rgb = frames.rgb
    if (height, width) == (size, size):
        return rgb
    scale = size / min(height, width)
    scaled = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crops = np.empty((len(frames), size, size, 3), np.uint8)
    for frame, out in zip(rgb, crops, strict=True):
        out[:] = cv2.resize(frame, scaled, interpolation=how)[top : top + size, left : left + size]
    return crops


def _no_crops(template: CropTemplate) -> NDArray[np.uint8]:
    return np.zeros((0, template.size_px, template.size_px, 3), np.uint8)


@dataclass
class _Kept:
    """Crops of the faces of one chunk: crop i is face ``slot[i]`` of frame ``row[i]``."""

    row: NDArray[np.int64]
    slot: NDArray[np.int64]
    crops: dict[CropTemplate, Crops]
    acquired: list[tuple[Budget, int]]  # bytes

    def release(self) -> None:
        for budget, count in self.acquired:
            budget.release(count)


@dataclass
class KeptCrops:
    """Crops of every face of the first frames of a video, made before anybody knows whose features are wanted.

    Who the subject is shows when the whole video has been seen. Keeping the crops until then saves decoding it again;
    ``complete`` is the row up to which they were kept, before the budget ran out or a frame was too crowded.
    """

    templates: Sequence[CropTemplate]
    budget: Budget
    device_budget: Budget  # of crops that lie where their frames do, on a device
    complete: int = 0
    full: bool = False
    _chunks: list[_Kept] = field(default_factory=list)

    def add_faces(self, frames: FrameChunk, faces: FaceTable) -> None:
        """Keep the crops of a chunk; ``faces`` are those of its frames."""
        if self.full or not len(frames):
            return
        if faces.counts.max(initial=0) > MAX_KEPT_FACES:
            self.full = True
            return
        at = faces.frame
        made = self._keep(frames, frames.index[at], faces.place, not isinstance(frames, Frames))
        boxes, points = faces.rows[:, :4], faces.rows[:, 4:14].reshape(-1, 5, 2)
        if made is None:
            return
        for template in self.templates:
            made[template] = face_crops(frames, at, boxes, points, template)

    def add_whole(self, frames: FrameChunk) -> None:
        """Keep a chunk's whole pictures."""
        if self.full:
            return
        made = self._keep(frames, frames.index, np.zeros(len(frames), np.int64), False)
        if made is None:
            return
        for template in self.templates:
            made[template] = whole_crops(frames, template)

    def _keep(
        self, frames: FrameChunk, row: NDArray[np.int64], slot: NDArray[np.int64], on_device: bool
    ) -> dict[CropTemplate, Crops] | None:
        """Where the crops of a chunk go, their bytes acquired: should one fail, `drop` releases them. None, and
        nothing acquired, where the budgets are spent."""
        kept = _Kept(row, slot, {}, [])
        for budget, templates in self._by_budget(on_device):
            count = len(row) * sum(3 * template.size_px**2 for template in templates)
            if not budget.try_acquire(count):
                self.full = True
                kept.release()
                return None
            kept.acquired.append((budget, count))
        self._chunks.append(kept)
        self.complete = int(frames.index[-1]) + 1
        return kept.crops

    def _by_budget(self, on_device: bool) -> list[tuple[Budget, list[CropTemplate]]]:
        """The templates whose crops lie on the host, and those whose crops lie on the device."""
        host = [template for template in self.templates if not on_device or is_cut_on_host(template)]
        device = [template for template in self.templates if template not in host]
        return [(self.budget, host), (self.device_budget, device)]

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
                pieces.append((kept.row[keep], _no_crops(template) if crops is None else _chosen(crops, keep)))
            yield pieces
            kept.release()

    def drop(self) -> None:
        """Let go of everything."""
        for kept in self._chunks:
            kept.release()
        self._chunks.clear()


def _chosen(crops: Crops, keep: NDArray[np.int64]) -> Crops:
    if len(keep) == len(crops):
        return crops
    if isinstance(crops, np.ndarray):
        return crops[keep]
    from aupipe.extract.gpu.transfer import upload

    return crops[upload(keep, crops.device)]
