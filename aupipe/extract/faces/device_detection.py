"""Faces of frames that lie on a device, from planes to numbers in one go."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aupipe.extract.faces import DetectTensor
from aupipe.extract.faces.face_table import PaddedFaces
from aupipe.extract.gpu.cuda_graphs import GraphedFunction
from aupipe.extract.gpu.frames import DeviceFrames
from aupipe.extract.gpu.kernels import downscale
from aupipe.extract.gpu.transfer import fetch
from aupipe.extract.gpu.yuv import Colour

VALUES = 15  # of a face: box, five points, score


class DeviceDetector:
    """A detector of pictures on a device; threads may share it."""

    def __init__(self, detect: DetectTensor) -> None:
        self._detect = detect
        self._graphs: dict[tuple[Colour, int], GraphedFunction] = {}

    def start(self, frames: DeviceFrames, factor: int) -> Callable[[], PaddedFaces]:
        """Begin to look for faces in frames shrunk by ``factor``; calling what is returned waits for the answer."""
        packed = self._graph(frames.colour, factor)(
            frames.on_current_stream(), (frames.capacity,) * 3, len(frames)
        )  # (B, 15 K + 2)
        wait = fetch([packed])

        def end() -> PaddedFaces:
            (values,) = wait()
            faces = values[:, :-2].reshape(len(values), -1, VALUES)
            points = faces[..., 4:14].reshape(*faces.shape[:2], 5, 2)
            return PaddedFaces(faces[..., :4], points, faces[..., 14], values[:, -2].astype(int), values[:, -1] > 0)

        return end

    def _graph(self, colour: Colour, factor: int) -> GraphedFunction:
        def find(y: Tensor, u: Tensor, v: Tensor) -> Tensor:
            found = self._detect(downscale((y, u, v), colour, factor))
            faces = torch.cat([found.box, found.landmarks.flatten(2), found.score[..., None]], dim=-1)  # (B, K, 15)
            about = torch.stack([found.number, found.settled], dim=1).to(faces.dtype)  # (B, 2)
            return torch.cat([faces.flatten(1), about], dim=1)

        return self._graphs.setdefault((colour, factor), GraphedFunction(find))
