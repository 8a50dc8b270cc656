"""The learning rate over a run: warm-up, then a curve; and the plateau rule, which looks at the score."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import Natural, NotNegative, Positive, Range, ShareBelowOne

if TYPE_CHECKING:
    import torch

OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant", "restarts", "bounce", "plateau")


@dataclass(frozen=True)
class Optimiser:
    """``kind`` adamw (decoupled decay) or sgd (``momentum``, an L2 penalty), and what becomes of ``lr``.

    Linear warm-up over ``warmup_epochs`` or, if given, ``warmup_steps``. Then ``schedule``: cosine down to ``final_lr``
    times ``lr``; constant; restarts, a cosine anew every ``restart_epochs``; bounce, down and up again in as many; or
    plateau, times ``plateau_factor`` after ``plateau_patience`` epochs without a better score. From epoch
    ``drop_epoch`` on (0: never) all of it times ``drop_factor``. ``warmup_only_first``: S1's code stops its warm-up at
    the first epoch's end.
    """

    kind: str = "adamw"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 1e-2
    schedule: str = "cosine"
    warmup_epochs: NotNegative = 1.0
    warmup_steps: Annotated[int, Range(0, 10**9)] = 0
    final_lr: NotNegative = 0.01
    restart_epochs: Positive = 4.0
    plateau_patience: Natural = 5
    plateau_factor: Annotated[float, Range(0, 1, open="low")] = 0.1
    drop_epoch: Natural = 0
    drop_factor: NotNegative = 0.1
    momentum: ShareBelowOne = 0.9  # of sgd
    warmup_only_first: bool = False
    clip_norm: NotNegative = 1.0  # of the whole gradient; 0: none
    clip_value: NotNegative = 0.0  # of each number in it; 0: none

    def __post_init__(self) -> None:
        for what, value, known in (
            ("optimiser", self.kind, OPTIMISERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise UsageError(f"unknown {what} {value!r}.{nearest(value, known)} Available: {', '.join(known)}")


def build_optimiser(head: torch.nn.Module, options: Optimiser) -> torch.optim.Optimizer:
    """The optimiser of a head's trained parameters; biases and gains are not decayed."""
    import torch

    # One number per output is not decayed: a penalised bias cannot say how rare an AU is.
    learnt = {name: value for name, value in head.named_parameters() if value.requires_grad}
    single = {name for name, value in learnt.items() if value.ndim == 0 or value.numel() == len(value)}
    decayed, spared = (
        [value for name, value in learnt.items() if (name in single) == chosen] for chosen in (False, True)
    )
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    if options.kind == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=options.momentum > 0)
    return torch.optim.AdamW(groups, lr=options.lr)


def lr_factor(step: int, steps: int, epochs: int, options: Optimiser) -> float:
    """The factor on ``lr`` at optimiser step ``step`` (from 0), an epoch being ``steps`` of them."""
    epoch = step / steps
    warm = options.warmup_steps / steps if options.warmup_steps else options.warmup_epochs
    dropped = options.drop_factor if options.drop_epoch and epoch >= options.drop_epoch else 1.0
    if epoch < warm:
        return dropped * (epoch + 0.01) / (warm + 0.01)
    if options.schedule in ("constant", "plateau"):
        return dropped
    if options.schedule == "restarts":
        done = ((epoch - warm) % options.restart_epochs) / options.restart_epochs
    elif options.schedule == "bounce":
        done = 2 * (epoch - warm) / options.restart_epochs  # a cosine of this period, down and up
    else:
        done = min((epoch - warm) / max(epochs - warm, 1e-9), 1.0)
    return dropped * (options.final_lr + (1 - options.final_lr) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass
class Plateau:
    """Lowers ``factor`` when the score has not risen for ``plateau_patience`` epochs; mutable, saved with a run."""

    factor: float = 1.0
    best: float = -math.inf
    bad: int = 0

    def see(self, score: float, options: Optimiser) -> None:
        """Take note of an epoch's score."""
        if options.schedule != "plateau":
            return
        if score > self.best:
            self.best, self.bad = score, 0
            return
        self.bad += 1
        if self.bad > options.plateau_patience:
            self.factor, self.bad = self.factor * options.plateau_factor, 0

    def to_json(self) -> dict[str, float]:
        """As keyword arguments that make it again."""
        return asdict(self)
