"""Where to look in a recording: stretches of rows in which something is lost, jumps, or is not as labelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aupipe.report.faces import RecordingFaces, State
from aupipe.report.panels import OF_SOUND, SOUND, Panel
from aupipe.train.events import runs

FAR = 0.5  # of a number from its label
LISTED = 200  # stretches on a page
PADDING_S = 0.1  # without sound, at the ends of many files: codecs need not fill it


@dataclass(frozen=True)
class Stretch:
    """Rows [first, stop), and what is to be seen there."""

    first: int
    stop: int
    what: str


def find_stretches(
    faces: RecordingFaces | None, panels: Sequence[Panel], times_s: NDArray[np.float64] | None = None
) -> list[Stretch]:
    """All stretches of a recording, by their first rows; with ``times_s`` (T,) also those without sound."""
    found: list[Stretch] = []
    if faces is not None:
        found += _named(faces.states == State.NOBODY, "nobody in the picture")
        found += _named(faces.states == State.OTHERS, "other faces only, not the subject's")
        found += [Stretch(int(row), int(row) + 1, "the subject jumps to another place") for row in faces.jumps]
    for panel in panels:
        if panel.name == SOUND and panel.group == OF_SOUND and panel.values is not None and times_s is not None:
            ends = np.append(times_s[1:], times_s[-1])  # how long the last row lasts is not known
            silent = _named(np.isnan(panel.values), "no sound")
            found += [one for one in silent if ends[one.stop - 1] - times_s[one.first] > PADDING_S]
        found += _disagreements(panel)
    return sorted(found, key=lambda one: (one.first, one.stop, one.what))


def longest(stretches: Sequence[Stretch], count: int = LISTED) -> list[Stretch]:
    """So many of them, the longest, by their first rows; jumps, which are short, are kept first."""
    if len(stretches) <= count:
        return list(stretches)
    by_length = sorted(stretches, key=lambda one: (not one.what.startswith("the subject jumps"), one.first - one.stop))
    return sorted(by_length[:count], key=lambda one: (one.first, one.stop, one.what))


def disagrees(panel: Panel) -> NDArray[np.bool_] | None:
    """(T,) where the decision of a panel is not its label; None where it has not both."""
    if panel.labels is not None and panel.decided is not None:
        return (panel.labels >= 0) & (panel.decided != (panel.labels == 1))
    if panel.target is not None and panel.values is not None:
        with np.errstate(invalid="ignore"):
            return np.abs(panel.values - panel.target) > FAR
    return None


def _disagreements(panel: Panel) -> Iterator[Stretch]:
    wrong = disagrees(panel)
    if wrong is None:
        return
    if panel.decided is None:
        yield from _named(wrong, f"{panel.name} far from its label")
        return
    active, inactive = (" active", "inactive") if panel.threshold is not None else ("", "another class")
    yield from _named(wrong & panel.decided, f"{panel.name} predicted, labelled {inactive}")
    yield from _named(wrong & ~panel.decided, f"{panel.name} labelled{active}, not predicted")


def _named(mask: NDArray[np.bool_], what: str) -> list[Stretch]:
    return [Stretch(int(first), int(stop), what) for first, stop in runs(mask, np.zeros(len(mask), int))]
