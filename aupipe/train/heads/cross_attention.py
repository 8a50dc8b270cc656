"""Recursive joint cross-attention (RJCMA): each modality attends to the concatenation of all.

Source: praveena2j/RJCMA, models/dense_coattn.py. Its linear map over time fits windows of 300 frames only; here the
correlation with the joint features is an attention over frames, so a window may have any length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aupipe.tables import Layers, Share, Width
from aupipe.train.heads.blocks import split_streams


@dataclass(frozen=True)
class CrossAttentionConfig:
    """``width`` of each feature's tokens; ``recursions`` with shared weights; ``dropout`` on the attended tokens."""

    width: Width = 64
    recursions: Layers = 2
    dropout: Share = 0.3
    input_dropout: Share = 0.0


class CrossAttentionHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = CrossAttentionConfig
    streams = True

    def __init__(self, config: CrossAttentionConfig, dims: tuple[int, ...], targets: int) -> None:
        super().__init__()
        self.dims, self.config = dims, config
        width, joint = config.width, config.width * len(dims)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.projects = nn.ModuleList(nn.Linear(dim + 1, width) for dim in dims)
        self.queries = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in dims)
        self.keys = nn.ModuleList(nn.Linear(joint, width, bias=False) for _ in dims)
        self.values = nn.ModuleList(nn.Linear(joint, width) for _ in dims)
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in dims)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in dims)
        self.out = nn.Linear(joint, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """A frame attends to all frames of the window that are not padding."""
        inputs = split_streams(self.input_dropout(x), self.dims)
        streams = [project(own) for project, own in zip(self.projects, inputs, strict=True)]  # F x (B, T, C)
        absent = ~mask[:, None]  # (B, 1, T)
        for _ in range(self.config.recursions):
            joint = torch.cat(streams, dim=-1)  # (B, T, F C)
            attended = []
            for i, own in enumerate(streams):
                score = self.queries[i](own) @ self.keys[i](joint).transpose(1, 2) / math.sqrt(own.shape[-1])
                weight = score.masked_fill(absent, -torch.inf).softmax(dim=-1)  # (B, T, T)
                found = torch.relu(self.mixes[i](weight @ self.values[i](joint)))
                attended.append(self.norms[i](own + self.dropout(found)))
            streams = attended
        out: Tensor = self.out(torch.cat(streams, dim=-1))
        return out
