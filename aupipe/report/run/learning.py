"""Learning curves: what each epoch of a training reached, a line for each fold or seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from aupipe.quantities import counted
from aupipe.report.figures import LIGHT, Panel, Plot
from aupipe.train.model import Model
from aupipe.train.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def learning_plot(model: Model) -> Plot | None:
    """Loss and validation score over the epochs, a pair of panels for each recipe with its features; None without."""
    groups: dict[str, list[Run]] = {}
    for run in model.runs:
        features = "" if len(run.features) > 1 else f" on {next(iter(run.features), '')}"
        groups.setdefault(f"{run.recipe.name}{features}", []).append(run)
    panels = []
    for name, runs in groups.items():
        if not any(run.history for run in runs):
            continue
        of = counted(len(runs), "run")
        panels.append(Panel(f"{name}: loss", partial(_draw_loss, runs=runs), of))
        if any(epoch.score is not None for run in runs for epoch in run.history):
            metric = model.task.metric
            panels.append(Panel(f"{name}: validation {metric}", partial(_draw_score, runs=runs), of))
    caption = "Learning curves, a line for each fold or seed; the dot is the epoch that was kept."
    return Plot("learning", caption, tuple(panels), (2.3, 1.7)) if panels else None


def _draw_loss(axes: Axes, runs: Sequence[Run]) -> None:
    for run in runs:
        axes.plot([e.epoch for e in run.history], [e.loss for e in run.history], color=LIGHT["blue"], linewidth=0.8)
    _label(axes, runs)


def _draw_score(axes: Axes, runs: Sequence[Run]) -> None:
    for run in runs:
        known = [(epoch.epoch, epoch.score) for epoch in run.history if epoch.score is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color=LIGHT["blue"], linewidth=0.8)
        kept = [(epoch, score) for epoch, score in known if epoch == run.best_epoch]
        axes.plot(*(zip(*kept, strict=True) if kept else ([], [])), "o", color=LIGHT["orange"], markersize=4)
    _label(axes, runs)


def _label(axes: Axes, runs: Sequence[Run]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if max(len(run.history) for run in runs) == 1:
        axes.lines[0].set_marker("o")
    axes.set_xlabel("epoch")
