"""Losses over the valid entries of a batch; the values of invalid entries do not matter.

A loss is a frozen ``Config`` and a class built from it and from the training labels' positive rates:

    class MyLoss:
        Config = MyConfig
        kinds = ("multi_label",)
        def __init__(self, config: MyConfig, rates: Tensor) -> None: ...      # rates (K,)
        start: Tensor                                                         # (K,) the constant output of least loss
        def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor: ...   # (B, T, K) -> scalar

A loss with an attribute ``scale`` finds the size of the range of the task's numbers there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from aupipe.errors import UsageError
from aupipe.registry import Registry
from aupipe.tables import NotNegative, Range, Share, build

if TYPE_CHECKING:
    from torch import Tensor

    from aupipe.tasks import Task

LOSSES = Registry(
    "loss",
    {
        "bce": "aupipe.train.losses:BCELoss",
        "focal": "aupipe.train.losses:FocalLoss",
        "soft_margin": "aupipe.train.losses:BCELoss",  # the name of ihp-lab/ABAW5 (Yin et al. 2023); the same as BCE
        "ce": "aupipe.train.losses:CrossEntropyLoss",
        "ccc": "aupipe.train.losses:CCCLoss",
        "mse": "aupipe.train.losses:MSELoss",
    },
)


def loss_config(kind: str, params: Mapping[str, Any], task_kind: str) -> Any:
    """The checked config of a registered loss. Raises UsageError for an unknown loss, key, type, or kind of task."""
    cls = LOSSES.get(kind)
    if task_kind not in cls.kinds:
        raise UsageError(f"loss {kind!r} is for {', '.join(cls.kinds)}, not for a task of kind {task_kind}")
    return build(cls.Config, params, f"loss {kind!r}")


def build_loss(kind: str, params: Mapping[str, Any], task: Task, rates: Tensor) -> Any:
    """A loss for ``task``; ``rates`` (K,) are those of the training split (`aupipe.train.labels.positive_rates`)."""
    config = loss_config(kind, params, task.kind)
    for field in ("weight", "pos_weight"):
        value = getattr(config, field, "none")
        if value not in ("none", "balanced") and (isinstance(value, str) or len(value) != len(rates)):
            raise UsageError(f"loss {kind!r}: {field} = {value!r}: expected 'none', 'balanced' or {len(rates)} numbers")
    loss = LOSSES.get(kind)(config, rates)
    if hasattr(loss, "scale"):
        loss.scale = task.high - task.low
    return loss


class JointLoss:
    """The weighted sum of the losses of several tasks: multi-task learning.

    ``parts``: (loss, weight, output columns, target columns) per task, in the order of their columns. A task without an
    annotated entry in a batch adds 0.
    """

    def __init__(self, parts: Sequence[tuple[Any, float, int, int]]) -> None:
        import torch

        self.parts = parts
        self.start = torch.cat([loss.start for loss, *_ in parts])

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs`` (B, T, K) of all tasks, ``targets`` and ``valid`` (B, T, L); -> scalar."""
        total, out, target = outputs.new_zeros(()), 0, 0
        for loss, weight, columns, width in self.parts:
            own = slice(target, target + width)
            total = total + weight * loss(outputs[..., out : out + columns], targets[..., own], valid[..., own])
            out, target = out + columns, target + width
        return total


@dataclass(frozen=True)
class BCEConfig:
    """``weight`` scales the loss of an AU, ``pos_weight`` only that of its positives.

    'balanced' is n_max / n_k for ``weight`` (Yu et al. 2024; Zhang et al. 2024) and (1 - p) / p for ``pos_weight``,
    clipped to their ranges. With ``pos_weight`` a threshold of 0.5 is near the best one for F1; without it the best one
    is lower. ``label_smoothing`` moves all targets towards 1/2, ``robin_hood`` (`smooth_targets`) only those of the
    majority.
    """

    weight: str | tuple[NotNegative, ...] = "none"
    weight_range: tuple[NotNegative, NotNegative] = (0.0, 100.0)
    pos_weight: str | tuple[NotNegative, ...] = "none"
    pos_weight_range: tuple[NotNegative, NotNegative] = (0.3, 8.0)
    robin_hood: Share = 0.0
    label_smoothing: Share = 0.0


