"""Figures of tasks whose predictions are numbers: agreement with the labels, and errors over time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aupipe.report.figures import LIGHT, Panel, Plot
from aupipe.report.run import measures
from aupipe.report.run.plots import BLUE, NAVY, WHITE, fill_cells
from aupipe.report.run.recordings import RecordingScore
from aupipe.train.evaluation import Evaluation
from aupipe.train.predictions import aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 32  # of the density, each way
SHOWN = 6  # recordings, the worst
POINTS = 160  # of a curve
PALE = "#bfdcec"


def agreement_plot(evaluation: Evaluation, pooled: measures.Pooled) -> Plot:
    """Predictions over labels, as the density of the frames."""
    task, panels = evaluation.model.task, []
    for k, name in enumerate(task.names):
        on = pooled.scored[:, k]
        x, y = pooled.targets[on, k], pooled.decided[on, k]
        title = f"{name}, {task.metric} {evaluation.scores.values[k]:.2f}"
        panels.append(Panel(title, partial(_draw_density, x=x, y=y, low=task.low, high=task.high)))
    caption = "Predictions over labels; darker cells hold more frames, the line is where both are equal."
    return Plot("agreement", caption, tuple(panels), (2.3, 2.2))


def _draw_density(axes: Axes, x: NDArray[Any], y: NDArray[Any], low: float, high: float) -> None:
    edges = np.linspace(low, high, CELLS + 1)
    counts, _, _ = np.histogram2d(np.clip(x, low, high), np.clip(y, low, high), (edges, edges))
    shade = np.where(counts > 0, np.log(np.maximum(counts, 1)) / max(np.log(counts.max(initial=1)), 1e-9), np.nan)
    axes.set_facecolor(WHITE)
    fill_cells(axes, shade.T, edges, edges, [PALE, BLUE, NAVY])
    axes.plot([low, high], [low, high], color=LIGHT["orange"], linewidth=0.8)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="label", ylabel="predicted", aspect="equal")


def residuals_plot(evaluation: Evaluation, recordings: Sequence[RecordingScore]) -> Plot:
    """The errors over time in the worst recordings: of two names both, of more that of the weakest one."""
    task, panels = evaluation.model.task, []
    for one in recordings[:SHOWN]:
        item, labels = evaluation.predictions[one.recording], evaluation.labels[one.recording]
        targets, decided, scored = aligned(labels, item)
        times = item.pts_s[: len(targets)]
        if not np.isfinite(times).all():
            times = np.arange(len(targets), dtype=np.float64)
        for k in _of_interest(task.names, one.weakest):
            residual = np.where(scored[:, k], decided[:, k] - targets[:, k], np.nan)
            title = f"{one.recording}, {task.names[k]}"
            span = task.high - task.low
            panels.append(Panel(title, partial(_draw_residual, times=times, residual=residual, span=span)))
    caption = f"Prediction minus label over time, in the {min(SHOWN, len(recordings))} worst recordings."
    return Plot("residuals", caption, tuple(panels), (2.7, 1.5))


def _of_interest(names: Sequence[str], weakest: Sequence[str]) -> list[int]:
    return [0, 1][: len(names)] if len(names) <= 2 else [names.index(weakest[0]) if weakest else 0]


def _draw_residual(axes: Axes, times: NDArray[Any], residual: NDArray[Any], span: float) -> None:
    part = np.arange(len(times)) * min(POINTS, len(times)) // max(len(times), 1)
    known = np.isfinite(residual)
    count = np.bincount(part[known], minlength=int(part.max(initial=0)) + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(part[known], residual[known], len(count)) / count
    at = np.bincount(part, times, len(count)) / np.bincount(part, minlength=len(count))
    axes.axhline(0, color=LIGHT["grey"], linewidth=0.6)
    axes.fill_between(at, mean, 0, color=LIGHT["pale"], linewidth=0)
    axes.plot(at, mean, color=LIGHT["blue"], linewidth=0.8)
    axes.set(ylim=(-span, span), xlabel="s", xlim=(float(times[0]), float(times[-1])) if len(times) > 1 else (0, 1))
