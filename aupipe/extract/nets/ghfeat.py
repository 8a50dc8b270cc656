"""GH-Feat (Xu et al., 2021): a ResNet that reads StyleGAN's per-layer style codes off a face, at 256 px.

Re-implemented from a description of genforce/ghfeat; the published network is a TensorFlow 1.12 pickle, of which
`from_tf_variables` takes the arrays. Module names follow the published variable names. TensorFlow's "SAME" padding is
asymmetric under stride 2, which is why every convolution here pads by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # units per stage by depth
PYRAMID_WIDTH = 512
FUSED = PYRAMID_WIDTH * 4 * 4  # what each head sees: its 4 x 4 map, channel first
CODE_WIDTH = 1024


def _same_padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of n pixels, as TensorFlow's "SAME" has them: the odd one comes after."""
    total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


def _pad(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    top, bottom = _same_padding(x.shape[2], kernel, stride)
    left, right = _same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (left, right, top, bottom), value=value)


class Conv(nn.Module):
    """One variable scope: a "SAME" convolution and, where the scope has it, a batch norm.

    ``leaky_before_norm``: the units of depth 18 and 34 rectify first and normalise after.
    """

    def __init__(
        self, channels: int, width: int, kernel: int, stride: int = 1, *, bias: bool = True, norm: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, channels, kernel, kernel) * 0.02)
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.batch_norm = nn.BatchNorm2d(width) if norm else None
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor, leaky_before_norm: bool = False) -> Tensor:
        y = F.conv2d(_pad(x, self.kernel, self.stride), self.weight, self.bias, self.stride)
        y = F.leaky_relu(y, 0.2) if leaky_before_norm else y
        return y if self.batch_norm is None else self.batch_norm(y)


