"""RetinaFace (Deng et al., 2020), biubug6's weights: batched on any torch device; the weight file is the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.contract import KeyedWeightFile
from aupipe.extract.faces import Detect
from aupipe.extract.weights import find_weights, identify
from aupipe.tables import Count, Share
from aupipe.types import Detections, Weights

if TYPE_CHECKING:
    from torch import Tensor

STRIDES = (8, 16, 32)
MEAN_BGR = (104.0, 117.0, 123.0)
VARIANCES = (0.1, 0.2)  # of the shift and of the logarithm of the size
MOST_CANDIDATES = 5000
FRAMES_PER_PASS = 8  # bounds the memory of a pass; no number depends on it


@dataclass(frozen=True)
class Release:
    """One published training: its network, its anchors (two a stride), its file."""

    backbone: Literal["mobile0.25", "resnet50"]
    slope: float  # of its rectifiers below zero
    anchor_sizes_px: tuple[int, ...]
    weights_file: str


RELEASES = {
    # The 1 MB release has the same keys, but other rectifiers and anchors; run as the other, its boxes are wrong.
    "mobile0.25-1mb": Release("mobile0.25", 0.0, (10, 20, 32, 64, 128, 256), "retinaface_mobilenet025_1mb.pth"),
    "mobile0.25": Release("mobile0.25", 0.1, (16, 32, 64, 128, 256, 512), "mobilenet0.25_Final.pth"),
    "resnet50": Release("resnet50", 0.0, (16, 32, 64, 128, 256, 512), "Resnet50_Final.pth"),
}


@dataclass(frozen=True)
class RetinaFace:
    """``model``: which release; ``weights_file``: its file under another name, also as safetensors."""

    model: Literal["mobile0.25-1mb", "mobile0.25", "resnet50"] = "mobile0.25-1mb"
    weights_file: KeyedWeightFile = ""
    nms_threshold: Share = 0.4
    max_found: Count = 750
    min_score: Share = 0.7

    requires: ClassVar[tuple[str, ...]] = ("torchvision",)
    shareable: ClassVar[bool] = True  # torch's modules, which keep nothing
    version: ClassVar[int] = 1

    @property
    def _file(self) -> str:
        return self.weights_file or RELEASES[self.model].weights_file

    def identify_weights(self) -> Weights:
        return identify(self._file, "MIT")

    def load(self, device: str) -> Detect:
        import torch

        from aupipe.extract.nets import retinaface
        from aupipe.extract.weights.checkpoint import load_into, read_state_dict

        release = RELEASES[self.model]
        path = find_weights(self._file)
        network = retinaface.RetinaFace(release.backbone, release.slope)
        load_into(network, read_state_dict(path), str(path))
        network = network.eval().to(device)
        mean = torch.tensor(MEAN_BGR, device=device).view(1, 3, 1, 1)

        def detect(frames: NDArray[np.uint8]) -> list[Detections]:
            found: list[Detections] = []
            with torch.inference_mode():
                boxes = anchors(frames.shape[1], frames.shape[2], release.anchor_sizes_px).to(device)
                for start in range(0, len(frames), FRAMES_PER_PASS):
                    pixels = torch.from_numpy(frames[start : start + FRAMES_PER_PASS]).to(device)
                    pixels = pixels.permute(0, 3, 1, 2).flip(1).float() - mean  # (B, H, W, 3) RGB -> (B, 3, H, W) BGR
                    for deltas, scores, points in zip(*network(pixels), strict=True):
                        found.append(self._decode(deltas, scores[:, 1], points, boxes))
            return found

        return detect

    def _decode(self, deltas: Tensor, scores: Tensor, points: Tensor, boxes: Tensor) -> Detections:
        """(N, 4), (N,), (N, 10) of one frame and its anchors (N, 4) -> its faces, best first."""
        import torch
        from torchvision.ops import nms  # type: ignore[import-untyped]

        # Suppression goes from the best down, so what lies below min_score suppresses nothing that counts.
        kept = torch.nonzero(scores >= self.min_score)[:, 0]
        kept = kept[scores[kept].argsort(descending=True, stable=True)[:MOST_CANDIDATES]]
        centre, size = boxes[kept, :2], boxes[kept, 2:]
        middle = centre + deltas[kept, :2] * VARIANCES[0] * size
        sides = size * torch.exp(deltas[kept, 2:] * VARIANCES[1])
        corners = torch.cat([middle - sides / 2, middle + sides / 2], dim=1)
        # The reference counts a box of equal corners as one pixel wide.
        chosen = nms(corners + corners.new_tensor([0, 0, 1, 1]), scores[kept], self.nms_threshold)[: self.max_found]
        marks = centre[:, None] + points[kept].reshape(-1, 5, 2) * VARIANCES[0] * size[:, None]  # (n, 10) -> (n, 5, 2)
        return Detections(
            box=corners[chosen].cpu().numpy(),
            landmarks=marks[chosen].cpu().numpy(),
            score=scores[kept][chosen].cpu().numpy(),
        )


def anchors(height: int, width: int, sizes_px: Sequence[int]) -> Tensor:
    """(N, 4) centre x, y, width, height in pixels: two squares a cell, cells by row and column, strides in order."""
    import torch

    levels = []
    for level, stride in enumerate(STRIDES):
        rows, columns = -(-height // stride), -(-width // stride)
        y = (torch.arange(rows) + 0.5) * stride
        x = (torch.arange(columns) + 0.5) * stride
        pair = torch.tensor(sizes_px[2 * level : 2 * level + 2], dtype=torch.float32)
        grid = torch.stack(
            [
                x[None, :, None].expand(rows, columns, 2),
                y[:, None, None].expand(rows, columns, 2),
                pair.expand(rows, columns, 2),
                pair.expand(rows, columns, 2),
            ],
            dim=-1,
        )
        levels.append(grid.reshape(-1, 4))  # (rows, columns, 2, 4) -> (n, 4)
    return torch.cat(levels)
