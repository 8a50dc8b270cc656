"""MediaPipe's 478 face landmarks (Google, 2022-2023), and FFHQ's square through eye contours and mouth corners."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.imaging.templates import FfhqCropTemplate, warp
from aupipe.extract.weights import RefusedWeightsError

SIZE_PX = 256
LANDMARKS = 478

# The points of iBUG-68 that FFHQ's square is laid through, among the 478: 36 to 41, 42 to 47, 48 and 54.
LEFT_EYE = (33, 160, 158, 133, 153, 144)
RIGHT_EYE = (362, 385, 387, 263, 373, 380)
LEFT_MOUTH, RIGHT_MOUTH = 61, 291


@dataclass(frozen=True)
class WideFfhqCropTemplate(FfhqCropTemplate):
    """`FfhqCropTemplate` with a margin around it: the square takes ``1 / widen`` of each side, in the middle."""

    widen: float = 1.25

    def matrices(self, landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
        matrix = super().matrices(landmarks) / self.widen
        matrix[:, :, 2] += (self.size_px - 1) / 2 * (1 - 1 / self.widen)  # the middle stays
        return matrix

    @property
    def square(self) -> slice:
        """Rows and columns of the square itself."""
        edge = round(self.size_px * (1 - 1 / self.widen) / 2)
        return slice(edge, self.size_px - edge)


def open_member(path: Path, member: str) -> Any:
    """One network of a face landmarker bundle, in OpenCV. Raises RefusedWeightsError."""
    import cv2

    try:
        with zipfile.ZipFile(path) as bundle, tempfile.TemporaryDirectory() as folder:
            # OpenCV 5's new engine misreads these files, and the choice of engine is ignored for one in memory.
            return cv2.dnn.readNetFromTFLite(bundle.extract(member, folder), cv2.dnn.ENGINE_CLASSIC)
    except (zipfile.BadZipFile, KeyError, cv2.error) as error:
        raise RefusedWeightsError(f"{path} is no MediaPipe face landmarker bundle: {error}") from error


def open_mesh(path: Path) -> Any:
    """The landmark network of a bundle. Raises RefusedWeightsError."""
    return open_member(path, "face_landmarks_detector.tflite")


def mesh_landmarks(mesh: Any, crop: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    """(478, 3) landmarks in crop pixels and the presence logit of one (256, 256, 3) RGB crop."""
    mesh.setInput(np.ascontiguousarray(crop.transpose(2, 0, 1)[None], dtype=np.float32) / 255)
    points, presence = mesh.forward(["Identity", "Identity_1"])
    return np.array(points, np.float32).reshape(LANDMARKS, 3), float(presence.ravel()[0])


def ffhq_points(mesh: Any, crop: NDArray[np.uint8], square: slice) -> NDArray[np.float64] | None:
    """(5, 2) means of the eye contours, nose (NaN) and mouth corners in pixels of ``crop``; None where no face is seen.

    The landmarks are looked for in ``square``, the rows and columns FFHQ's square through five points takes.
    """
    import cv2

    inside = crop[square, square]
    seen: NDArray[Any] = cv2.resize(inside, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    points, presence = mesh_landmarks(mesh, seen)
    if presence < 0:
        return None
    at = (points[:, :2].astype(np.float64) + 0.5) * (len(inside) / SIZE_PX) - 0.5 + square.start
    eyes = [at[list(eye)].mean(axis=0) for eye in (LEFT_EYE, RIGHT_EYE)]
    return np.array([*eyes, [np.nan, np.nan], at[LEFT_MOUTH], at[RIGHT_MOUTH]])


def ffhq_crops(
    mesh: Any, crops: NDArray[np.uint8], template: WideFfhqCropTemplate, size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(B, size_px, size_px, 3) FFHQ crops through the contours seen in (B, S, S, 3) wide ones, and (B,) where any are.

    Where the network sees no face, the crop is black.
    """
    found = np.zeros((len(crops), size_px, size_px, 3), np.uint8)
    seen = np.zeros(len(crops), bool)
    for i, crop in enumerate(crops):
        points = ffhq_points(mesh, crop, template.square)
        if points is not None:
            found[i] = warp(crop[None], points[None], FfhqCropTemplate(size_px))[0]
            seen[i] = True
    return found, seen
