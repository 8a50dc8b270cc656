"""Every face of every frame of a recording, in the form the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces import Detect
from aupipe.extract.faces.align import shrink, shrink_factor
from aupipe.extract.faces.track import detection_rows
from aupipe.types import Detections, Frames


def find_faces(
    chunks: Iterable[Frames],
    detect: Detect,
    *,
    detect_px: int,
    max_faces: int,
    min_score: float,
    length: int = 0,
    on_frames: Callable[[int], None] = lambda n: None,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Times (T,) as decoded and detection rows (T, max_faces, 17) of a recording; rows without a picture stay NaN.

    ``detect_px``: frames are shrunk by the smallest whole factor that brings the long side to this or below.
    ``length``: the number of rows where it is known beforehand; a folder of images may end before its clock does.
    """
    times: list[NDArray[np.float64]] = []
    rows: dict[int, NDArray[np.float32]] = {}
    for frames in chunks:
        height, width = frames.rgb.shape[1:3]
        factor = shrink_factor(height, width, detect_px)
        found = detect(shrink(frames.rgb, factor))
        for index, one in zip(frames.index, found, strict=True):
            kept = enlarged(_above(one, min_score), factor)
            rows[int(index)] = detection_rows(kept, height, width, max_faces)
        times.append(frames.pts_s)
        on_frames(len(frames))
    total = max(length, max(rows, default=-1) + 1)
    whole = np.full((total, max_faces, 17), np.nan, dtype=np.float32)
    for index, row in rows.items():
        whole[index] = row
    return np.concatenate(times) if times else np.zeros(0), whole


def _above(found: Detections, min_score: float) -> Detections:
    keep = found.score >= min_score
    return Detections(found.box[keep], found.landmarks[keep], found.score[keep])


def enlarged(found: Detections, factor: int) -> Detections:
    """Coordinates in a picture shrunk by a whole factor, in the full picture: pixel centres map to block centres."""
    if factor == 1:
        return found
    shift = np.float32((factor - 1) / 2)
    return Detections(found.box * factor + shift, found.landmarks * factor + shift, found.score)
