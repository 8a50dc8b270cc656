"""The optimiser, and its learning rate over a run: warm-up, then a schedule, or a plateau of the validation score."""

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
    """``kind``: adamw (decoupled weight decay) or sgd (with ``momentum``; weight decay is an L2 penalty).

    ``lr`` rises linearly over ``warmup_epochs`` or, if given, ``warmup_steps``. Then ``schedule``: 'cosine' falls to
    ``final_lr`` times ``lr``; 'constant'; 'restarts' repeats the cosine every ``restart_epochs``; 'bounce' falls and
    rises again within ``restart_epochs``; 'plateau' multiplies by ``plateau_factor`` after ``plateau_patience`` epochs
    without a better score. From epoch ``drop_epoch`` on (0: never) the rate is multiplied by ``drop_factor``.
    ``warmup_only_first``: the warm-up ends with the first epoch, finished or not, as in the code of AUD-TGN
    (igodrr/abaw6_AU).
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
    nesterov: bool = True  # of sgd with momentum
    decay_biases: bool = False
    warmup_only_first: bool = False
    clip_norm: NotNegative = 1.0  # the largest norm of the gradient; 0: no limit
    clip_value: NotNegative = 0.0  # the largest absolute value of one component; 0: no limit

    def __post_init__(self) -> None:
        for what, value, known in (
            ("optimiser", self.kind, OPTIMISERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise UsageError(f"unknown {what} {value!r}.{nearest(value, known)} Available: {', '.join(known)}")


def build_optimiser(head: torch.nn.Module, options: Optimiser) -> torch.optim.Optimizer:
    """The optimiser of a head's trained parameters; biases and gains have no weight decay unless ``decay_biases``."""
    import torch

    # A penalised bias cannot express how rare an AU is.
    trained = {name: value for name, value in head.named_parameters() if value.requires_grad}
    vectors = {name for name, value in trained.items() if value.ndim == 0 or value.numel() == len(value)}
    vectors = set() if options.decay_biases else vectors
    rates: dict[str, float] = getattr(head, "rates", {})
    scale = {name: next((rate for start, rate in rates.items() if name.startswith(start)), 1.0) for name in trained}
    groups = [
        {"params": values, "weight_decay": 0.0 if vector else options.weight_decay, "scale": factor}
        for factor in dict.fromkeys((1.0, *scale.values()))
        for vector in (False, True)
        for values in [[trained[name] for name in trained if (name in vectors, scale[name]) == (vector, factor)]]
    ]
    if options.kind == "sgd":
        nesterov = options.nesterov and options.momentum > 0
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=options.lr)


def lr_factor(epoch: float, steps: int, epochs: int, options: Optimiser) -> float:
    """The factor on ``lr`` at a position in a run of ``epochs``: 2.5 is the middle of the third one.

    ``steps``: optimiser steps of this epoch, by which ``warmup_steps`` are counted. Shifted windows can give more steps
    in one epoch than in another, so a schedule over the number of steps would end early or late (torch's LambdaLR
    counts steps).
    """
    if options.warmup_only_first and epoch >= 1:
        return 1.0
    warm = options.warmup_steps / steps if options.warmup_steps else options.warmup_epochs
    dropped = options.drop_factor if options.drop_epoch and epoch >= options.drop_epoch else 1.0
    if epoch < warm:
        return dropped * (epoch + 0.01) / (warm + 0.01)
    if options.schedule in ("constant", "plateau"):
        return dropped
    if options.schedule == "restarts":
        done = ((epoch - warm) % options.restart_epochs) / options.restart_epochs
    elif options.schedule == "bounce":
        done = 2 * (epoch - warm) / options.restart_epochs  # a cosine of this period falls and rises
    else:
        done = min((epoch - warm) / max(epochs - warm, 1e-9), 1.0)
    return dropped * (options.final_lr + (1 - options.final_lr) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass
class Plateau:
    """Lowers ``factor`` when the score has not risen for ``plateau_patience`` epochs. Mutable, saved with a run."""

    factor: float = 1.0
    best: float = -math.inf
    bad: int = 0

    def update(self, score: float, options: Optimiser) -> None:
        """Take the validation score of one more epoch into account."""
        if options.schedule != "plateau":
            return
        if score > self.best:
            self.best, self.bad = score, 0
            return
        self.bad += 1
        if self.bad > options.plateau_patience:
            self.factor, self.bad = self.factor * options.plateau_factor, 0

    def to_json(self) -> dict[str, float]:
        """The fields as a JSON object."""
        return asdict(self)
