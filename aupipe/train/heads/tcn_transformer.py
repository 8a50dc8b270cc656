"""A TCN per feature, then a Transformer encoder over all of them.

Sources: Zhou et al. 2023, section 3.5, and upczww/abaw5; also what the code of AUD-TGN runs (igodrr/abaw6_AU). Only the
TCNs know the order of frames: the encoder has no positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aupipe.tables import Layers, Range, Share, Width
from aupipe.tasks import Kind
from aupipe.train.heads.blocks import Encoder, MaskedBatchNorm, StreamTCNs


@dataclass(frozen=True)
class TCNTransformerConfig:
    """``channels``: TCN widths by the name of the feature, or one row for all; level i has dilation 2^i.

    ``width``: the outputs of the TCNs are projected to it, followed by LeakyReLU(``leak``), where 1 is no activation;
    then to ``encoder_width`` unless 0. ``hidden``: the batch-normalised layer before the output. ``stream_norm``: a
    LayerNorm after each TCN, as in igodrr/abaw6_AU. ``separate``: for valence and arousal (any task of numbers) each
    output has such a layer of its own, as the two heads of upczww/abaw5 have.
    """

    channels: dict[str, tuple[Width, ...]] | tuple[tuple[Width, ...], ...] = ((512, 256, 128),)
    kernel_size: Annotated[int, Range(1, 4096)] = 5
    causal: bool = True
    activation: str = "prelu"
    stream_norm: bool = False
    tcn_dropout: Share = 0.3
    width: Width = 512
    leak: Annotated[float, Range(-10, 10)] = 1.0
    encoder_width: Annotated[int, Range(0, 65536)] = 0
    layers: Layers = 8
    heads: Width = 4
    feedforward: Width = 512
    dropout: Share = 0.3
    hidden: Width = 256
    separate: bool = False


class OutputMLP(nn.Module):
    """The layers after the encoder for a single output; (B, T, C) -> (B, T, 1)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.norm = MaskedBatchNorm(hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask`` (B, T), False at padding."""
        out: Tensor = self.out(self.norm(self.hidden(x), mask))
        return out


class TCNTransformerHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = TCNTransformerConfig
    streams = True

    def __init__(
        self,
        config: TCNTransformerConfig,
        dims: tuple[int, ...],
        targets: int,
        names: tuple[str, ...],
        task_kind: Kind,
    ) -> None:
        super().__init__()
        self.tcns = StreamTCNs(
            dims,
            names,
            config.channels,
            config.kernel_size,
            config.tcn_dropout,
            config.causal,
            config.activation,
            config.stream_norm,
        )
        self.leak = config.leak
        self.fuse = nn.Linear(self.tcns.width, config.width)  # conv1x1
        width = config.encoder_width or config.width
        self.narrow = nn.Linear(config.width, width) if config.encoder_width else nn.Identity()
        self.encoder = Encoder(width, config.layers, config.heads, config.feedforward, config.dropout)
        self.outputs: nn.ModuleList | None = None
        if config.separate and task_kind in ("regression", "intensity"):
            self.outputs = nn.ModuleList(OutputMLP(width, config.hidden) for _ in range(targets))
            return
        self.hidden = nn.Linear(width, config.hidden)
        self.norm = MaskedBatchNorm(config.hidden)
        self.out = nn.Linear(config.hidden, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """There is no activation between the last two layers, as published."""
        fused = F.leaky_relu(self.fuse(self.tcns(x, mask)), self.leak)  # (B, T, sum C) -> (B, T, width)
        encoded = self.encoder(self.narrow(fused), mask)
        if self.outputs is not None:
            return torch.cat([output(encoded, mask) for output in self.outputs], dim=-1)
        out: Tensor = self.out(self.norm(self.hidden(encoded), mask))
        return out
