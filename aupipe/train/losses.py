"""Losses over the valid entries of a batch; each ignores the rest whatever stands there.

A loss is a frozen ``Config`` and a class built from it and from the training labels' positive rates:

    class MyLoss:
        Config = MyConfig
        tasks = ("au",)
        def __init__(self, config: MyConfig, rates: Tensor) -> None: ...      # rates (K,)
        start: Tensor                                                         # (K,) the best constant output
        def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor: ...   # (B, T, K) -> scalar
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aupipe.errors import UsageError
from aupipe.registry import Registry
from aupipe.tables import build

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = Registry(
    "loss",
    {
        "bce": "aupipe.train.losses:BCELoss",
        "ce": "aupipe.train.losses:CrossEntropyLoss",
        "ccc": "aupipe.train.losses:CCCLoss",
    },
)


def loss_config(kind: str, params: Mapping[str, Any], task: str) -> Any:
    """The checked config of a registered loss. Raises UsageError for an unknown loss, key, type, or task."""
    cls = LOSSES.get(kind)
    if task not in cls.tasks:
        raise UsageError(f"loss {kind!r} is for {', '.join(cls.tasks)}, not for task {task!r}")
    return build(cls.Config, params, f"loss {kind!r}")


def build_loss(kind: str, params: Mapping[str, Any], task: str, rates: Tensor) -> Any:
    """A loss for ``task``; ``rates`` (K,) are the training split's positive rates or class shares."""
    config = loss_config(kind, params, task)
    for field in ("weight", "pos_weight"):
        value = getattr(config, field, "none")
        if value not in ("none", "balanced") and (isinstance(value, str) or len(value) != len(rates)):
            raise UsageError(f"loss {kind!r}: {field} = {value!r}: expected 'none', 'balanced' or {len(rates)} numbers")
    return LOSSES.get(kind)(config, rates)


@dataclass(frozen=True)
class BCEConfig:
    """``weight`` scales a whole AU, ``pos_weight`` only its positives: two different things.

    'balanced' is n_max / n_k for the first (S1, S5) and (1 - p) / p for the second, each clipped to its range. With
    pos_weight a threshold of 0.5 is near the best one for F1; without, the best threshold lies below.
    """

    weight: str | tuple[float, ...] = "none"
    weight_range: tuple[float, float] = (0.0, 100.0)
    pos_weight: str | tuple[float, ...] = "none"
    pos_weight_range: tuple[float, float] = (0.3, 8.0)


class BCELoss:
    """Binary cross-entropy on logits, the mean over valid entries."""

    Config = BCEConfig
    tasks = ("au",)

    def __init__(self, config: BCEConfig, rates: Tensor) -> None:
        rates = rates.clamp(1e-4, 1 - 1e-4)
        self.weight = _vector(config.weight, rates.max() / rates, config.weight_range)
        self.pos_weight = _vector(config.pos_weight, (1 - rates) / rates, config.pos_weight_range)
        self.start = (rates / (1 - rates) * (1.0 if self.pos_weight is None else self.pos_weight)).log()

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs``, ``targets``, ``valid`` (B, T, K)."""
        from torch.nn import functional as F

        each = F.binary_cross_entropy_with_logits(
            outputs, targets, weight=self.weight, pos_weight=self.pos_weight, reduction="none"
        )
        return each.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


@dataclass(frozen=True)
class CrossEntropyConfig:
    """``weight`` per class: 'none', 'balanced' (n_max / n_k, clipped to ``weight_range``) or eight numbers."""

    weight: str | tuple[float, ...] = "none"
    weight_range: tuple[float, float] = (1.0, 20.0)
    label_smoothing: float = 0.0


class CrossEntropyLoss:
    """Cross-entropy over classes, the weighted mean over valid frames."""

    Config = CrossEntropyConfig
    tasks = ("expr",)

    def __init__(self, config: CrossEntropyConfig, rates: Tensor) -> None:
        rates = rates.clamp(min=1e-4)
        self.weight = _vector(config.weight, rates.max() / rates, config.weight_range)
        self.label_smoothing = config.label_smoothing
        self.start = (rates * (1.0 if self.weight is None else self.weight)).log()

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs`` (B, T, 8); ``targets``, the class number, and ``valid`` (B, T, 1)."""
        from torch.nn import functional as F

        kept = valid[..., 0]
        if not kept.any():
            return outputs.sum() * 0.0
        return F.cross_entropy(
            outputs[kept],  # (B, T, 8) -> (N, 8)
            targets[..., 0][kept].long(),
            weight=self.weight,
            label_smoothing=self.label_smoothing,
        )


@dataclass(frozen=True)
class CCCConfig:
    """Nothing to choose."""


class CCCLoss:
    """Sum over targets of 1 - CCC, each once over all valid frames of the batch (S4): not per window, not per video."""

    Config = CCCConfig
    tasks = ("va",)

    def __init__(self, config: CCCConfig, rates: Tensor) -> None:
        self.start = rates * 0.0

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs``, ``targets``, ``valid`` (B, T, K)."""
        loss = outputs.sum() * 0.0
        for k in range(outputs.shape[-1]):
            x, y = outputs[..., k][valid[..., k]], targets[..., k][valid[..., k]]  # (B, T) -> (N,)
            if len(x) < 2:
                continue
            covariance = ((x - x.mean()) * (y - y.mean())).mean()
            spread = x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2
            loss = loss + 1 - 2 * covariance / (spread + 1e-8)
        return loss


def _vector(choice: str | tuple[float, ...], balanced: Tensor, limits: tuple[float, float]) -> Tensor | None:
    if choice == "none":
        return None
    return balanced.clamp(*limits) if choice == "balanced" else balanced.new_tensor(choice)
