"""A bidirectional GRU per feature, their states concatenated, then an MLP.

Source: Yin et al. 2023, section 3.4; ihp-lab/ABAW5. The released code reads the output at the last, zero-padded step:
the forward state after padding, and a backward state that has read one step. Here both are final states.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from aupipe.errors import UsageError
from aupipe.tables import Layers, Natural, Share, Width
from aupipe.train.heads.blocks import MaskedBatchNorm, split_streams


@dataclass(frozen=True)
class GRUConfig:
    """``context``: frames on either side that the GRU reads around each frame; 0: one pass over the whole window.

    ``static``: indices (from 0) of features that bypass the GRU through a linear layer to ``static_width``.
    """

    context: Natural = 0
    width: Width = 64
    layers: Layers = 2
    static: tuple[Natural, ...] = ()
    static_width: Width = 512
    hidden: Width = 512
    dropout: Share = 0.1


class GRUHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = GRUConfig
    streams = True

    def __init__(self, config: GRUConfig, dims: tuple[int, ...], targets: int) -> None:
        super().__init__()
        if config.static and max(config.static) >= len(dims):
            raise UsageError(f"head 'gru': static = {config.static}, but there are {len(dims)} features, from 0")
        self.dims, self.config = dims, config
        static = [i in config.static for i in range(len(dims))]
        self.projects = nn.ModuleList(
            nn.Linear(dim + 1, config.static_width if bypass else config.width)
            for dim, bypass in zip(dims, static, strict=True)
        )
        between = config.dropout if config.layers > 1 else 0.0
        self.grus = nn.ModuleList(
            nn.Identity()
            if bypass
            else nn.GRU(config.width, config.width, config.layers, True, True, between, bidirectional=True)
            for bypass in static
        )
        together = sum(config.static_width if bypass else 2 * config.width for bypass in static)
        self.hidden = nn.Linear(together, config.hidden)
        self.norm = MaskedBatchNorm(config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """After the streams: linear, ReLU, batch norm, dropout, linear, as published."""
        states = []
        for stream, project, gru in zip(split_streams(x, self.dims), self.projects, self.grus, strict=True):
            tokens = project(stream)  # (B, T, d + 1) -> (B, T, width)
            if isinstance(gru, nn.GRU):
                tokens = self._around(tokens, mask, gru) if self.config.context else self._along(tokens, mask, gru)
            states.append(tokens)
        hidden = self.norm(F.relu(self.hidden(torch.cat(states, dim=-1))), mask)
        out: Tensor = self.out(self.dropout(hidden))
        return out

    def _along(self, tokens: Tensor, mask: Tensor, gru: nn.GRU) -> Tensor:
        """(B, T, C) -> (B, T, 2C): both directions over the frames of the window, without padding."""
        packed = pack_padded_sequence(tokens, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=tokens.shape[1])
        return states

    def _around(self, tokens: Tensor, mask: Tensor, gru: nn.GRU) -> Tensor:
        """(B, T, C) -> (B, T, 2C): the final states of both directions over ``context`` frames on either side.

        At the ends of a window there are fewer, because padding is not read.
        """
        reach, (batch, frames, width) = self.config.context, tokens.shape
        around = F.pad(tokens, (0, 0, reach, reach)).unfold(1, 2 * reach + 1, 1).transpose(2, 3)  # (B, T, 2r + 1, C)
        there = F.pad(mask, (reach, reach)).unfold(1, 2 * reach + 1, 1)  # (B, T, 2r + 1)
        own = mask.flatten()
        around, there = around.reshape(batch * frames, -1, width)[own], there.reshape(batch * frames, -1)[own]
        # The valid frames of a row are contiguous; move them to its front.
        order = (~there).long().argsort(dim=1, stable=True)
        around = around.gather(1, order[..., None].expand(-1, -1, width))
        packed = pack_padded_sequence(around, there.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        last = gru(packed)[1][-2:]  # (2 layers, N, C) -> the last layer's two directions, (2, N, C)
        out = tokens.new_zeros(batch * frames, 2 * width)
        out[own] = last.transpose(0, 1).flatten(1)  # (2, N, C) -> (N, 2 C)
        return out.unflatten(0, (batch, frames))
