"""The figures of one model: scores, errors, thresholds, calibration, confusion. Each is drawn from numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aupipe.report.figures import LIGHT, Panel, Plot
from aupipe.report.run import measures
from aupipe.train.evaluation import Evaluation
from aupipe.train.metrics import class_confusion, confusion
from aupipe.train.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALL = (2.0, 1.75)  # inches, of one panel of many
WIDE = 5.4
LINE = 0.24  # inches a name needs
LEVELS = 17  # of a scale of colours
TRIVIAL = "constant prediction"
# Of cells, whose colours mean the same on dark paper: none is a colour of the palette.
WHITE, BLUE, NAVY, ORANGE = "#fdfdfd", "#0071b1", "#00304d", "#d45d00"


def scores_plot(evaluation: Evaluation, trivial: Scores) -> Plot:
    """The score of each name with its interval, beside that of a constant prediction."""
    scores, interval = evaluation.scores, evaluation.interval
    at = np.arange(len(scores.names))

    def draw(axes: Axes) -> None:
        if interval is not None:
            low, high = np.array(interval.each).T
            axes.barh(at, high - low, left=low, height=0.5, color=LIGHT["pale"], label="95% by video")
        axes.axvline(scores.mean, color=LIGHT["grey"], linewidth=0.8, label="mean")
        axes.plot(trivial.values, at, "|", color=LIGHT["orange"], markersize=9, markeredgewidth=1.6, label=TRIVIAL)
        axes.plot(scores.values, at, "o", color=LIGHT["blue"], markersize=4.5, label=scores.metric)
        axes.set_yticks(at, [_named(scores, k) for k in range(len(at))])
        axes.invert_yaxis()
        axes.set_xlabel(f"{scores.metric}{' (share of positive frames in brackets)' if scores.metric == 'F1' else ''}")
        low_end = min([*scores.values, *(one[0] for one in interval.each)] if interval else scores.values)
        axes.set_xlim(low_end - 0.05 if low_end < 0 else 0, 1)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handletextpad=0.4)

    each = ", ".join(f"{name} {value:z.2f}" for name, value in zip(scores.names, scores.values, strict=True))
    caption = f"{scores.metric} of each: is it better than a constant prediction, and how sure is that?"
    return Plot("scores", caption, (Panel("", draw, each),), (WIDE, 0.9 + LINE * len(at)))


def _named(scores: Scores, k: int) -> str:
    if scores.metric != "F1":
        return scores.names[k]
    return f"{scores.names[k]} ({scores.share(k):.0%})"


def errors_plot(evaluation: Evaluation, pooled: measures.Pooled) -> Plot:
    """Of a multi-label task: the frames of each name that are found, missed, and predicted without a label."""
    names = evaluation.model.task.names
    counts = confusion(pooled.targets > 0.5, pooled.decided > 0.5, pooled.scored)
    found, missed, false = (
        counts[:, a, b] / np.maximum(counts.sum(axis=(1, 2)), 1) for a, b in ((1, 1), (1, 0), (0, 1))
    )
    at = np.arange(len(names))

    def draw(axes: Axes) -> None:
        axes.barh(at, found, height=0.65, color=LIGHT["green"], label="found")
        axes.barh(at, missed, left=found, height=0.65, color=LIGHT["grey"], label="missed")
        axes.barh(at, -false, height=0.65, color=LIGHT["orange"], label="predicted, not labelled")
        axes.axvline(0, color=LIGHT["ink"], linewidth=0.8)
        axes.set_yticks(at, names)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
        axes.set_xlabel("share of frames")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    each = ", ".join(
        f"{name} {f:.0%} {m:.0%} {x:.0%}" for name, f, m, x in zip(names, found, missed, false, strict=True)
    )
    caption = "Frames found, missed, and predicted without a label: in which direction does each err?"
    return Plot("errors", caption, (Panel("", draw, each),), (WIDE, 0.9 + LINE * len(names)))


def precision_recall_plot(evaluation: Evaluation, pooled: measures.Pooled) -> Plot:
    """Precision and recall of each name of a multi-label task, with the threshold in use."""
    panels = []
    for k, name in enumerate(evaluation.model.task.names):
        on = pooled.scored[:, k]
        truth, called = pooled.targets[on, k] > 0.5, pooled.decided[on, k] > 0.5
        curve = measures.precision_recall(pooled.scores[on, k], truth, called)
        title = f"{name} {evaluation.scores.values[k]:.2f} (best {curve.best:.2f})"
        panels.append(Panel(title, partial(_draw_curve, curve=curve)))
    caption = (
        "Precision over recall; the dot is the threshold in use, 'best' the F1 of the best threshold on these frames"
    )
    fitted = evaluation.post is not None and bool(evaluation.post.threshold and evaluation.post.tuned_on)
    caption += ": a large difference is a threshold that does not carry over." if fitted else "."
    return Plot("precision-recall", caption, tuple(panels), SMALL)


def _draw_curve(axes: Axes, curve: measures.Curve) -> None:
    axes.plot(curve.recall, curve.precision, color=LIGHT["blue"])
    if curve.used:
        axes.plot(*curve.used, "o", color=LIGHT["orange"], markersize=4.5)
    _unit(axes, "recall", "precision")


def reliability_plot(evaluation: Evaluation, pooled: measures.Pooled) -> Plot:
    """How often what is predicted with some probability is so, for each name or class."""
    task, panels = evaluation.model.task, []
    truth = pooled.targets > 0.5
    if task.kind == "classes":
        truth = measures.one_hot(pooled.targets, len(task.names))
    scored = np.broadcast_to(pooled.scored, truth.shape)
    for k, name in enumerate(task.names):
        on = scored[:, k]
        found = measures.reliability(pooled.scores[on, k], truth[on, k])
        panels.append(Panel(f"{name}, error {found.error:.2f}", partial(_draw_reliability, found=found)))
    caption = "Reliability: is a probability of 0.8 right in 80 % of its frames? Bars: how often it is predicted."
    return Plot("reliability", caption, tuple(panels), SMALL)


def _draw_reliability(axes: Axes, found: measures.Reliability) -> None:
    axes.bar(found.predicted, found.weight, width=0.06, color=LIGHT["pale"])
    axes.plot([0, 1], [0, 1], color=LIGHT["grey"], linewidth=0.6)
    axes.plot(found.predicted, found.positive, "o-", color=LIGHT["blue"], markersize=2.5)
    _unit(axes, "predicted", "share positive")


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(0, 1.02), ylim=(0, 1.05), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), xlabel=x, ylabel=y)


def co_occurrence_plot(evaluation: Evaluation, pooled: measures.Pooled) -> Plot:
    """Which names are shown together, in labels and in predictions."""
    names = [name.removeprefix("AU") for name in evaluation.model.task.names]
    labels, predicted = (
        measures.co_occurrence(shown > 0.5, pooled.scored) for shown in (pooled.targets, pooled.decided)
    )
    tables = (
        ("labels", labels, False),
        ("predictions", predicted, False),
        ("predictions - labels", predicted - labels, True),
    )
    panels = tuple(
        Panel(title, partial(_draw_table, table=table, columns=names, signed=signed)) for title, table, signed in tables
    )
    side = 1.0 + 0.16 * len(names)
    caption = (
        "Co-occurrence: the share of the frames with the name of the row that also show that of the column. White is "
        "0, the darkest blue 1; of differences orange is -1, blue 1."
    )
    return Plot("co-occurrence", caption, panels, (side + 0.3, side))


def confusion_plot(evaluation: Evaluation, pooled: measures.Pooled) -> Plot:
    """The shares of each labelled class that are predicted as each class."""
    names = evaluation.model.task.names
    on = pooled.scored[:, 0]
    counts = class_confusion(pooled.targets[on, 0], pooled.decided[on, 0], len(names))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = np.where(counts.sum(axis=1, keepdims=True) > 0, shares, np.nan)
    rows = [f"{name} ({count:,})" for name, count in zip(names, counts.sum(axis=1), strict=True)]
    worst = ", ".join(f"{name} {shares[k, k]:.0%}" for k, name in enumerate(names))

    def draw(axes: Axes) -> None:
        _draw_table(axes, shown, names, rows, written=True)
        axes.set(xlabel="predicted", ylabel="labelled (frames)")

    side = 1.2 + 0.42 * len(names)
    caption = "Confusion: as what is each labelled class predicted? Shares of a row."
    return Plot("confusion", caption, (Panel("", draw, f"right: {worst}"),), (side + 0.6, side))


def _draw_table(
    axes: Axes,
    table: NDArray[Any],
    columns: Sequence[str],
    rows: Sequence[str] = (),
    signed: bool = False,
    written: bool = False,
) -> None:
    """Cells of a table of shares (K, K), or of differences of shares; NaN is left blank."""
    ends = [ORANGE, WHITE, BLUE] if signed else [WHITE, BLUE, NAVY]
    size = len(table)
    fill_cells(axes, (table + 1) / 2 if signed else table, np.arange(size + 1), np.arange(size + 1), ends)
    at = np.arange(size) + 0.5
    axes.set_xticks(at, columns, rotation=90 if max(map(len, columns)) > 2 else 0)
    axes.set_yticks(at, rows or columns)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    if written:
        for row, column in np.argwhere(np.isfinite(table)).tolist():
            value = table[row, column]
            colour = WHITE if value > 0.4 else "#000000"
            axes.text(column + 0.5, row + 0.5, f"{value:.0%}", ha="center", va="center", color=colour)


def fill_cells(
    axes: Axes, table: NDArray[Any], x_edges: NDArray[Any], y_edges: NDArray[Any], ends: Sequence[str]
) -> None:
    """Fill the cells of a table (rows of y, columns of x) of numbers from 0 to 1 by a scale of colours; NaN is blank.

    The cells of one colour are one path: a path each makes a page five times as large.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    colours = LinearSegmentedColormap.from_list("", list(ends), N=LEVELS)(np.arange(LEVELS))
    known = np.isfinite(table)
    level = np.where(known, np.clip(np.round(np.where(known, table, 0) * (LEVELS - 1)), 0, LEVELS - 1), -1).astype(int)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    for number in np.unique(level[level >= 0]).tolist():
        rows, columns = np.nonzero(level == number)
        x, y = x_edges[[columns, columns + 1]], y_edges[[rows, rows + 1]]  # (2, n) each
        corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])]
        path = Path(np.array(corners).transpose(2, 0, 1).reshape(-1, 2), codes * len(rows))
        axes.add_patch(PathPatch(path, facecolor=colours[number], edgecolor=colours[number], linewidth=0.2))
    axes.set(xlim=(x_edges[0], x_edges[-1]), ylim=(y_edges[0], y_edges[-1]))
