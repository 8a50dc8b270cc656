"""A head that reads the output of a trained network: the last blocks of an encoder (`tail`), then any other head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aupipe.errors import UsageError, WeightsMissingError
from aupipe.tasks import Kind
from aupipe.train.heads import build_head, require_weights
from aupipe.train.heads.tail import Tail, TailConfig
from aupipe.train.heads.tail_network import RANDOM, find_weights


@dataclass(frozen=True)
class TrainedTailConfig:
    """``feature``: the crops, or the feature map, that the ``tail`` reads as they are stored. ``then``: the [head]
    table of the head after it, which reads the columns of the tail in place of that feature, and all other features.
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
        self.before, self.others = sum(dims[: self.place]), sum(dims) - dims[self.place]
        self.tail = Tail(config.tail, dims[self.place], read_weights)
        if config.then.get("kind") == "trained_tail":
            raise UsageError("head 'trained_tail': then is another trained_tail: one encoder is trained at a time")
        inner = tuple(self.tail.columns if i == self.place else dim for i, dim in enumerate(dims))
        width = sum(inner) + len(inner)
        self.then: Any = build_head(*_kind(config), width, targets, inner, task_kind, names, read_weights)
        if hasattr(self.then, "start_from"):
            raise UsageError("head 'trained_tail': then is a head that is initialised from features, which change here")
        self.rates = {"tail.": config.tail.rate}
        self.reads = ("raw", *getattr(self.then, "reads", ()))
        self.scored_only = config.feature in getattr(self.then, "own_frame", ())
        for name in ("context", "branches"):
            if hasattr(self.then, name):
                setattr(self, name, getattr(self.then, name))

    @staticmethod
    def unscaled(config: TrainedTailConfig) -> tuple[str, ...]:
        """The features that are not standardised."""
        return (config.feature,)

    @staticmethod
    def require(config: TrainedTailConfig) -> None:
        """Raise WeightsMissingError where the tail, or the head after it, lacks a file."""
        missing: list[str] = []
        for look in (
            lambda: config.tail.weights == RANDOM or find_weights(config.tail.weights),
            lambda: require_weights(*_kind(config)),
        ):
            try:
                look()
            except WeightsMissingError as error:
                missing += error.lines
        if missing:
            raise WeightsMissingError(*missing)

    def forward(self, x: Tensor, mask: Tensor, raw: tuple[Tensor, ...], **options: Any) -> Tensor:
        """``raw``: (B, T, d) of the feature; ``x`` has the columns of the others, and the presence of all.

        The tail runs on the frames in which the feature is present (without those of the context, where the head after
        it reads the feature of a frame for that frame alone); its columns are 0 elsewhere.
        """
        present = mask & (x[..., self.others + self.place] > 0)
        if self.scored_only and options.get("scored") is not None:
            present = present & options["scored"]
        row, _ = present.nonzero(as_tuple=True)  # (N,) the windows of the frames
        columns = x.new_zeros(*mask.shape, self.tail.columns)
        columns[present] = self.tail(raw[0][present], row)  # (N, d) -> (N, columns)
        together = torch.cat([x[..., : self.before], columns, x[..., self.before :]], dim=-1)
        out: Tensor = self.then(together, mask, **options)
        return out


def _kind(config: TrainedTailConfig) -> tuple[str, dict[str, Any]]:
    """Kind and parameters of the head after the tail."""
    return str(config.then.get("kind")), {key: value for key, value in config.then.items() if key != "kind"}
