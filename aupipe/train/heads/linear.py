"""Frame by frame: a linear map, so logistic regression under BCE. What every temporal head has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from aupipe.tables import Share


@dataclass(frozen=True)
class LinearConfig:
    """``dropout`` on the inputs."""

    dropout: Share = 0.0


class LinearHead(nn.Module):
    """(B, T, D) -> (B, T, K); starts at zero, the problem being convex.

    Inputs are scaled to the length that 1,000 standardised columns have, whatever their number, so that one learning
    rate and one penalty serve 20 columns and 6,000.
    """

    Config = LinearConfig

    def __init__(self, config: LinearConfig, inputs: int, targets: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.scale = math.sqrt(1000 / inputs)
        self.out = nn.Linear(inputs, targets)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Outputs (B, T, K); a frame knows nothing of its neighbours."""
        out: Tensor = self.out(self.dropout(x) * self.scale)
        return out
