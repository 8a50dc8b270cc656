"""YuNet (Wu et al., 2023) through OpenCV: small, permissive, ten times MTCNN's speed; the weight file is the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces import NO_FACES, Detect
from aupipe.extract.weights import KNOWN_WEIGHTS, find_weights, identify
from aupipe.types import Detections, Weights


@dataclass(frozen=True)
class YuNet:
    """`cv2.FaceDetectorYN` on the CPU; good for faces of about 10 to 300 px in the picture it sees."""

    weights_file: str = "face_detection_yunet_2023mar.onnx"
    nms_threshold: float = 0.3
    top_k: int = 5000
    min_score: float = 0.7

    version: ClassVar[int] = 1

    def identify_weights(self) -> Weights:
        return identify(self.weights_file)

    def load(self, device: str) -> Detect:
        import cv2

        path = find_weights(self.weights_file, KNOWN_WEIGHTS.get(self.weights_file))
        network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), self.min_score, self.nms_threshold, self.top_k)

        def detect(frames: NDArray[np.uint8]) -> list[Detections]:
            height, width = frames.shape[1:3]
            network.setInputSize((width, height))
            return [_detections(network.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1]) for frame in frames]

        return detect


def _detections(rows: NDArray | None) -> Detections:
    """Rows of x, y, w, h, five points, score; the points come in the ArcFace template's order already."""
    if rows is None:
        return NO_FACES
    box = rows[:, :4].astype(np.float32)
    box[:, 2:] += box[:, :2]  # w, h -> x2, y2
    return Detections(box=box, landmarks=rows[:, 4:14].reshape(-1, 5, 2).astype(np.float32), score=rows[:, 14])
