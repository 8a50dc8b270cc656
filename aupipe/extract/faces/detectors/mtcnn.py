"""MTCNN (Zhang et al., 2016) from facenet-pytorch: the detector whose weights come with the package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import WeightsMissingError
from aupipe.extract.faces import NO_FACES, Detect
from aupipe.tables import Pixels, Share
from aupipe.types import Detections, Weights


@dataclass(frozen=True)
class Mtcnn:
    """Three cascaded networks, batched over frames of one size.

    ``min_face_px`` is measured in the picture the detector sees, after the shrinking `detect_px` asks for; the cost
    grows with the inverse square of it.
    """

    min_face_px: Pixels = 40
    thresholds: tuple[Share, Share, Share] = (0.6, 0.7, 0.7)
    min_score: Share = 0.9

    requires: ClassVar[tuple[str, ...]] = ("facenet-pytorch", "torchvision")
    version: ClassVar[int] = 1

    def identify_weights(self) -> Weights:
        """The three networks inside the facenet-pytorch wheel."""
        from importlib.util import find_spec

        found = find_spec("facenet_pytorch")  # found, not imported: planning needs no torch
        if found is None or found.origin is None:
            raise WeightsMissingError("detector mtcnn needs facenet-pytorch: pip install 'facenet-pytorch>=2.5.3,<2.6'")
        digest = hashlib.sha256()
        for name in ("pnet.pt", "rnet.pt", "onet.pt"):
            digest.update((Path(found.origin).parent / "data" / name).read_bytes())
        return Weights("facenet-pytorch pnet, rnet, onet", digest.hexdigest(), "MIT")

    def load(self, device: str) -> Detect:
        import torch
        from facenet_pytorch import MTCNN

        network = MTCNN(
            keep_all=True,
            min_face_size=self.min_face_px,
            thresholds=list(self.thresholds),
            device=torch.device(device),
        ).eval()

        def detect(frames: NDArray[np.uint8]) -> list[Detections]:
            if min(frames.shape[1:3]) < self.min_face_px:  # no such face fits in, and the networks take no such picture
                return [NO_FACES] * len(frames)
            with torch.inference_mode():
                boxes, scores, points = network.detect(list(frames), landmarks=True)
            return [_detections(*found) for found in zip(boxes, scores, points, strict=True)]

        return detect


def _detections(box: NDArray | None, score: NDArray | None, points: NDArray | None) -> Detections:
    if box is None or score is None or points is None:
        return NO_FACES
    return Detections(
        box=np.asarray(box, np.float32), landmarks=np.asarray(points, np.float32), score=np.asarray(score, np.float32)
    )
