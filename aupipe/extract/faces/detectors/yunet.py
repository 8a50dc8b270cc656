"""YuNet (Wu et al., 2023): small, permissive, ten times MTCNN's speed; the weight file is the user's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.contract import KeyedWeightFile
from aupipe.extract.faces import NO_FACES, Detect, DetectTensor, FaceTensors
from aupipe.extract.weights import KNOWN_WEIGHTS, RefusedWeightsError, find_weights, identify
from aupipe.extract.weights.onnx_file import external_files
from aupipe.tables import Count, Share
from aupipe.types import Detections, Weights

if TYPE_CHECKING:
    from torch import Tensor

STRIDES = (8, 16, 32)
CANDIDATES = 256  # cells of a frame that suppression looks at on a device, best first
ROUNDS = 8  # of suppression on a device; `FaceTensors.settled` says where that was enough


@dataclass(frozen=True)
class YuNet:
    """OpenCV's `FaceDetectorYN`, by the fastest route the device has; good for faces of about 10 to 300 px.

    CUDA: the network in torch, batched, fp32. CPU: onnxruntime where it is installed, else OpenCV, frame by frame in
    the calling thread; the function may be called from several threads at once. All routes find the same faces, and
    their coordinates agree within 1e-3 px, so that the route is no part of a feature's identity.
    """

    weights_file: KeyedWeightFile = "face_detection_yunet_2023mar.onnx"
    nms_threshold: Share = 0.3
    top_k: Count = 5000
    min_score: Share = 0.7

    requires: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")
    shareable: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def identify_weights(self) -> Weights:
        return identify(self.weights_file)

    def load(self, device: str) -> Detect:
        path = self._path()
        if not device.startswith("cpu"):
            return self._load_torch(path, device)
        return self._load_onnx(path) if find_spec("onnxruntime") else self._load_opencv(path)

    def load_tensor(self, device: str) -> DetectTensor:
        """The torch route for pictures that are on the device already: (B, 3, H, W) RGB 0..255 -> `FaceTensors`."""
        find = self._torch_finder(self._path(), device)
        return lambda pictures: find(pictures, CANDIDATES, ROUNDS)

    def _path(self) -> Path:
        path = find_weights(self.weights_file, KNOWN_WEIGHTS.get(self.weights_file))
        if external_files(path):
            raise RefusedWeightsError(f"{path} keeps tensors in other files: take YuNet's own file, which is one")
        return path

    def _load_torch(self, path: Path, device: str) -> Detect:
        import torch

        find = self._torch_finder(path, device)

        def detect(frames: NDArray[np.uint8]) -> list[Detections]:
            pictures = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)
            candidates, rounds = CANDIDATES, ROUNDS
            found = find(pictures, candidates, rounds)
            while not bool(found.settled.all()):
                candidates, rounds = 4 * candidates, 4 * rounds
                found = find(pictures, candidates, rounds)
            return found.to_detections()

        return detect

    def _torch_finder(self, path: Path, device: str) -> Callable[[Tensor, int, int], FaceTensors]:
        import torch

        from aupipe.extract.faces.detectors.yunet_torch import detect_faces, load_yunet
        from aupipe.extract.gpu.numerics import compute_as_written

        if device.startswith("cuda"):
            compute_as_written()
        network = load_yunet(path).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def find(pictures: Tensor, candidates: int, rounds: int) -> FaceTensors:
            candidates = min(candidates, self.top_k)
            return detect_faces(network, pictures, self.min_score, self.nms_threshold, candidates, rounds)

        return find

    def _load_onnx(self, path: Path) -> Detect:
        import cv2

        from aupipe.extract.weights.onnx_session import open_session

        session = open_session(path, free_sizes=True, threads=1)  # threads run beside each other on recordings
        if len(session.get_outputs()) != 4 * len(STRIDES):
            raise RefusedWeightsError(f"{path} has {len(session.get_outputs())} outputs; a YuNet has 12")
        name = session.get_inputs()[0].name

        def detect(frames: NDArray[np.uint8]) -> list[Detections]:
            height, width = frames.shape[1:3]
            blob = np.zeros((1, 3, padded(height), padded(width)), np.float32)
            found = []
            for frame in frames:
                red, green, blue = cv2.split(frame)
                blob[0, 0, :height, :width] = blue
                blob[0, 1, :height, :width] = green
                blob[0, 2, :height, :width] = red
                found.append(self._decode(session.run(None, {name: blob}), blob.shape[3]))
            return found

        return detect

    def _decode(self, outputs: list[NDArray[np.float32]], width: int) -> Detections:
        """Face, object, box and points of the three strides, four times three arrays (1, n, ...) -> faces."""
        import cv2

        rows = []
        for level, stride in enumerate(STRIDES):
            face, thing, box, points = (outputs[level + 3 * kind][0] for kind in range(4))
            score = np.sqrt(np.clip(face[:, 0], 0, 1) * np.clip(thing[:, 0], 0, 1))
            cells = np.flatnonzero(score >= self.min_score)
            if not len(cells):
                continue
            corner = np.stack([cells % (width // stride), cells // (width // stride)], axis=1).astype(np.float32)
            size = np.exp(box[cells, 2:]) * stride
            low = (corner + box[cells, :2]) * stride - size / 2
            marks = (points[cells] + np.tile(corner, 5)) * stride
            rows.append(np.concatenate([low, size, marks, score[cells, None]], axis=1))
        if not rows:
            return NO_FACES
        found = np.concatenate(rows)
        if len(found) > 1:
            # OpenCV compares boxes of whole numbers, cut towards zero.
            whole = found[:, :4].astype(np.int32).tolist()
            kept = cv2.dnn.NMSBoxes(whole, found[:, 14].tolist(), self.min_score, self.nms_threshold, top_k=self.top_k)
            found = found[np.asarray(kept, dtype=np.int64)]
        return _detections(found)

    def _load_opencv(self, path: Path) -> Detect:
        import cv2

        own = threading.local()  # a network holds the picture it works on: each thread has its own

        def network() -> Any:
            if not hasattr(own, "network"):
                own.network = cv2.FaceDetectorYN.create(
                    str(path), "", (320, 320), self.min_score, self.nms_threshold, self.top_k
                )
            return own.network

        network()  # a broken file is refused now

        def detect(frames: NDArray[np.uint8]) -> list[Detections]:
            height, width = frames.shape[1:3]
            network().setInputSize((width, height))
            rows = (network().detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1] for frame in frames)
            return [NO_FACES if found is None else _detections(found) for found in rows]

        return detect


def padded(length: int) -> int:
    """The side of the network's picture: black is added at the right and at the bottom up to a multiple of 32."""
    return -(-length // STRIDES[-1]) * STRIDES[-1]


def _detections(rows: NDArray[np.float32]) -> Detections:
    """Rows of x, y, w, h, five points, score; the points come in the ArcFace template's order already."""
    box = rows[:, :4].astype(np.float32)
    box[:, 2:] += box[:, :2]  # w, h -> x2, y2
    return Detections(box=box, landmarks=rows[:, 4:14].reshape(-1, 5, 2).astype(np.float32), score=rows[:, 14])
