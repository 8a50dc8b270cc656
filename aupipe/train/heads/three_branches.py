"""Three branches over pooled features, joined by a linear layer: the second member of the ensemble of Vu et al. 2023.

Source: Nguyen et al. 2022 (*An Ensemble Approach for Facial Behavior Analysis in-the-wild Video*, CVPR Workshops),
written from a description of th2l/Affwild2-ABAW3-ActionUnit. A Transformer (encoder and decoder) reads the features, an
MLP reads each frame, and a second Transformer reads the hidden layer of the MLP against the output of the first. Each
branch has outputs and a loss of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aupipe.errors import UsageError
from aupipe.tables import Layers, Share, Width


@dataclass(frozen=True)
class ThreeBranchesConfig:
    """``width`` of the tokens, to which the features are projected; ``layers`` of each encoder and each decoder.

    ``expand``: the first layer of the MLP has ``expand`` times ``width`` columns.
    """

    width: Width = 440
    layers: Layers = 2
    heads: Width = 10
    feedforward: Width = 512
    expand: float = 1.5
    dropout: Share = 0.1


class ThreeBranchesHead(nn.Module):
    """(B, T, D) -> (B, T, K); with ``branches`` (4, B, T, K): the output and those of the three branches."""

    Config = ThreeBranchesConfig
    branches = 3

    def __init__(self, config: ThreeBranchesConfig, inputs: int, targets: int) -> None:
        super().__init__()
        if config.width % config.heads:
            raise UsageError(f"attention: a width of {config.width} cannot be split into {config.heads} heads")
        width, hidden = config.width, round(config.expand * config.width)
        self.project = nn.Linear(inputs, width)
        self.first, self.second = (_Transformer(config) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU())
        self.outputs = nn.ModuleList(nn.Linear(width, targets) for _ in range(self.branches))
        self.join = nn.Sequential(nn.Linear(self.branches * targets, self.branches * targets), nn.ReLU())
        self.out = nn.Linear(self.branches * targets, targets)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor, branches: bool = False) -> Tensor:
        """The decoders are causal, the encoders are not: an output depends on all frames of the window."""
        tokens = self.project(x)  # (B, T, D) -> (B, T, width)
        temporal = self.first(tokens, tokens, mask)
        spatial = self.mlp(tokens)
        both = self.second(spatial, temporal, mask)
        found = [out(hidden) for out, hidden in zip(self.outputs, (temporal, spatial, both), strict=True)]
        joined: Tensor = self.out(self.join(torch.cat(found, dim=-1)))  # (B, T, 3 K) -> (B, T, K)
        return torch.stack([joined, *found]) if branches else joined


class _Transformer(nn.Module):
    """Encoder of ``source``, and a decoder of ``target`` with a causal mask; (B, T, width) -> (B, T, width)."""

    def __init__(self, config: ThreeBranchesConfig) -> None:
        super().__init__()
        width = config.width
        shape = (width, config.heads, config.feedforward, config.dropout)
        encoder, decoder = nn.TransformerEncoderLayer, nn.TransformerDecoderLayer
        self.encoder = nn.TransformerEncoder(
            encoder(*shape, batch_first=True, norm_first=True),
            config.layers,
            norm=nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            decoder(*shape, batch_first=True, norm_first=True), config.layers, norm=nn.LayerNorm(width)
        )
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):  # the layers are copies of one
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        half = (width + 1) // 2
        self.rate = nn.Parameter(torch.exp(torch.arange(half) * (-math.log(10000.0) / half)))

    def forward(self, source: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """``mask`` (B, T), False at padding."""
        place = self._positions(mask, source)
        later = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).triu(1)
        memory = self.encoder(source + place, src_key_padding_mask=~mask)
        decoded: Tensor = self.decoder(
            target + place, memory, tgt_mask=later, tgt_key_padding_mask=~mask, memory_key_padding_mask=~mask
        )
        return decoded

    def _positions(self, mask: Tensor, like: Tensor) -> Tensor:
        """(B, T, width) sines and cosines of the place in the window, from 0 to 1, times learned rates."""
        frame = torch.arange(mask.shape[1], device=mask.device)
        place = frame / (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)  # (T,) -> (B, T)
        angle = place[..., None] * self.rate  # (B, T, width / 2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., : like.shape[-1]].to(like.dtype)
