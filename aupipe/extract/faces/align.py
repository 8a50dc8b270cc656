"""Face crops: the similarity that brings five points to a template, and the warp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The ArcFace template at 112 px (specs/encoders.md, 12.4): image-left eye, image-right eye, nose, mouth corners.
ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


@dataclass(frozen=True)
class CropTemplate:
    """An aligned square crop of ``size_px``; two encoders that ask for equal templates share one warp."""

    size_px: int = 112

    def points(self) -> NDArray[np.float64]:
        """(5, 2) where the five landmarks go.

        Sizes that are multiples of 128 but not of 112 use the 128-px form of the template, which is 8 px wider on each
        side in x; every other size scales the 112-px form.
        """
        if self.size_px % 128 == 0 and self.size_px % 112:
            return (ARCFACE_112 + np.array([8.0, 0.0])) * (self.size_px / 128)
        return ARCFACE_112 * (self.size_px / 112)


def similarity(landmarks: NDArray[np.floating], template: NDArray[np.floating]) -> NDArray[np.float64]:
    """(B, 2, 3) least-squares similarities (rotation, scale, shift; no reflection) from (B, 5, 2) points to (5, 2).

    In closed form, as a complex regression w = a z + b: equal to Umeyama's solution wherever that has no reflection.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    z = points[..., 0] + 1j * points[..., 1]  # (B, 5)
    w = template[:, 0] + 1j * template[:, 1]  # (5,)
    z_mean = z.mean(axis=1, keepdims=True)
    centred = z - z_mean
    spread = np.maximum((np.abs(centred) ** 2).sum(axis=1), 1e-12)  # five equal points have no similarity
    a = (np.conj(centred) * (w - w.mean())).sum(axis=1) / spread
    b = w.mean() - a * z_mean[:, 0]
    matrix = np.empty((len(points), 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2] = a.real, -a.imag, b.real
    matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 1, 2] = a.imag, a.real, b.imag
    return matrix


def warp(frames: NDArray[np.uint8], landmarks: NDArray[np.floating], template: CropTemplate) -> NDArray[np.uint8]:
    """(B, S, S, 3) aligned crops of (B, H, W, 3) frames by (B, 5, 2) landmarks: bilinear, black outside the picture."""
    import cv2

    matrices = similarity(landmarks, template.points())
    size = (template.size_px, template.size_px)
    crops = np.empty((len(frames), *size, 3), dtype=np.uint8)
    for frame, matrix, crop in zip(frames, matrices, crops, strict=True):
        cv2.warpAffine(frame, matrix, size, dst=crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return crops


def shrink_factor(height: int, width: int, detect_px: int) -> int:
    """The smallest whole factor that brings the long side to ``detect_px`` or below."""
    return max(1, -(-max(height, width) // detect_px))


def shrink(frames: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """(B, H // factor, W // factor, 3): box averages. Whole factors, so that every device sees the same picture."""
    import cv2

    if factor == 1:
        return frames
    height, width = frames.shape[1] // factor, frames.shape[2] // factor
    return np.stack(
        [
            cv2.resize(frame[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
            for frame in frames
        ]
    )
