"""Several models side by side, scored on the same recordings, with the intervals of their differences to the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aupipe.report.figures import LIGHT, Panel, Plot
from aupipe.report.run.plots import LINE, WIDE
from aupipe.train.evaluation import Evaluation
from aupipe.train.intervals import FEW_GROUPS, compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CYCLE = ("blue", "orange", "green", "grey", "ink")
MARKS = "osD^v"


@dataclass(frozen=True)
class Difference:
    """A model's score minus that of the first; ``bounds``: of 95 %, None where both are not of the same videos.

    ``groups``: how many videos the bounds are from. ``warned``: a caveat stands beside one of the scores.
    """

    value: float
    bounds: tuple[float, float] | None
    groups: int = 0
    warned: bool = False

    @property
    def words(self) -> str:
        """What can be said of it."""
        if self.bounds is None:
            return "not compared: other videos, or no intervals"
        said = "no difference shown" if self.bounds[0] <= 0 <= self.bounds[1] else "different"
        few = f", from {self.groups} videos only" if self.groups < FEW_GROUPS else ""
        return f"{said}{few}{'; see the warnings' * self.warned}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"difference": self.value, "interval": self.bounds, "conclusion": self.words}


def differences(evaluations: Sequence[Evaluation]) -> list[Difference]:
    """Of each model but the first (docs/training.md, "Intervals"): bootstrapped on the same drawn videos."""
    first, *rest = evaluations
    found = []
    for one in rest:
        own, other = one.interval, first.interval
        comparable = own is not None and other is not None and own.sums.groups == other.sums.groups
        bounds = compare(own, other) if comparable and own is not None and other is not None else None
        warned = any(each.scores.caveats or each.scores.tuned_on_itself for each in (one, first))
        groups = own.groups if own is not None and bounds is not None else 0
        found.append(Difference(one.scores.mean - first.scores.mean, bounds, groups, warned))
    return found


def comparison_plot(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Plot:
    """The scores of all names by all models, and the means, with intervals."""
    first = evaluations[0].scores
    titles = [*first.names, "mean"]
    step = 0.8 / len(evaluations)

    def draw(axes: Axes) -> None:
        for number, (one, name) in enumerate(zip(evaluations, names, strict=True)):
            at = np.arange(len(titles)) + (number - (len(evaluations) - 1) / 2) * step
            values = [*one.scores.values, one.scores.mean]
            colour, mark = LIGHT[CYCLE[number % len(CYCLE)]], MARKS[number % len(MARKS)]
            if one.interval is not None:
                low, high = np.array([*one.interval.each, one.interval.bounds]).T
                axes.hlines(at, low, high, color=colour, linewidth=1)
            axes.plot(values, at, mark, color=colour, markersize=3.5, label=name)
        axes.set_yticks(np.arange(len(titles)), titles)
        axes.axhline(len(titles) - 1.5, color=LIGHT["rule"], linewidth=0.8)
        axes.invert_yaxis()
        axes.set_xlabel(first.metric)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.2)

    height = 0.7 + 0.17 * len(evaluations) + max(LINE, 0.12 * len(evaluations)) * len(titles)
    caption = f"{first.metric} of each by each model, with 95% intervals by video."
    return Plot("comparison", caption, (Panel("", draw),), (WIDE, height))
