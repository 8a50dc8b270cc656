"""The keys of a recipe outside any table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import Count, Natural, NotNegative, Range, Share, ShareBelowOne

MONITORS = ("score", "tuned")


@dataclass(frozen=True)
class Settings:
    """``window`` and ``hop`` in frames, ``batch`` in windows.

    ``epochs``: at most so many; ``patience``: training stops after so many without a better validation score.
    ``features``: names from the configuration; (): all that are given. ``predict_window``, ``predict_hop``: windows for
    prediction, in frames; 0: as in training. ``steps``: optimiser steps per epoch at most; 0: no limit. ``ema``: decay
    of the moving average of the weights; 0: none. ``amp``: the head runs in bfloat16. ``monitor``: epochs are compared
    by the 'score' at threshold 0.5, or 'tuned': at the best threshold of each AU.

    ``margin``: windows are read with the context of the head beyond their edges, which is not scored. ``shift``: in
    each epoch the windows of a recording start at another frame, drawn at random. ``bias_at_rates``: the output bias
    starts at the best constant output, not as torch starts it. ``center``, ``clip``, ``absent``: see
    `aupipe.train.data.Scaling`. ``symmetric``: rows are the mean of themselves and their mirror images, of features of
    which these are known (`aupipe.train.mirror`).
    """

    window: Count = 128
    hop: Count = 64
    batch: Count = 16
    epochs: Count = 30
    patience: Count = 10
    center: Share = 0.0
    features: tuple[str, ...] = ()
    predict_window: Natural = 0
    predict_hop: Natural = 0
    steps: Annotated[int, Range(0, 10**9)] = 0
    ema: ShareBelowOne = 0.0
    amp: bool = False
    monitor: str = "score"
    margin: bool = False
    shift: bool = True
    bias_at_rates: bool = True
    clip: NotNegative = 10.0
    absent: Literal["zero", "nearest"] = "zero"
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.predict_hop > (self.predict_window or self.window):
            raise UsageError(f"recipe: predict_hop = {self.predict_hop} exceeds the window: frames would be left out")
        if self.monitor not in MONITORS:
            raise UsageError(
                f"recipe: monitor = {self.monitor!r}.{nearest(self.monitor, MONITORS)} Known: score, tuned"
            )
        if self.hop > self.window:
            raise UsageError(f"recipe: hop = {self.hop} exceeds window = {self.window}: frames would be left out")

    @property
    def scaling(self) -> dict[str, Any]:
        """The fields of `aupipe.train.data.Scaling` that the recipe sets."""
        return {"center": self.center, "clip": self.clip, "absent": self.absent}

    @property
    def predict_windows(self) -> tuple[int, int]:
        """Window and hop of prediction."""
        return self.predict_window or self.window, self.predict_hop or min(self.hop, self.predict_window or self.window)
