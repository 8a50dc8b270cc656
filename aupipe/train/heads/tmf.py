"""Temporal multi-modal fusion: features concatenated, one Transformer encoder, no positions.

Source: Zhang et al. 2024, section 3.2; FuxiVirtualHuman/ABAW6. Nothing in it encodes the order of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from aupipe.tables import Layers, Range, Share, Width
from aupipe.train.heads.blocks import Encoder, MaskedBatchNorm


@dataclass(frozen=True)
class TMFConfig:
    """``width``: all features together are projected to it; ``encoder_width`` of the encoder; ``hidden`` after it."""

    width: Width = 256
    encoder_width: Annotated[int, Range(0, 65536)] = 128
    layers: Layers = 4
    heads: Width = 4
    feedforward: Width = 128
    dropout: Share = 0.3
    hidden: Width = 64


class TMFHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = TMFConfig

    def __init__(self, config: TMFConfig, inputs: int, targets: int) -> None:
        super().__init__()
        self.fuse = nn.Linear(inputs, config.width)  # conv1x1
        self.narrow = nn.Linear(config.width, config.encoder_width)
        self.encoder = Encoder(config.encoder_width, config.layers, config.heads, config.feedforward, config.dropout)
        self.hidden = nn.Linear(config.encoder_width, config.hidden)
        self.norm = MaskedBatchNorm(config.hidden)
        self.out = nn.Linear(config.hidden, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Permuting the frames permutes the outputs in the same way."""
        fused = self.narrow(F.leaky_relu(self.fuse(x), 0.1))  # (B, T, D) -> (B, T, encoder_width)
        out: Tensor = self.out(self.norm(self.hidden(self.encoder(fused, mask)), mask))
        return out
