"""Strips of a corpus: how a measurement is distributed over its recordings, as SVG that needs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from aupipe.quantities import counted
from aupipe.report.checks.facts import Facts
from aupipe.report.checks.judge import CHECKS, Finding

WIDTH, BIN, LEVELS = 460, 5, 8  # pixels, pixels of a dot, dots on top of each other
TOP, FOOT, EDGE = 12, 18, 10
HEIGHT = TOP + LEVELS * BIN + FOOT
MARKED = 40  # flagged recordings that have a dot of their own
FORMS = {check.name: (check.fault, check.form) for check in CHECKS if check.form}
FORMS |= {
    "fps": ("frames per second", "{:.3g}"),
    "face_px": ("face height, px", "{:.0f}"),
    "score": ("face score", "{:.2f}"),
    "surplus_labels": ("rows of labels beyond frames", "{:+.0f}"),
}
BY_TASK = {
    "lag": ("labels late, frames", "{:+.0f}"),
    "fit": ("labels against the face, correlation", "{:.2f}"),
    "sibling_fit": ("labels against the sibling's face", "{:+.2f}"),
}


@dataclass(frozen=True)
class Strip:
    """``drawing``: SVG. ``about``: what a reader who does not see it is told."""

    title: str
    about: str
    drawing: str


def draw_strips(
    corpus: Sequence[Facts], medians: Mapping[str, float], findings: Sequence[Finding], pages: Mapping[str, str]
) -> tuple[list[Strip], list[str]]:
    """A strip for each measurement that differs between recordings, and in words those that do not.

    ``pages``: recording -> address of its page.
    """
    found, equal = [], []
    for name in medians:
        title, form = form_of(name)
        if not form:
            continue
        own = {facts.recording: facts.values[name] for facts in corpus if name in facts.values}
        values = np.array(list(own.values()))
        if np.ptp(values) == 0:
            equal.append(f"{title}: {form.format(values[0])} in all {len(values):,}")
            continue
        flagged = {one.recording: one.value for one in findings if one.check == name}
        middle = medians[name]
        about = f"{counted(len(values), 'recording')} from {form.format(values.min())} to {form.format(values.max())}"
        about += f", median {form.format(middle)}, {len(flagged):,} flagged"
        found.append(Strip(title, about, _draw(values, middle, form, flagged, pages)))
    return found, equal


def form_of(name: str) -> tuple[str, str]:
    """The title of a measurement and the form of its values; both empty for what is only or is not."""
    kind, _, task = name.partition(":")
    if task and kind in BY_TASK:
        title, form = BY_TASK[kind]
        return f"{task} {title}", form
    return FORMS.get(name, ("", ""))


def _draw(
    values: NDArray[np.float64],
    middle: float,
    form: str,
    flagged: Mapping[str, float],
    pages: Mapping[str, str],
) -> str:
    low, high = float(values.min()), float(values.max())

    def place(value: float) -> float:
        return EDGE + (value - low) / (high - low) * (WIDTH - 2 * EDGE)

    bins = np.floor((np.array([place(value) for value in values])) / BIN).astype(int)
    counts = np.bincount(bins)
    most = max(int(counts.max()), LEVELS)
    floor = HEIGHT - FOOT
    dots = "".join(
        f"M{number * BIN + BIN / 2:g} {floor - BIN / 2 - BIN * level:g}h0"
        for number, count in enumerate(counts)
        if count
        for level in range(max(1, round(int(count) / most * LEVELS)))
    )
    x = place(middle)
    side, shift = ("end", -4) if x > WIDTH / 2 else ("start", 4)
    parts = [
        f'<path class="dots" d="{dots}"/>',
        f'<path class="axis" d="M0 {floor}h{WIDTH}"/>',
        f'<path class="median" d="M{x:.1f} {TOP - 6}V{floor}"/>',
        f'<text x="{x + shift:.1f}" y="{TOP}" text-anchor="{side}">median {escape(form.format(middle))}</text>',
        f'<text x="0" y="{HEIGHT - 4}">{escape(form.format(low))}</text>',
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{escape(form.format(high))}</text>',
    ]
    for name, value in sorted(flagged.items(), key=lambda pair: (-abs(pair[1] - middle), pair[0]))[:MARKED]:
        title = f"<title>{escape(name)}: {escape(form.format(value))}</title>"
        dot = f'<circle class="flagged" cx="{place(value):.1f}" cy="{floor - 4}" r="4.5">{title}</circle>'
        parts.append(f'<a href="{escape(pages[name])}">{dot}</a>' if name in pages else dot)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'
