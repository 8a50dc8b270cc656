"""A head that reads the output of a trained network: the last blocks of an encoder (`tail`), then any other head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aupipe.errors import UsageError
from aupipe.tasks import Kind
from aupipe.train.heads import build_head, require_weights
from aupipe.train.heads.tail import RANDOM, Tail, TailConfig, find_weights


@dataclass(frozen=True)
class TrainedTailConfig:
    """``feature``: the crops, or the feature map, that the ``tail`` reads, not standardised. ``then``: the [head] table
    of the head after it, which reads the columns of the tail in place of that feature, and all other features.
    """

    feature: str
    tail: TailConfig
    then: dict[str, Any] = field(default_factory=lambda: {"kind": "linear"})


class TrainedTailHead(nn.Module):
    """(B, T, D) -> (B, T, K)."""

    Config = TrainedTailConfig
    streams = True

    def __init__(
        self,
        config: TrainedTailConfig,
        dims: tuple[int, ...],
        targets: int,
        names: tuple[str, ...],
        task_kind: Kind,
        read_weights: bool,
    ) -> None:
        super().__init__()
        if config.feature not in names:
            raise UsageError(f"head 'trained_tail': feature {config.feature!r} is not among {', '.join(names)}")
        self.place = names.index(config.feature)
        self.dims = dims
        self.tail = Tail(config.tail, dims[self.place], read_weights)
        inner = tuple(self.tail.columns if i == self.place else dim for i, dim in enumerate(dims))
        width = sum(inner) + len(inner)
        self.then: Any = build_head(*_kind(config), width, targets, inner, task_kind, names, read_weights)
        if hasattr(self.then, "start_from"):
            raise UsageError("head 'trained_tail': then is a head that is initialised from features, which change here")
        self.rates = {"tail.": config.tail.rate}
        for name in ("context", "reads", "branches"):
            if hasattr(self.then, name):
                setattr(self, name, getattr(self.then, name))

    @staticmethod
    def unscaled(config: TrainedTailConfig) -> tuple[str, ...]:
        """The features that are not standardised."""
        return (config.feature,)

    @staticmethod
    def require(config: TrainedTailConfig) -> None:
        """Raise WeightsMissingError where the tail, or the head after it, lacks a file."""
        if config.tail.weights != RANDOM:
            find_weights(config.tail.weights)
        require_weights(*_kind(config))

    def forward(self, x: Tensor, mask: Tensor, **options: Any) -> Tensor:
        """The tail runs on the frames in which the feature is present; its columns are 0 elsewhere."""
        start, stop = sum(self.dims[: self.place]), sum(self.dims[: self.place + 1])
        present = mask & (x[..., sum(self.dims) + self.place] > 0)
        row, _ = present.nonzero(as_tuple=True)  # (N,) the windows of the frames
        found = self.tail(x[..., start:stop][present], row)  # (N, d) -> (N, columns)
        columns = found.new_zeros(*mask.shape, self.tail.columns)
        columns[present] = found
        together = torch.cat([x[..., :start], columns.to(x.dtype), x[..., stop:]], dim=-1)
        out: Tensor = self.then(together, mask, **options)
        return out


def _kind(config: TrainedTailConfig) -> tuple[str, dict[str, Any]]:
    """Kind and parameters of the head after the tail."""
    return str(config.then.get("kind")), {key: value for key, value in config.then.items() if key != "kind"}
