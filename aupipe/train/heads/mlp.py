"""An MLP of each frame with one hidden layer, as in HSEmotion (av-savchenko/face-emotion-recognition, src/ABAW)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from aupipe.tables import Share, Width
from aupipe.train.context import Context


@dataclass(frozen=True)
class MLPConfig:
    """``width`` of the hidden layer; ``input_dropout`` on the features, ``dropout`` on the hidden layer."""

    width: Width = 128
    dropout: Share = 0.0
    input_dropout: Share = 0.0


class MLPHead(nn.Module):
    """Linear, ReLU, linear; (B, T, D) -> (B, T, K)."""

    Config = MLPConfig
    context = Context()

    def __init__(self, config: MLPConfig, inputs: int, targets: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Dropout(config.input_dropout), nn.Linear(inputs, config.width), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.out = nn.Linear(config.width, targets)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The output of a frame depends on that frame only."""
        out: Tensor = self.out(self.hidden(x))  # (B, T, D) -> (B, T, width) -> (B, T, K)
        return out
