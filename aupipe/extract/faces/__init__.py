"""Finding, following and aligning the face.

A detector is a frozen dataclass of its parameters (no torch needed to plan with it) whose ``load(device)`` gives a
function ``frames uint8 (B, H, W, 3) RGB -> list of B Detections`` in pixels of those frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from aupipe.registry import Registry
from aupipe.types import Detections, Weights

if TYPE_CHECKING:
    from torch import Tensor

DETECTORS = Registry(
    "detector",
    {
        "mtcnn": "aupipe.extract.faces.detectors.mtcnn:Mtcnn",
        "retinaface": "aupipe.extract.faces.detectors.retinaface:RetinaFace",
        "scrfd": "aupipe.extract.faces.detectors.scrfd:Scrfd",
        "yunet": "aupipe.extract.faces.detectors.yunet:YuNet",
    },
)

Detect = Callable[[NDArray[np.uint8]], list[Detections]]


class FaceTensors(NamedTuple):
    """Every face of B frames, on a device: K places a frame, the first ``number`` of them filled, best first, rest 0.

    ``settled`` (B,) bool: False where a frame had more candidates than were looked at, or overlaps that were not
    decided in the rounds given; its faces are then not certain. Nothing here has been copied to the host.
    """

    box: Tensor  # (B, K, 4) xyxy px
    landmarks: Tensor  # (B, K, 5, 2) px
    score: Tensor  # (B, K)
    number: Tensor  # (B,)
    settled: Tensor  # (B,)

    def to_detections(self) -> list[Detections]:
        """On the host, frame by frame; waits for the device."""
        box, landmarks, score = (each.float().cpu().numpy() for each in self[:3])
        return [Detections(box[i, :n], landmarks[i, :n], score[i, :n]) for i, n in enumerate(self.number.tolist())]


DetectTensor = Callable[["Tensor"], FaceTensors]


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