class Bottleneck(nn.Module):
    """1x1, strided 3x3, 1x1; a projection where the shape changes; rectified after the sum."""

    def __init__(self, channels: int, width: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.Shortcut = Conv(channels, width, 1, stride, bias=False) if project else None
        self.Conva = Conv(channels, width // 4, 1)
        self.Convb = Conv(width // 4, width // 4, 3, stride)
        self.Convc = Conv(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.Shortcut is None else self.Shortcut(x)
        y = torch.relu(self.Convb(torch.relu(self.Conva(x))))
        return torch.relu(self.Convc(y) + shortcut)


class Basic(nn.Module):
    """Two 3x3 convolutions, each rectified before its norm; nothing is applied to the sum."""

    def __init__(self, channels: int, width: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.Shortcut = Conv(channels, width, 1, stride, bias=False) if project else None
        self.Conva = Conv(channels, width, 3, stride)
        self.Convb = Conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.Shortcut is None else self.Shortcut(x)
        return self.Convb(self.Conva(x, leaky_before_norm=True), leaky_before_norm=True) + shortcut


class Pyramid(nn.Module):
    """Three maps brought to 512 channels, each coarser one added to the next finer one; no activations."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.lconv_3, self.lconv_4, self.lconv_5 = (Conv(c, PYRAMID_WIDTH, 3, norm=False) for c in channels)
        self.fconv_0, self.fconv_1, self.fconv_2 = (Conv(PYRAMID_WIDTH, PYRAMID_WIDTH, 3, norm=False) for _ in range(3))

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coarse = self.lconv_5(coarse)
        middle = self.lconv_4(middle) + F.interpolate(coarse, scale_factor=2, mode="nearest")
        fine = self.lconv_3(fine) + F.interpolate(middle, scale_factor=2, mode="nearest")
        return self.fconv_0(fine), self.fconv_1(middle), self.fconv_2(coarse)


class Dense(nn.Module):
    """Flattened map to codes: a linear layer and its norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, FUSED) * 0.02)
        self.bias = nn.Parameter(torch.zeros(width))
        self.batch_norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.batch_norm(F.linear(x.flatten(1), self.weight, self.bias))


class GHFeatEncoder(nn.Module):
    """(B, 3, 256, 256) RGB in [-1, 1] -> (B, 14, 1024): row i is the style code of synthesis layer i.

    Rows 8 to 13 repeat 512, 256 and 128 numbers: 9,984 of the 14,336 are distinct.
    """

    def __init__(self, depth: int = 50) -> None:
        super().__init__()
        if depth not in UNITS:
            raise ValueError(f"{depth = }: accepted are {', '.join(map(str, UNITS))}")
        unit = Bottleneck if depth >= 50 else Basic
        widths = (256, 512, 1024, 2048) if depth >= 50 else (64, 128, 256, 512)
        self.Conv0 = Conv(3, 64, 7, 2, bias=False)
        self.stages: list[list[str]] = []
        channels = 64
        for stage, (count, width) in enumerate(zip(UNITS[depth], widths, strict=True), 1):
            self.stages.append([f"stage{stage}_unit{i}" for i in range(1, count + 1)])
            for i, name in enumerate(self.stages[-1]):
                stride = 2 if stage > 1 and i == 0 else 1
                self.add_module(name, unit(channels, width, stride, project=i == 0))
                channels = width
        self.stage5 = Bottleneck(channels, 2048, 2, project=True)
        self.fpn = Pyramid((widths[2], widths[3], 2048))
        for level in range(3):
            self.add_module(f"fuse_conv_{level}", Conv(PYRAMID_WIDTH, PYRAMID_WIDTH, 3, norm=False))
        self.HighLevel = Dense(4 * 1024)
        self.MidLevel = Dense(4 * 1024)
        self.LowLevel = Dense(2 * (512 + 256 + 128))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.Conv0(x), 0.2)
        x = F.max_pool2d(_pad(x, 3, 2, float("-inf")), 3, 2)
        maps = []
        for names in self.stages:
            for name in names:
                x = self.get_submodule(name)(x)
            maps.append(x)
        fine, middle, coarse = self.fpn(maps[2], maps[3], self.stage5(maps[3]))
        fine = self.get_submodule("fuse_conv_0")(F.avg_pool2d(F.avg_pool2d(fine, 2), 2))
        middle = self.get_submodule("fuse_conv_1")(F.avg_pool2d(middle, 2))
        coarse = self.get_submodule("fuse_conv_2")(coarse)
        high = self.HighLevel(coarse).reshape(-1, 4, 1024)
        mid = self.MidLevel(middle + coarse).reshape(-1, 4, 1024)
        low = self.LowLevel(fine + coarse)
        rows = [high, mid]
        for part, width in zip(low.split([1024, 512, 256], dim=1), (512, 256, 128), strict=True):
            rows.append(part.reshape(-1, 2, width).repeat(1, 1, CODE_WIDTH // width))  # (B, 2, w) -> (B, 2, 1024)
        return torch.cat(rows, dim=1)


_NORM = {"moving_mean": "running_mean", "moving_variance": "running_var", "gamma": "weight", "beta": "bias"}


def from_tf_variables(variables: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """The state dict of `GHFeatEncoder` from the published variables, by local name (``Conv0/weight`` ...).

    Convolutions turn from (height, width, in, out) to (out, in, height, width), dense layers from (in, out) to
    (out, in). Names that are no variables of the encoder pass through, so that loading reports them.
    """
    state: dict[str, Tensor] = {}
    for name, value in variables.items():
        array = np.asarray(value, dtype=np.float32)
        scope, _, leaf = name.rpartition("/")
        if scope.endswith("batch_norm"):
            leaf = _NORM.get(leaf, leaf)
            if leaf == "running_mean":
                state[f"{scope}.num_batches_tracked".replace("/", ".")] = torch.tensor(0)
        elif array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        state[f"{scope}/{leaf}".replace("/", ".")] = torch.from_numpy(np.array(array, order="C", copy=True))
    return state


def depth_of(state: Mapping[str, Any]) -> int:
    """18, 34 or 50: the depth whose state dict this is, told by the units it names."""
    if "stage1_unit1.Convc.weight" in state:
        return 50
    return 34 if "stage1_unit3.Conva.weight" in state else 18
