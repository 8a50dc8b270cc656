"""Every face of a chunk of frames, in the form the store keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces import Detect
from aupipe.extract.faces.align import shrink, shrink_factor
from aupipe.extract.faces.table import COLUMNS, FaceTable
from aupipe.types import Detections


def find_faces(
    rgb: NDArray[np.uint8], detect: Detect, *, detect_px: int, max_faces: int, min_score: float
) -> FaceTable:
    """The faces of frames (T, H, W, 3), at most ``max_faces`` of each, the largest, in pixels of the whole frame.

    ``detect_px``: frames are shrunk by the smallest whole factor that brings the long side to this or below.
    """
    height, width = rgb.shape[1:3]
    factor = shrink_factor(height, width, detect_px)
    found = [face_rows(_above(one, min_score), factor, height, width, max_faces) for one in detect(shrink(rgb, factor))]
    counts = np.array([len(rows) for rows in found], dtype=np.int64)
    return FaceTable(counts, np.concatenate(found) if found else np.zeros((0, COLUMNS), np.float32))


def _above(found: Detections, min_score: float) -> Detections:
    keep = found.score >= min_score
    return Detections(found.box[keep], found.landmarks[keep], found.score[keep])


def face_rows(found: Detections, factor: int, height: int, width: int, max_faces: int) -> NDArray[np.float32]:
    """(k, 17) the faces found in a frame shrunk by ``factor``, largest first: box, five points, score, frame size.

    Coordinates are those of the whole frame of ``height`` x ``width``.
    """
    found = enlarged(found, factor)
    area = np.prod(found.box[:, 2:] - found.box[:, :2], axis=1)
    kept = np.argsort(-area, kind="stable")[:max_faces]
    rows = np.empty((len(kept), COLUMNS), dtype=np.float32)
    rows[:, :4] = found.box[kept]
    rows[:, 4:14] = found.landmarks[kept].reshape(-1, 10)  # (k, 5, 2) -> (k, 10)
    rows[:, 14] = found.score[kept]
    rows[:, 15:] = height, width
    return rows


def enlarged(found: Detections, factor: int) -> Detections:
    """Coordinates in a picture shrunk by a whole factor, in the full picture: pixel centres map to block centres."""
    if factor == 1:
        return found
    shift = np.float32((factor - 1) / 2)
    return Detections(found.box * factor + shift, found.landmarks * factor + shift, found.score)
