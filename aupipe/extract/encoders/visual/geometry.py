"""Face geometry: the five landmarks in a frame of their own, their distances, and the roll of the eye line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders.base import Encode
from aupipe.types import Modality

POINTS = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")  # left and right in the picture
PAIRS = tuple((i, j) for i in range(5) for j in range(i + 1, 5))


@dataclass(frozen=True)
class Geometry:
    """(B, 21): five points (10) with the eyes' middle at 0, level and one eye distance apart; the ten distances between
    them in eye distances; the roll of the eye line in radians.

    Left and right are those of the picture, in the detectors' order of points: ``eye_left`` is the person's right eye,
    unless the video is mirrored. Blendshapes are named by the person's own sides."""

    modality: ClassVar[Modality] = "visual"
    shareable: ClassVar[bool] = True
    version: ClassVar[int] = 1

    @property
    def reads(self) -> Literal["landmarks"]:
        return "landmarks"

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (len(self.column_names()),)

    def column_names(self) -> tuple[str, ...]:
        points = [f"{axis}_{point}" for axis in "xy" for point in POINTS]
        return (*points, *(f"{POINTS[i]}_to_{POINTS[j]}" for i, j in PAIRS), "roll_rad")

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> Encode:
        return geometry


def geometry(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """(B, 5, 2) px -> (B, 21) float32; see `Geometry`."""
    points = np.asarray(landmarks, dtype=np.float64)
    z = points[..., 0] + 1j * points[..., 1]  # (B, 5)
    eyes = z[:, 1] - z[:, 0]
    eyes = np.where(np.abs(eyes) < 1e-6, 1e-6, eyes)
    normal = (z - (z[:, :1] + z[:, 1:2]) / 2) / eyes[:, None]  # (B, 5), eyes at -0.5 and 0.5
    distances = np.stack([np.abs(normal[:, i] - normal[:, j]) for i, j in PAIRS], axis=1)  # (B, 10)
    columns = [normal.real, normal.imag, distances, np.angle(eyes)[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)
