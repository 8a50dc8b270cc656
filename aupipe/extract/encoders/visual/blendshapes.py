"""MediaPipe's face landmarker (Google, 2022-2023): 478 landmarks and 52 ARKit blendshape scores, through OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.encoders.base import Encode
from aupipe.extract.faces.landmarks import LANDMARKS, SIZE_PX, mesh_landmarks, open_member, open_mesh
from aupipe.extract.imaging.templates import FfhqCropTemplate
from aupipe.extract.weights import find_weights, identify
from aupipe.types import Modality, Weights

# The landmarks the blendshape network sees, in its order (face_blendshapes_graph.cc of MediaPipe).
# fmt: off
SEEN = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78,
    80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150,
    152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197,
    234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308,
    310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377,
    378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466,
    468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
# fmt: on

# The scores in order; left and right are the person's own.
# fmt: off
NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft",
    "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft",
    "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)
# fmt: on


@dataclass(frozen=True)
class Blendshapes:
    """``tap``: ``"blendshapes"`` (B, 52) scores in 0 to 1 in the order of `NAMES`; ``"landmarks"`` (B, 478, 3) in
    pixels of the 256 px crop, depth in the same unit; ``"presence"`` (B, 1), the logit that there is a face.

    The crop is FFHQ's square from five points, which frames the face about as MediaPipe's own region does: 1.5 times
    the box, eyes level. Each frame is taken alone; MediaPipe also smooths over time. Runs on the CPU.
    """

    weights: str = "face_landmarker_v2_with_blendshapes.task"
    tap: Literal["blendshapes", "landmarks", "presence"] = "blendshapes"

    modality: ClassVar[Modality] = "visual"
    file_is_network: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("opencv-python-headless", "opencv-python")
    version: ClassVar[int] = 1

    @property
    def reads(self) -> FfhqCropTemplate:
        return FfhqCropTemplate(SIZE_PX)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return {"blendshapes": (len(NAMES),), "landmarks": (LANDMARKS, 3), "presence": (1,)}[self.tap]

    def column_names(self) -> tuple[str, ...]:
        return {"blendshapes": NAMES, "landmarks": (), "presence": ("presence",)}[self.tap]

    def identify_weights(self) -> Weights:
        return identify(self.weights, "Apache-2.0")

    def load(self, device: str) -> Encode:
        path = find_weights(self.weights)
        mesh = open_mesh(path)
        scores = open_member(path, "face_blendshapes.tflite") if self.tap == "blendshapes" else None

        def one(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
            points, presence = mesh_landmarks(mesh, crop)
            if self.tap == "presence":
                return np.array([presence], np.float32)
            if scores is None:
                return points
            scores.setInput(points[None, SEEN, :2])  # (478, 3) -> (1, 146, 2)
            return np.array(scores.forward(), np.float32).reshape(len(NAMES))

        def encode(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            rows = np.empty((len(crops), *self.row_shape), np.float32)
            for crop, row in zip(crops, rows, strict=True):
                row[:] = one(crop)
            return rows

        return encode
