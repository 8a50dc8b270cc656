"""Transformer encoder over the frames of a window, pre-norm, with positions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from aupipe.tables import Layers, Share, Width
from aupipe.train.heads.blocks import Encoder


@dataclass(frozen=True)
class TransformerConfig:
    """``width`` of the tokens, ``feedforward`` of the layers' hidden part; ``positions`` adds a sinusoid."""

    width: Width = 64
    layers: Layers = 2
    heads: Width = 4
    feedforward: Width = 128
    dropout: Share = 0.1
    input_dropout: Share = 0.0
    positions: bool = True


class TransformerHead(nn.Module):
    """Linear, encoder, linear; (B, T, D) -> (B, T, K). Source: Vaswani et al. 2017, pre-norm as Xiong et al. 2020."""

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig, inputs: int, targets: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.input_dropout)
        self.project = nn.Linear(inputs, config.width)
        self.encoder = Encoder(
            config.width,
            config.layers,
            config.heads,
            config.feedforward,
            config.dropout,
            config.positions,
            pre_norm=True,
        )
        self.out = nn.Linear(config.width, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Every frame attends to all frames of its window."""
        out: Tensor = self.out(self.encoder(self.project(self.dropout(x)), mask))
        return out
