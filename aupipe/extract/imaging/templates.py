"""Face crops: the similarity that brings five points to a template, and the warp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError

# The ArcFace template at 112 px: image-left eye, image-right eye, nose, mouth corners. Source: deepinsight/insightface,
# python-package/insightface/utils/face_align.py.
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

    def matrices(self, landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
        """(B, 2, 3): what brings (B, 5, 2) landmarks into the crop."""
        return similarity(landmarks, self.points())


@dataclass(frozen=True)
class ArcFaceCropTemplate(CropTemplate):
    """The 112-px form of the template at any size: what scaling a ``cropped_aligned`` image gives."""

    def points(self) -> NDArray[np.float64]:
        return ARCFACE_112 * (self.size_px / 112)


@dataclass(frozen=True)
class FfhqCropTemplate(CropTemplate):
    """The upright square FFHQ cuts (Karras et al., 2019), from five points instead of 68.

    Eye landmarks stand for the mean of six contour points each. Outside the picture its edge is mirrored; FFHQ also
    blurs that border. Crops much smaller than the face are averaged down, not sampled.
    """

    def matrices(self, landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
        points = np.asarray(landmarks, dtype=np.float64)
        z = points[..., 0] + 1j * points[..., 1]  # (B, 5)
        centre, half = ffhq_square(z[:, 0], z[:, 1], z[:, 3], z[:, 4])
        a = (self.size_px / 2) / half  # half an edge, along x, becomes half the crop
        b = (1 + 1j) * (self.size_px - 1) / 2 - a * centre  # pixel centres are whole numbers
        matrix = np.empty((len(points), 2, 3))
        matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2] = a.real, -a.imag, b.real
        matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 1, 2] = a.imag, a.real, b.imag
        return matrix


@dataclass(frozen=True)
class BoxCropTemplate(CropTemplate):
    """The detector's box, widened by ``margin`` of its size on each side, stretched to ``size_px`` squared.

    ``square``: the longer side is taken both ways, so that the aspect is kept. What lies outside the picture is left
    away, or black where the box is square.
    """

    margin: float = 0.0
    square: bool = False

    def points(self) -> NDArray[np.float64]:
        raise UsageError("box crops are cut from boxes, not warped from landmarks")


def is_cut_on_host(template: CropTemplate) -> bool:
    """Whether no device cuts such crops: they are averages, over another area for every face."""
    return isinstance(template, BoxCropTemplate | FfhqCropTemplate)


def ffhq_square(
    left_eye: NDArray[np.complex128],
    right_eye: NDArray[np.complex128],
    left_mouth: NDArray[np.complex128],
    right_mouth: NDArray[np.complex128],
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Centre and half edge (along the face's x) of FFHQ's square; points are complex numbers x + iy, image-left first.

    Restated from NVlabs/ffhq-dataset, download_ffhq.py: the direction averages the eye line and the line
    perpendicular to eyes-to-mouth; the size is the larger of 2 eye distances and 1.8 eyes-to-mouth distances.
    """
    eyes, middle = right_eye - left_eye, (left_eye + right_eye) / 2
    down = (left_mouth + right_mouth) / 2 - middle
    x = eyes - 1j * down  # (v_x + w_y, v_y - w_x): down turned back by 90 degrees, plus the eye line
    length = np.maximum(np.abs(x), 1e-6)
    half = x / length * np.maximum(np.maximum(2 * np.abs(eyes), 1.8 * np.abs(down)), 1e-6)
    return middle + 0.1 * down, half


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

    matrices = template.matrices(landmarks)
    if isinstance(template, FfhqCropTemplate):
        return _warp_averaged(frames, matrices, template.size_px)
    size = (template.size_px, template.size_px)
    crops = np.empty((len(frames), *size, 3), dtype=np.uint8)
    for frame, matrix, crop in zip(frames, matrices, crops, strict=True):
        cv2.warpAffine(frame, matrix, size, dst=crop, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return crops


def _warp_averaged(frames: NDArray[np.uint8], matrices: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
    """Warps at the picture's own resolution and averages down; the picture is mirrored at its edges."""
    import cv2

    crops = np.empty((len(frames), size_px, size_px, 3), dtype=np.uint8)
    for frame, matrix, crop in zip(frames, matrices, crops, strict=True):
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        factor = min(16, max(1, int(1 / max(scale, 1e-6))))
        fine = matrix * factor
        fine[:, 2] += (factor - 1) / 2  # pixel centres again
        side = size_px * factor
        whole = cv2.warpAffine(frame, fine, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        crop[:] = whole if factor == 1 else cv2.resize(whole, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return crops


def crop(
    frames: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    landmarks: NDArray[np.floating],
    template: CropTemplate,
) -> NDArray[np.uint8]:
    """(B, S, S, 3): one face of each (B, H, W, 3) frame, by its box (B, 4) or its landmarks (B, 5, 2)."""
    if isinstance(template, BoxCropTemplate):
        return cut(frames, boxes, template)
    return warp(frames, landmarks, template)


def cut(frames: NDArray[np.uint8], boxes: NDArray[np.floating], template: BoxCropTemplate) -> NDArray[np.uint8]:
    """(B, S, S, 3): the boxes (B, 4) xyxy of (B, H, W, 3) frames, cut and scaled as the template says."""
    import cv2

    height, width = frames.shape[1:3]
    size = (template.size_px, template.size_px)
    crops = np.zeros((len(frames), *size, 3), dtype=np.uint8)
    for frame, box, out in zip(frames, np.asarray(boxes, dtype=np.float64), crops, strict=True):
        centre, sides = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * (1 + 2 * template.margin)
        if template.square:
            sides = np.full(2, sides.max())
        left, top = np.rint(centre - sides / 2).astype(int)
        right, bottom = np.rint(centre + sides / 2).astype(int)
        inside = frame[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if not inside.size:
            continue  # a box beside the picture: black
        if template.square:
            before = (max(-top, 0), max(-left, 0))
            after = (max(bottom - height, 0), max(right - width, 0))
            inside = cv2.copyMakeBorder(inside, before[0], after[0], before[1], after[1], cv2.BORDER_CONSTANT)
        how = cv2.INTER_AREA if max(inside.shape[:2]) > template.size_px else cv2.INTER_LINEAR
        cv2.resize(inside, size, dst=out, interpolation=how)
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
