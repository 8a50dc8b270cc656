"""Exponential moving average of a head's weights, which often scores better than the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """``decay``: the share of the average that is kept at each step; 0: no average, and no memory used.

    At step n at most n / (n + 9) is kept, so that the random initial weights are forgotten. Only trained parameters are
    averaged: running statistics of batch normalisation are averages already.
    """

    def __init__(self, head: nn.Module, decay: float) -> None:
        self.decay = decay
        trained = {name: value for name, value in head.named_parameters() if value.requires_grad} if decay else {}
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in trained.items()}
        self.count = torch.zeros((), dtype=torch.float32)
        if decay:
            self.values["steps"] = self.count

    @torch.no_grad()
    def update(self, head: nn.Module) -> None:
        """Add the weights after one optimiser step to the average."""
        if not self.decay:
            return
        self.count += 1
        kept = min(self.decay, float(self.count) / (float(self.count) + 9))
        for name, value in head.named_parameters():
            if name in self.values:
                self.values[name].lerp_(value.detach(), 1 - kept)

    @contextmanager
    def applied_to(self, head: nn.Module) -> Iterator[None]:
        """The head has the averaged weights inside the context, and exactly its own ones afterwards."""
        own = {name: value.detach().clone() for name, value in head.named_parameters() if name in self.values}
        with torch.no_grad():
            for name in own:
                head.get_parameter(name).copy_(self.values[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    head.get_parameter(name).copy_(value)
