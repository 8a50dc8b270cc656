"""SCRFD (Guo et al., 2022) of insightface's model packs, through onnxruntime; the weight file is the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.extract.contract import KeyedWeightFile
from aupipe.extract.faces import NO_FACES, Detect
from aupipe.extract.weights import find_weights
from aupipe.extract.weights.onnx_file import identify_network
from aupipe.tables import Pixels, Share
from aupipe.types import Detections, Weights

STRIDES = (8, 16, 32)
ANCHORS_PER_CELL = 2


@dataclass(frozen=True)
class Scrfd:
    """Frames are scaled into a square canvas, top left, the rest black.

    ``canvas_px`` is pinned and part of the feature's identity: insightface 1.0 changed its default from 640 alone to
    128 and 640 jointly, and with it its results.
    """

    weights_file: KeyedWeightFile = "det_10g.onnx"
    canvas_px: Pixels = 640
    nms_threshold: Share = 0.4
    min_score: Share = 0.5

    requires: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")
    shareable: ClassVar[bool] = True  # several threads may run one session of onnxruntime
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.canvas_px % STRIDES[-1]:
            raise ValueError(f"canvas_px = {self.canvas_px} must be a multiple of {STRIDES[-1]}")

    def identify_weights(self) -> Weights:
        return identify_network(self.weights_file, "non-commercial research (insightface)")

    def load(self, device: str) -> Detect:
        from aupipe.extract.weights.onnx_session import open_session

        path = find_weights(self.weights_file)
        session = open_session(path, device)
        outputs = session.get_outputs()
        if len(outputs) != 3 * len(STRIDES):
            raise UsageError(f"{path.name} has {len(outputs)} outputs; SCRFD with landmarks has {3 * len(STRIDES)}")
        name = session.get_inputs()[0].name

        def detect(frames: NDArray[np.uint8]) -> list[Detections]:
            found = []
            for frame in frames:  # published files take one picture at a time
                canvas, scale = fit(frame, self.canvas_px)
                values = session.run(None, {name: canvas})
                found.append(decode(values, self.canvas_px, scale, self.min_score, self.nms_threshold))
            return found

        return detect


def fit(frame: NDArray[np.uint8], canvas_px: int) -> tuple[NDArray[np.float32], float]:
    """(H, W, 3) RGB -> (1, 3, canvas, canvas) RGB in about [-1, 1], and the factor it was scaled by."""
    import cv2

    height, width = frame.shape[:2]
    scale = canvas_px / max(height, width)
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    canvas = np.zeros((canvas_px, canvas_px, 3), np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(frame, size)
    pixels = (canvas.astype(np.float32) - 127.5) / 128
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), scale


def decode(
    outputs: Sequence[NDArray[Any]], canvas_px: int, scale: float, min_score: float, nms_threshold: float
) -> Detections:
    """The nine outputs (scores, boxes, points; each at strides 8, 16, 32) -> faces in the frame's pixels, best first.

    Distances count from the cell's corner, not its middle, in strides. A leading batch axis of one is accepted.
    """
    import torch
    from torchvision.ops import nms  # type: ignore[import-untyped]

    scores, boxes, points = [], [], []
    for level, stride in enumerate(STRIDES):
        cells = canvas_px // stride
        y, x = np.mgrid[:cells, :cells] * stride
        centre = np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), ANCHORS_PER_CELL, axis=0)  # (n, 2)
        score = np.asarray(outputs[level]).reshape(-1)
        keep = np.flatnonzero(score >= min_score)
        reach = np.asarray(outputs[level + 3]).reshape(-1, 4)[keep] * stride  # left, top, right, bottom
        shift = np.asarray(outputs[level + 6]).reshape(-1, 5, 2)[keep] * stride
        scores.append(score[keep])
        boxes.append(np.concatenate([centre[keep] - reach[:, :2], centre[keep] + reach[:, 2:]], axis=1))
        points.append(centre[keep][:, None] + shift)
    score = np.concatenate(scores)
    if not len(score):
        return NO_FACES
    box = np.concatenate(boxes) / scale
    # Sides count one pixel more than their difference, as the reference's do. Equal scores keep their order.
    corners, ranks = torch.from_numpy(box + np.array([0, 0, 1, 1])), torch.from_numpy(score.astype(box.dtype))
    chosen = nms(corners, ranks, nms_threshold).numpy()
    return Detections(
        box=box[chosen].astype(np.float32),
        landmarks=(np.concatenate(points)[chosen] / scale).astype(np.float32),
        score=score[chosen].astype(np.float32),
    )
