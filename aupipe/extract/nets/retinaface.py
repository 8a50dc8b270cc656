"""RetinaFace (Deng et al., 2020) as biubug6's PyTorch release has it: body, feature pyramid, context heads.

Keys and shapes are those of the published checkpoints (biubug6/Pytorch_Retinaface, models/retinaface.py).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Backbone = Literal["resnet50", "mobile0.25"]
ANCHORS_PER_CELL = 2


def _conv(channels: int, width: int, kernel: int, stride: int, slope: float | None) -> nn.Sequential:
    """Convolution, norm and, unless ``slope`` is None, a leaky rectifier (slope 0 is a plain one)."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
    ]
    if slope is not None:
        layers.append(nn.LeakyReLU(slope))
    return nn.Sequential(*layers)


def _depthwise(channels: int, width: int, stride: int, slope: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(slope),
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(slope),
    )


class MobileNetQuarter(nn.Module):
    """MobileNet v1 at a quarter of its width, without classifier: maps of 64, 128 and 256 channels."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            _conv(3, 8, 3, 2, slope),
            _depthwise(8, 16, 1, slope),
            _depthwise(16, 32, 2, slope),
            _depthwise(32, 32, 1, slope),
            _depthwise(32, 64, 2, slope),
            _depthwise(64, 64, 1, slope),
        )
        self.stage2 = nn.Sequential(_depthwise(64, 128, 2, slope), *[_depthwise(128, 128, 1, slope) for _ in range(5)])
        self.stage3 = nn.Sequential(_depthwise(128, 256, 2, slope), _depthwise(256, 256, 1, slope))

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.stage1(x)
        second = self.stage2(first)
        return [first, second, self.stage3(second)]


class ResNetBody(nn.Module):
    """torchvision's ResNet-50 up to its last stage: maps of 512, 1024 and 2048 channels."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50  # type: ignore[import-untyped]

        whole = resnet50(weights=None)
        for name, module in list(whole.named_children())[:-2]:  # conv1 ... layer4
            self.add_module(name, module)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name, module in self.named_children():
            x = module(x)
            if name in ("layer2", "layer3", "layer4"):
                maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Three maps brought to one width, each coarser one added to the next finer one."""

    def __init__(self, channels: tuple[int, int, int], width: int, slope: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_conv(c, width, 1, 1, slope) for c in channels)
        self.merge1 = _conv(width, width, 3, 1, slope)
        self.merge2 = _conv(width, width, 3, 1, slope)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:], mode="nearest"))
        return [fine, middle, coarse]


class Context(nn.Module):
    """SSH (Najibi et al., 2017): 3x3, 5x5 and 7x7 views of a cell, made of 3x3 convolutions, side by side."""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        quarter = width // 4
        self.conv3X3 = _conv(width, width // 2, 3, 1, None)
        self.conv5X5_1 = _conv(width, quarter, 3, 1, slope)
        self.conv5X5_2 = _conv(quarter, quarter, 3, 1, None)
        self.conv7X7_2 = _conv(quarter, quarter, 3, 1, slope)
        self.conv7x7_3 = _conv(quarter, quarter, 3, 1, None)  # the published keys mix the cases

    def forward(self, x: Tensor) -> Tensor:
        half = self.conv5X5_1(x)
        views = [self.conv3X3(x), self.conv5X5_2(half), self.conv7x7_3(self.conv7X7_2(half))]
        return torch.relu(torch.cat(views, dim=1))


class Head(nn.Module):
    """(B, C, h, w) -> (B, h * w * 2, n): n numbers for each anchor, in the order row, column, anchor."""

    def __init__(self, width: int, n: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, ANCHORS_PER_CELL * n, 1)
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1x1(x).permute(0, 2, 3, 1)  # (B, 2n, h, w) -> (B, h, w, 2n)
        return y.reshape(len(y), y.shape[1] * y.shape[2] * ANCHORS_PER_CELL, self.n)


class RetinaFace(nn.Module):
    """(B, 3, H, W) BGR minus (104, 117, 123) -> box deltas (B, N, 4), softmax (B, N, 2), landmark deltas (B, N, 10).

    The face is class 1. N counts two anchors in each cell of the maps at strides 8, 16 and 32. ``slope``: of every
    rectifier below zero; None takes the release's, 0.1 for mobile0.25 and 0 for resnet50. The "1 MB" release of the
    mobile net has the same keys and was trained with 0.
    """

    def __init__(self, backbone: Backbone = "mobile0.25", slope: float | None = None) -> None:
        super().__init__()
        if backbone == "mobile0.25":
            slope = 0.1 if slope is None else slope
            self.body: nn.Module = MobileNetQuarter(slope)
            channels, width = (64, 128, 256), 64
        elif backbone == "resnet50":
            slope = 0.0 if slope is None else slope
            self.body = ResNetBody()
            channels, width = (512, 1024, 2048), 256
        else:
            raise ValueError(f"{backbone = }: accepted are 'resnet50', 'mobile0.25'")
        self.fpn = Pyramid(channels, width, slope)
        self.ssh1, self.ssh2, self.ssh3 = (Context(width, slope) for _ in range(3))
        self.ClassHead = nn.ModuleList(Head(width, 2) for _ in range(3))
        self.BboxHead = nn.ModuleList(Head(width, 4) for _ in range(3))
        self.LandmarkHead = nn.ModuleList(Head(width, 10) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels = self.fpn(self.body(x))
        levels = [ssh(level) for ssh, level in zip((self.ssh1, self.ssh2, self.ssh3), levels, strict=True)]

        def gathered(heads: nn.ModuleList) -> Tensor:
            return torch.cat([head(level) for head, level in zip(heads, levels, strict=True)], dim=1)

        return gathered(self.BboxHead), gathered(self.ClassHead).softmax(dim=-1), gathered(self.LandmarkHead)
