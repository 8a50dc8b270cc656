"""A linear map of each frame: logistic regression under BCE. The baseline for temporal heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from aupipe.tables import Share
from aupipe.train.context import Context


@dataclass(frozen=True)
class LinearConfig:
    """``dropout`` on the inputs."""

    dropout: Share = 0.0


class LinearHead(nn.Module):
    """(B, T, D) -> (B, T, K). The initial weights are zero, because the problem is convex.

    Inputs are scaled to the norm of 1,000 standardised columns, so that the same learning rate and penalty suit 20
    columns and 6,000.
    """

    Config = LinearConfig
    context = Context()

    def __init__(self, config: LinearConfig, inputs: int, targets: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.scale = math.sqrt(1000 / inputs)
        self.out = nn.Linear(inputs, targets)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Outputs (B, T, K); each depends on its own frame only."""
        out: Tensor = self.out(self.dropout(x) * self.scale)
        return out
