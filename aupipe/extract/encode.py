"""From the frames of a chunk to rows of features: one warp per distinct template, every encoder on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders import Encode
from aupipe.extract.faces.align import CropTemplate, crop
from aupipe.extract.job import OpenItem
from aupipe.store.base import ItemWriter
from aupipe.types import FaceTrack, Frames


@dataclass
class Sink:
    """One feature of one recording being filled in row order; rows never given are NaN."""

    item: OpenItem
    encode: Encode
    shape: tuple[int, ...]
    writer: ItemWriter
    written: int = 0

    def put(self, index: NDArray[np.int64], inputs: NDArray[Any]) -> None:
        """Encode inputs of rows ``index``, rising and beyond what was written."""
        if not len(index):
            return
        stop = int(index[-1]) + 1
        rows = np.full((stop - self.written, *self.shape), np.nan, dtype=np.float32)
        rows[index - self.written] = self.encode(inputs)
        self.writer.append(rows)
        self.written = stop

    def finish(self, length: int) -> None:
        """Fill up to ``length`` rows."""
        if self.written < length:
            self.writer.append(np.full((length - self.written, *self.shape), np.nan, dtype=np.float32))


@dataclass
class Warps:
    """The faces of one chunk of frames, warped once per distinct template; ``track`` None: the pictures are crops."""

    frames: Frames
    track: FaceTrack | None
    _crops: dict[CropTemplate, NDArray[np.uint8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = np.ones(len(self.frames), dtype=bool) if self.track is None else self.track.valid[self.frames.index]
        self._keep = np.flatnonzero(found)

    def input_of(self, reads: CropTemplate | Literal["landmarks"]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The rows (n,) that have a face, and what an encoder reads of them."""
        index = self.frames.index[self._keep]
        if isinstance(reads, CropTemplate):
            if reads not in self._crops and len(index):
                self._crops[reads] = self._cropped(index, reads)
            return index, self._crops.get(reads, np.zeros((0, reads.size_px, reads.size_px, 3), np.uint8))
        assert self.track is not None  # whoever reads landmarks is refused for crops that carry none
        return index, self.track.landmarks[index]

    def _cropped(self, index: NDArray[np.int64], template: CropTemplate) -> NDArray[np.uint8]:
        if self.track is None:
            return _resized(self.frames.rgb, template.size_px)
        return crop(self.frames.rgb[self._keep], self.track.box[index], self.track.landmarks[index], template)


def _resized(crops: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Aligned crops at the size an encoder takes: scaled, never warped again."""
    if crops.shape[1:3] == (size_px, size_px):
        return crops
    how = cv2.INTER_AREA if size_px < crops.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(crop, (size_px, size_px), interpolation=how) for crop in crops])