class BCELoss:
    """Binary cross-entropy on logits, the mean over valid entries."""

    Config = BCEConfig
    kinds = ("multi_label",)

    def __init__(self, config: BCEConfig, rates: Tensor) -> None:
        import torch

        rates = rates.clamp(1e-4, 1 - 1e-4)
        self.rates, self.config = rates, config
        self.weight = _vector(config.weight, rates.max() / rates, config.weight_range)
        self.pos_weight = _vector(config.pos_weight, (1 - rates) / rates, config.pos_weight_range)
        mean = rates * self._smooth(torch.ones_like(rates)) + (1 - rates) * self._smooth(torch.zeros_like(rates))
        self.start = (mean / (1 - mean) * (1.0 if self.pos_weight is None else self.pos_weight)).log()

    def _smooth(self, targets: Tensor) -> Tensor:
        return smooth_targets(targets, self.rates, self.config.robin_hood, self.config.label_smoothing)

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs``, ``targets``, ``valid`` (B, T, K)."""
        from torch.nn import functional as F

        targets = self._smooth(targets.where(valid, 0.0))  # NaN there would be a NaN gradient everywhere
        each = F.binary_cross_entropy_with_logits(
            outputs, targets, weight=self.weight, pos_weight=self.pos_weight, reduction="none"
        )
        return each.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


def smooth_targets(targets: Tensor, rates: Tensor, robin_hood: float, uniform: float = 0.0) -> Tensor:
    """Targets (..., K) moved towards 1/2: those of the majority by ``robin_hood``, then all by ``uniform``.

    Robin Hood label smoothing: y' = (1 - a/2) y + (b/2) (1 - y), a = s max(0, (2f - 1) / f), b = s max(0, (1 - 2f) /
    (1 - f)) for a positive rate f and strength s; at s = 1 the mean of the smoothed labels is 1/2 for every f. Source:
    Vu et al. 2023, eq. 3-4.
    """
    if robin_hood:
        positives = robin_hood * ((2 * rates - 1) / rates).clamp(min=0)  # above 0 where positives are the majority
        negatives = robin_hood * ((1 - 2 * rates) / (1 - rates)).clamp(min=0)
        targets = (1 - positives / 2) * targets + negatives / 2 * (1 - targets)
    return targets if not uniform else (1 - uniform) * targets + uniform / 2


@dataclass(frozen=True)
class FocalConfig:
    """``alpha`` weights positives, 1 - alpha negatives (below 0: neither); ``gamma`` lowers the loss of easy ones."""

    alpha: Annotated[float, Range(-1, 1)] = 0.75
    gamma: Annotated[float, Range(0, 100)] = 2.0
    robin_hood: Share = 0.0
    label_smoothing: Share = 0.0


class FocalLoss:
    """Sigmoid focal loss, the mean over valid entries. Sources: Lin et al. 2017; Vu et al. 2023: alpha .75, gamma 2."""

    Config = FocalConfig
    kinds = ("multi_label",)

    def __init__(self, config: FocalConfig, rates: Tensor) -> None:
        import torch

        self.rates, self.config = rates.clamp(1e-4, 1 - 1e-4), config
        grid = torch.linspace(-10, 10, 2001, device=rates.device)[:, None].expand(-1, len(rates))  # (n, K) constants
        hit, miss = (self._each(grid, torch.full_like(grid, y)) for y in (1.0, 0.0))
        best = (self.rates * hit + (1 - self.rates) * miss).argmin(dim=0)
        self.start = grid[best, 0].clone()  # there is no closed form

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs``, ``targets``, ``valid`` (B, T, K)."""
        each = self._each(outputs, targets.where(valid, 0.0))  # NaN there would be a NaN gradient everywhere
        return each.where(valid, 0.0).sum() / valid.sum().clamp(min=1)

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional as F

        config = self.config
        targets = smooth_targets(targets, self.rates, config.robin_hood, config.label_smoothing)
        each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        probability = outputs.sigmoid()
        each = each * (probability * (1 - targets) + (1 - probability) * targets) ** config.gamma
        return each if config.alpha < 0 else each * (config.alpha * targets + (1 - config.alpha) * (1 - targets))


@dataclass(frozen=True)
class CrossEntropyConfig:
    """``weight`` per class: 'none', 'balanced' (n_max / n_k, clipped to ``weight_range``) or a number each."""

    weight: str | tuple[NotNegative, ...] = "none"
    weight_range: tuple[NotNegative, NotNegative] = (1.0, 20.0)
    label_smoothing: Share = 0.0


class CrossEntropyLoss:
    """Cross-entropy over classes, the weighted mean over valid frames."""

    Config = CrossEntropyConfig
    kinds = ("classes",)

    def __init__(self, config: CrossEntropyConfig, rates: Tensor) -> None:
        rates = rates.clamp(min=1e-4)
        self.weight = _vector(config.weight, rates.max() / rates, config.weight_range)
        self.label_smoothing = config.label_smoothing
        self.start = (rates * (1.0 if self.weight is None else self.weight)).log()

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs`` (B, T, K); ``targets``, the class number, and ``valid`` (B, T, 1)."""
        from torch.nn import functional as F

        kept = valid[..., 0]
        if not kept.any():
            return outputs.sum() * 0.0
        return F.cross_entropy(
            outputs[kept],  # (B, T, K) -> (N, K)
            targets[..., 0][kept].long(),
            weight=self.weight,
            label_smoothing=self.label_smoothing,
        )


@dataclass(frozen=True)
class CCCConfig:
    """No parameters."""


class CCCLoss:
    """Sum over targets of 1 - CCC, over all valid frames of a batch together: Zhou et al. 2023 (upczww/abaw5)."""

    Config = CCCConfig
    kinds = ("regression", "intensity")

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
            denominator = x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2
            loss = loss + 1 - 2 * covariance / (denominator + 1e-8)
        return loss


@dataclass(frozen=True)
class MSEConfig:
    """No parameters."""


class MSELoss:
    """Mean squared error over valid entries, of numbers divided by the size of their range (``scale``)."""

    Config = MSEConfig
    kinds = ("regression", "intensity")

    def __init__(self, config: MSEConfig, rates: Tensor) -> None:
        self.start = rates.clone()
        self.scale = 1.0

    def __call__(self, outputs: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """``outputs``, ``targets``, ``valid`` (B, T, K)."""
        each = ((outputs - targets.where(valid, 0.0)) / self.scale) ** 2
        return each.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


def _vector(choice: str | tuple[float, ...], balanced: Tensor, limits: tuple[float, float]) -> Tensor | None:
    if choice == "none":
        return None
    return balanced.clamp(*limits) if choice == "balanced" else balanced.new_tensor(choice)
