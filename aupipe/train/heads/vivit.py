"""Factorised video Transformer over cached feature maps: over the tokens of a frame, then over the frames of a window.

Source: Vu et al. 2023, section 3.2; Arnab et al. 2021, model 2. With a pooled feature vector a frame is one token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aupipe.errors import UsageError
from aupipe.tables import Count, Layers, Share, Width
from aupipe.train.heads.blocks import Encoder


@dataclass(frozen=True)
class ViViTConfig:
    """``tokens`` per frame: a feature has channels x tokens columns, channels first, as in maps of 440 x 4 x 4.

    ``width``: tokens of another width are projected to it. ``positions``: the longest window in frames.
    """

    tokens: Count = 1
    width: Width = 440
    spatial_layers: Layers = 4
    temporal_layers: Layers = 4
    heads: Width = 8
    feedforward: Width = 1024
    positions: Count = 256
    dropout: Share = 0.3


class ViViTHead(nn.Module):
    """(B, T, D) -> (B, T, K); every feature must be a map of ``tokens`` positions."""

    Config = ViViTConfig
    streams = True

    def __init__(self, config: ViViTConfig, dims: tuple[int, ...], targets: int) -> None:
        super().__init__()
        wrong = [dim for dim in dims if dim % config.tokens]
        if wrong:
            raise UsageError(f"head 'vivit': a feature of {wrong[0]} columns is no map of {config.tokens} tokens")
        self.dims, self.tokens = dims, config.tokens
        channels = sum(dims) // config.tokens
        self.project = nn.Linear(channels, config.width) if channels != config.width else nn.Identity()
        self.presence = nn.Linear(len(dims), config.width, bias=False)
        self.summary = nn.Parameter(torch.zeros(config.width))  # its output is the input of the temporal encoder
        self.place = nn.Parameter(torch.zeros(config.tokens, config.width))
        self.time = nn.Parameter(torch.zeros(config.positions, config.width))
        for embedding in (self.summary, self.place, self.time):
            nn.init.trunc_normal_(embedding, std=0.02)
        shape = (config.heads, config.feedforward, config.dropout)
        self.spatial = Encoder(config.width, config.spatial_layers, *shape, pre_norm=True, activation="gelu")
        self.temporal = Encoder(config.width, config.temporal_layers, *shape, pre_norm=True, activation="gelu")
        self.out = nn.Linear(config.width, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Raises UsageError for a window beyond ``positions``."""
        batch, frames, _ = x.shape
        if frames > len(self.time):
            raise UsageError(f"head 'vivit': a window of {frames} frames, positions = {len(self.time)}")
        maps, start = [], 0
        for dim in self.dims:
            maps.append(x[..., start : start + dim].unflatten(-1, (dim // self.tokens, self.tokens)))  # (B, T, c, P)
            start += dim
        tokens = torch.cat(maps, dim=2).transpose(2, 3)  # (B, T, C, P) -> (B, T, P, C)
        tokens = self.project(tokens) + self.place + self.presence(x[..., start:])[:, :, None]
        tokens = torch.cat([self.summary.expand(batch, frames, 1, -1), tokens], dim=2).flatten(0, 1)  # (B T, 1 + P, d)
        whole = torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device)
        frame = self.spatial(tokens, whole)[:, 0].unflatten(0, (batch, frames))  # (B T, d) -> (B, T, d)
        out: Tensor = self.out(self.temporal(frame + self.time[:frames], mask))
        return out
