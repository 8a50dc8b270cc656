"""From the frames of a chunk to rows of features: one warp per distinct template, every encoder on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders import Encode
from aupipe.extract.faces.align import CropTemplate, warp
from aupipe.store.base import ItemWriter
from aupipe.types import FaceTrack, FeatureSpec, Frames


@dataclass
class Sink:
    """One feature of one recording being filled in row order; rows never given are NaN."""

    spec: FeatureSpec
    encoder: Any
    encode: Encode
    shape: tuple[int, ...]
    writer: ItemWriter
    written: int = 0

    def put(self, index: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Rows ``index``, rising and beyond what was written."""
        stop = int(index[-1]) + 1
        rows = np.full((stop - self.written, *self.shape), np.nan, dtype=np.float32)
        rows[index - self.written] = values
        self.writer.append(rows)
        self.written = stop

    def finish(self, length: int) -> None:
        if self.written < length:
            self.writer.append(np.full((length - self.written, *self.shape), np.nan, dtype=np.float32))


def encode_chunk(sinks: list[Sink], frames: Frames, track: FaceTrack | None) -> None:
    """Encode the rows of one chunk that have a face; ``track`` is None for pictures that are crops already."""
    if track is None:
        keep = np.arange(len(frames))
        landmarks = None
    else:
        keep = np.flatnonzero(track.valid[frames.index])
        landmarks = track.landmarks[frames.index[keep]]
    if not len(keep):
        return
    crops: dict[CropTemplate, NDArray[np.uint8]] = {}  # one warp per distinct template
    for sink in sinks:
        template = sink.encoder.reads
        if template == "landmarks":
            sink.put(frames.index[keep], sink.encode(landmarks))
            continue
        if template not in crops:
            crops[template] = (
                _resized(frames.rgb, template.size_px)
                if landmarks is None
                else warp(frames.rgb[keep], landmarks, template)
            )
        sink.put(frames.index[keep], sink.encode(crops[template]))


def _resized(crops: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Aligned crops at the size an encoder takes: scaled, never warped again."""
    if crops.shape[1:3] == (size_px, size_px):
        return crops
    how = cv2.INTER_AREA if size_px < crops.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(crop, (size_px, size_px), interpolation=how) for crop in crops])
