"""Finding, following and aligning the face.

A detector is a frozen dataclass of its parameters (no torch needed to plan with it) whose ``load(device)`` gives a
function ``frames uint8 (B, H, W, 3) RGB -> list of B Detections`` in pixels of those frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.registry import Registry
from aupipe.types import Detections, Weights

DETECTORS = Registry(
    "detector",
    {
        "mtcnn": "aupipe.extract.faces.mtcnn:Mtcnn",
        "retinaface": "aupipe.extract.faces.retinaface:RetinaFace",
        "scrfd": "aupipe.extract.faces.scrfd:Scrfd",
        "yunet": "aupipe.extract.faces.yunet:YuNet",
    },
)

Detect = Callable[[NDArray[np.uint8]], list[Detections]]


class Detector(Protocol):
    """What every registered detector offers."""

    version: ClassVar[int]  # raised when the numbers change
    min_score: float

    def identify_weights(self) -> Weights:
        """Which weights it will use. Raises WeightsMissingError, naming file, sha256 and how to get it."""
        ...

    def load(self, device: str) -> Detect:
        """The detector, ready on a torch device (``cpu``, ``cuda:0``)."""
        ...


NO_FACES = Detections(
    box=np.zeros((0, 4), np.float32), landmarks=np.zeros((0, 5, 2), np.float32), score=np.zeros(0, np.float32)
)
