"""Blocks that several heads are built from. Each takes the mask, so that none reads a padded frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from aupipe.errors import UsageError
from aupipe.train.heads.tcn import TemporalConvNet

Channels = Mapping[str, Sequence[int]] | Sequence[Sequence[int]]


def split_streams(x: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """(B, T, D) -> one (B, T, d_i + 1) per feature: its columns and its presence (`aupipe.train.data`)."""
    starts = [0, *accumulate(dims)]
    presence = x[..., starts[-1] :]  # (B, T, F)
    return [
        torch.cat([x[..., start : start + dim], presence[..., i : i + 1]], -1)
        for i, (start, dim) in enumerate(zip(starts, dims, strict=False))
    ]


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the frames that are not padding. (B, T, C) -> (B, T, C)."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """``mask`` (B, T); the output at padding is 0. A single frame is normalised by the running statistics."""
        frames = x[mask]  # (B, T, C) -> (N, C)
        single = self.training and len(frames) < 2
        normed = nn.functional.batch_norm(
            frames,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training and not single,
            momentum=self.momentum or 0.1,
            eps=self.eps,
        )
        return torch.zeros_like(x).masked_scatter(mask[..., None], normed.to(x.dtype))


class Encoder(nn.Module):
    """Transformer encoder over the frames of a window; (B, T, width) -> (B, T, width).

    Post-norm without positions is what the code of igodrr/abaw6_AU, upczww/abaw5 and FuxiVirtualHuman/ABAW6 runs: the
    order of frames then comes from a TCN before it, or is not known. ``positions`` adds sinusoids.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        positions: bool = False,
        pre_norm: bool = False,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"attention: a width of {width} cannot be split into {heads} heads")
        layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout, activation, batch_first=True, norm_first=pre_norm
        )
        norm = nn.LayerNorm(width) if pre_norm else None
        self.encoder = nn.TransformerEncoder(layer, layers, norm=norm, enable_nested_tensor=False)
        for parameter in self.encoder.parameters():  # the layers are copies of one, with the same weights
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.positions = positions

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask`` (B, T), True where there is a frame."""
        if self.positions:
            x = x + sinusoid(x.shape[1], x.shape[2], x)
        encoded: Tensor = self.encoder(x, src_key_padding_mask=~mask)
        return encoded


def sinusoid(frames: int, width: int, like: Tensor) -> Tensor:
    """(T, width) sines and cosines of the frame number: Vaswani et al. 2017, section 3.5."""
    half = (width + 1) // 2
    rate = torch.exp(torch.arange(half, device=like.device) * (-math.log(10000.0) / half))
    angle = torch.arange(frames, device=like.device)[:, None] * rate  # (T, 1) x (half,)
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width].to(like.dtype)


class StreamTCNs(nn.Module):
    """One TCN per feature, their outputs concatenated: features -> (B, T, sum of the last widths).

    ``channels``: widths of the levels by the name of the feature, a row per feature, or one row for all.
    """

    def __init__(
        self,
        dims: Sequence[int],
        names: Sequence[str],
        channels: Channels,
        kernel_size: int,
        dropout: float,
        causal: bool,
        activation: str,
        norm: bool,
    ) -> None:
        super().__init__()
        if isinstance(channels, Mapping):
            if lacking := [name for name in names if name not in channels]:
                raise UsageError(
                    f"channels has no row for feature {lacking[0]!r}, only for {', '.join(channels)}: add "
                    f"[head.channels] {lacking[0]} = [...]"
                )
            channels = [channels[name] for name in names]
        rows = list(channels) * len(dims) if len(channels) == 1 else list(channels)
        if len(rows) != len(dims) or not all(rows):
            raise UsageError(
                f"channels has {len(rows)} rows for {len(dims)} features: give one row of widths each, or one for all"
            )
        self.dims = tuple(dims)
        self.width = sum(row[-1] for row in rows)
        self.nets = nn.ModuleList(
            TemporalConvNet(dim + 1, row, kernel_size, dropout, causal, activation)
            for dim, row in zip(dims, rows, strict=True)
        )
        # igodrr/abaw6_AU normalises over [C, 200], so its weights fit one window length only. Here it is over C.
        self.norms = nn.ModuleList(nn.LayerNorm(row[-1]) if norm else nn.Identity() for row in rows)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, width)."""
        streams = [
            norm(net(stream.transpose(1, 2), mask).transpose(1, 2))  # (B, T, d) -> (B, d, T) -> (B, C, T) -> (B, T, C)
            for stream, net, norm in zip(split_streams(x, self.dims), self.nets, self.norms, strict=True)
        ]
        return torch.cat(streams, dim=-1)
