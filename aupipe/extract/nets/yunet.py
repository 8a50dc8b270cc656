"""The network of YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), after the published graphs.

`aupipe.extract.faces.detectors.yunet_torch` loads its weights and turns its output to faces.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
VALUES = 16  # of a cell: face, object, box (4), five points (10)
HEADS = ("face", "box", "object", "points")  # in the order the files have them; each once a stride


class Unit(nn.Module):
    """A 1x1 convolution and a 3x3 one of each channel by itself, then a rectifier unless ``last``."""

    def __init__(self, channels: int, width: int, last: bool = False) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, width, 1)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.point(x))
        return y if self.last else y.relu_()


class YuNet(nn.Module):
    """(B, 3, H, W) RGB in 0..255, H and W multiples of 32 -> (B, N, 16): a row per cell of strides 8, 16, 32.

    ``first``, ``second``: channels after the first two stages, 32 and 64 in yunet_s, 64 and 64 in yunet_n.
    ``shared``: whether a unit stands before the heads of each stride, as in yunet_n. The four heads of a stride run as
    one unit of 16 channels.
    """

    def __init__(self, first: int = 32, second: int = 64, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.stem_unit = Unit(16, 16)
        self.stages = nn.ModuleList(
            nn.Sequential(Unit(before, middle), Unit(middle, after))
            for before, middle, after in [(16, 16, first), (first, first, second), *[(64, 64, 64)] * 3]
        )
        self.neck = nn.ModuleList(Unit(64, 64) for _ in STRIDES)  # coarsest first
        self.shared = nn.ModuleList(Unit(64, 64) for _ in STRIDES) if shared else None
        self.heads = nn.ModuleList(Unit(64, VALUES, last=True) for _ in STRIDES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem_unit(self.stem(x).relu_()), 2)
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number >= 2:
                maps.append(x)
            if number in (1, 2, 3):
                x = F.max_pool2d(x, 2)
        levels: list[Tensor] = []
        for unit, finer in zip(self.neck, reversed(maps), strict=True):
            if levels:
                finer = finer + F.interpolate(levels[0], scale_factor=2.0, mode="nearest")
            levels.insert(0, unit(finer))
        if self.shared is not None:
            levels = [unit(level) for unit, level in zip(self.shared, levels, strict=True)]
        rows = [head(level).permute(0, 2, 3, 1).flatten(1, 2) for head, level in zip(self.heads, levels, strict=True)]
        return torch.cat(rows, dim=1)  # 3 x (B, h * w, 16) -> (B, N, 16)
