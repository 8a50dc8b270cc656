"""Real-ESRGAN's two generators (Wang et al., 2021): RRDBNet and the compact SRVGGNet.

Keys and shapes are those of the published checkpoints (XPixelGroup/BasicSR, basicsr/archs/rrdbnet_arch.py;
xinntao/Real-ESRGAN, realesrgan/archs/srvgg_arch.py). FrameChunk are RGB in [0, 1]; the result is not clamped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class DenseBlock(nn.Module):
    """Five convolutions, each seeing the input and all before it; the last comes back at a fifth."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 6):
            self.add_module(f"conv{i}", _conv(width + (i - 1) * growth, growth if i < 5 else width))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for i in range(1, 5):
            seen.append(_leaky(self.get_submodule(f"conv{i}")(torch.cat(seen, dim=1))))
        return x + 0.2 * self.get_submodule("conv5")(torch.cat(seen, dim=1))


class ResidualDense(nn.Module):
    """Three dense blocks, their result at a fifth."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """(B, 3, H, W) -> (B, 3, scale * H, scale * W); for scales 1 and 2, H and W are multiples of 4 and 2.

    The published x4 net has 702 entries and 16,697,987 parameters; the x4 anime net has ``num_block=6``.
    """

    def __init__(self, scale: int = 4, num_block: int = 23, width: int = 64, growth: int = 32) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"{scale = }: accepted are 1, 2, 4")
        # The net always enlarges four times; for less, the picture is first folded into channels.
        self.fold = 4 // scale
        self.conv_first = _conv(3 * self.fold**2, width)
        self.body = nn.Sequential(*[ResidualDense(width, growth) for _ in range(num_block)])
        self.conv_body = _conv(width, width)
        self.conv_up1 = _conv(width, width)
        self.conv_up2 = _conv(width, width)
        self.conv_hr = _conv(width, width)
        self.conv_last = _conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.fold > 1:
            x = F.pixel_unshuffle(x, self.fold)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        x = _leaky(self.conv_up1(_double(x)))
        x = _leaky(self.conv_up2(_double(x)))
        return self.conv_last(_leaky(self.conv_hr(x)))


class SRVGGNetCompact(nn.Module):
    """(B, 3, H, W) -> (B, 3, scale * H, scale * W): a plain graph that learns what to add to the enlarged picture.

    ``num_conv=32`` is realesr-general-x4v3, ``num_conv=16`` realesr-animevideov3.
    """

    def __init__(self, scale: int = 4, num_conv: int = 32, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, width), nn.PReLU(width)]
        for _ in range(num_conv):
            layers += [_conv(width, width), nn.PReLU(width)]
        layers.append(_conv(width, 3 * scale**2))
        self.body = nn.Sequential(*layers)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        learned = F.pixel_shuffle(self.body(x), self.scale)
        return learned + F.interpolate(x, scale_factor=self.scale, mode="nearest")
