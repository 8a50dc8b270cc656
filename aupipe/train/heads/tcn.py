"""Temporal convolutional network: dilated residual convolutions, causal as published, or centred.

Source of the block: Bai, Kolter, Koltun 2018, locuslab/TCN (MIT), as used by Yu et al. 2024 (AUD-TGN) and Zhou et al.
2023. Centred convolutions are the default: offline inference need not be causal, which lowers F1 (docs/training.md,
"SynAU").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aupipe.errors import UsageError
from aupipe.tables import Range, Share, Width
from aupipe.train.context import Context


@dataclass(frozen=True)
class TCNConfig:
    """``width``: features are first projected to it. Level i of ``channels`` has dilation 2^i.

    ``causal``: an output depends on past frames only. ``skip``: a linear map of the features is added to the output.
    """

    width: Width = 64
    channels: tuple[Width, ...] = (64, 64, 64)
    kernel_size: Annotated[int, Range(1, 4096)] = 5
    dropout: Share = 0.2
    input_dropout: Share = 0.0
    causal: bool = False
    skip: bool = True


class WeightNormConv1d(nn.Module):
    """Conv1d whose weight is ``g v / |v|``, the norm per output channel.

    Parameters ``weight_g`` (out, 1, 1), ``weight_v`` (out, in, k), ``bias`` have the names of published checkpoints;
    torch.nn.utils.parametrizations uses other names.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, dilation: int, padding: int) -> None:
        super().__init__()
        self.dilation, self.padding = dilation, padding
        plain = nn.Conv1d(inputs, outputs, kernel_size)
        self.weight_v = nn.Parameter(plain.weight.detach().clone())
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(1, 2), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T) -> (B, out, T + 2 padding - dilation (k - 1))."""
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=(1, 2), keepdim=True)
        return F.conv1d(x, weight, self.bias, padding=self.padding, dilation=self.dilation)


class Chomp(nn.Module):
    """Cut ``size`` frames off the end, which makes a convolution with padding on both sides causal."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T + size) -> (B, C, T)."""
        return x[..., : x.shape[-1] - self.size]


# sucv/ABAW3 uses LeakyReLU, upczww/abaw5 PReLU, locuslab/TCN ReLU.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "prelu": nn.PReLU}


class TemporalBlock(nn.Module):
    """[convolution, activation, dropout] twice, plus the input (or its 1x1 convolution to another width), activation.

    Each layer is registered by its name and in ``net``, as in published state dicts.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        dilation: int,
        dropout: float,
        causal: bool,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        reach = (kernel_size - 1) * dilation
        padding, chomp = (reach, reach) if causal else (reach // 2, 0)
        self.conv1 = WeightNormConv1d(inputs, outputs, kernel_size, dilation, padding)
        self.conv2 = WeightNormConv1d(outputs, outputs, kernel_size, dilation, padding)
        self.first = [self.conv1, Chomp(chomp), act(), nn.Dropout(dropout)]
        self.second = [self.conv2, Chomp(chomp), act(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*self.first, *self.second)  # net.0 is conv1, net.4 is conv2
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
        self.last = act()

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(B, in, T) -> (B, out, T). ``keep`` (B, 1, T) is 0 at padding, so that later layers read zeros there."""
        residual = x if self.downsample is None else self.downsample(x)
        for half in (self.net[:4], self.net[4:]):
            x = half(x) * keep
        joined: Tensor = self.last(x + residual) * keep
        return joined


class TemporalConvNet(nn.Module):
    """The published network: block i has ``num_channels[i]`` channels and dilation 2^i; (B, C, T) -> (B, C', T)."""

    def __init__(
        self,
        num_inputs: int,
        num_channels: Sequence[int],
        kernel_size: int = 2,
        dropout: float = 0.2,
        causal: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(f"tcn: unknown activation {activation!r}. Available: {', '.join(ACTIVATIONS)}")
        if not causal and kernel_size % 2 == 0:
            raise UsageError(f"tcn: {kernel_size = } must be odd unless causal, or outputs shift by half a frame")
        sizes = [num_inputs, *num_channels]
        self.network = nn.ModuleList(
            TemporalBlock(inputs, outputs, kernel_size, 2**level, dropout, causal, activation)
            for level, (inputs, outputs) in enumerate(pairwise(sizes))
        )

        before = sum((kernel_size - 1) * 2**level * (2 if causal else 1) for level in range(len(num_channels)))
        self.context = Context(before, 0 if causal else before)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask`` (B, T), False at padding; the output there is 0."""
        keep = mask[:, None].to(x.dtype)  # (B, T) -> (B, 1, T)
        x = x * keep
        for block in self.network:
            x = block(x, keep)
        return x


class TCNHead(nn.Module):
    """Linear to ``width``, the network, linear to K; plus a linear skip from the features to the output."""

    Config = TCNConfig

    def __init__(self, config: TCNConfig, inputs: int, targets: int) -> None:
        super().__init__()
        if not config.channels:
            raise UsageError("head 'tcn': channels is empty; give one width per level, e.g. [64, 64, 64]")
        self.dropout = nn.Dropout(config.input_dropout)
        self.project = nn.Linear(inputs, config.width)
        self.tcn = TemporalConvNet(config.width, config.channels, config.kernel_size, config.dropout, config.causal)
        self.context = self.tcn.context
        self.out = nn.Linear(config.channels[-1], targets)
        self.skip = nn.Linear(inputs, targets, bias=False) if config.skip else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, K)."""
        x = self.dropout(x)
        hidden = self.project(x).transpose(1, 2)  # (B, T, width) -> (B, width, T)
        out: Tensor = self.out(self.tcn(hidden, mask).transpose(1, 2))  # (B, C, T) -> (B, T, C) -> (B, T, K)
        return out if self.skip is None else out + self.skip(x)
