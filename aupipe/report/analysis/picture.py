"""A page with a picture of one recording: what was found when, and what of it is a guess."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from aupipe.report.analysis.columns import in_words
from aupipe.report.analysis.table import FACES, Block, Layout, Table
from aupipe.report.analysis.tiers import Tiers
from aupipe.report.faces import length_s
from aupipe.report.figures import LIGHT, STYLE
from aupipe.report.panels import end_of, resample
from aupipe.store.keys import name_as_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from aupipe.train.occurrences import Occurrence

INCHES = (8.27, 11.69)  # A4, upright
DPI = 180
WRAP = 200  # characters of a line of the foot
CAVEAT = (
    "A guess may be wrong for people, light and cameras that its network was not trained on. "
    "Facial movements are not feelings."
)
LANES = 24  # tiers in a picture


def draw_picture(layout: Layout, table: Table, tiers: Tiers) -> bytes:
    """A PNG of one page: faces, sound, each further block, and the intervals, over the same seconds."""
    blocks = [block for block in layout.blocks if block.kind != "geometry" and block.columns]
    heights = [5.5 if len(block.columns) > 20 else 1.0 for block in blocks]
    lanes = _lanes(tiers.found)
    heights.append(0.25 + 0.16 * min(len(lanes), LANES))
    settings: Any = {**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white", "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name in letters that the font lacks
        figure = Figure(INCHES)
        grid = figure.add_gridspec(
            len(heights), 1, height_ratios=heights, left=0.15, right=0.92, top=0.93, bottom=0.2, hspace=0.35
        )
        figure.text(0.04, 0.972, _clip(table.recording, 90), fontsize=11, weight="bold")
        figure.text(0.04, 0.952, _facts(table), fontsize=8, color=LIGHT["muted"])
        span = float(table.times_s[0]), max(end_of(table.times_s), float(table.times_s[0]) + 0.04)
        for number, block in enumerate(blocks):
            axes = figure.add_subplot(grid[number])
            _draw_block(axes, block, table, span)
            axes.set_xlim(*span)
            axes.tick_params(labelbottom=False)
        axes = figure.add_subplot(grid[len(blocks)])
        _draw_tiers(axes, lanes, span)
        axes.set_xlabel("s")
        figure.text(0.04, 0.155, _foot(layout, table), fontsize=5.6, va="top", linespacing=1.35)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": "aupipe"})
    return content.getvalue()


def _draw_block(axes: Axes, block: Block, table: Table, span: tuple[float, float]) -> None:
    values, names = table.values[block.name], [column.name for column in block.columns]
    axes.set_title(block.name, loc="left")
    if block.name == FACES:
        axes.plot(
            table.times_s, values[:, 0], color=LIGHT["grey"], drawstyle="steps-post", label="faces in the picture"
        )
        axes.set_ylabel("faces", color=LIGHT["grey"])
        axes.set_ylim(0, max(2.0, float(np.nanmax(values[:, 0], initial=0.0)) + 0.5))
        if np.isnan(values[:, 3]).all():
            return
        beside = axes.twinx()
        beside.plot(table.times_s, values[:, 5] - values[:, 3], color=LIGHT["blue"])
        beside.set_ylabel("height, px", color=LIGHT["blue"])
        beside.set_xlim(*span)
        return
    if np.isnan(values).all():
        why = next((note for note in table.notes if note.startswith(f"{block.name}: ")), "no values")
        axes.set_yticks([])
        axes.text(
            0.5,
            0.5,
            _clip(why.removeprefix(f"{block.name}: "), 100),
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=7,
        )
        return
    if len(names) > 20:
        heat = resample(table.times_s, span[1], np.asarray(values, np.float32))
        axes.imshow(heat, aspect="auto", cmap="magma", vmin=0, extent=(*span, len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), names, fontsize=5)
        axes.tick_params(axis="y", length=0)
        return
    colours, lines = ("blue", "orange", "green", "grey"), ("-", "--", ":")
    for k, name in enumerate(names):
        line = lines[k // len(colours) % len(lines)]
        axes.plot(table.times_s, values[:, k], line, color=LIGHT[colours[k % len(colours)]], label=name)
    unit = block.columns[0].unit
    axes.set_ylabel(unit)
    if unit == "0 to 1":
        axes.set_ylim(-0.02, 1.02)
    if len(names) > 1:
        axes.legend(loc="upper left", ncols=min(len(names), 7), fontsize=5)


def _draw_tiers(axes: Axes, lanes: Mapping[str, Sequence[Occurrence]], span: tuple[float, float]) -> None:
    more = f", the first {LANES} of {len(lanes)}" if len(lanes) > LANES else ""
    axes.set_title(f"intervals{more}", loc="left")
    names = list(lanes)[:LANES]
    for lane, name in enumerate(names):
        bars = [(one.start_s, one.end_s - one.start_s) for one in lanes[name]]
        axes.broken_barh(bars, (lane - 0.4, 0.8), facecolors=LIGHT["blue"])
    axes.set_yticks(range(len(names)), [_clip(name, 26) for name in names], fontsize=5)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.set_xlim(*span)


def _lanes(tiers: Mapping[str, Sequence[Occurrence]]) -> dict[str, list[Occurrence]]:
    """A lane for each tier, and for each label of a tier that has several."""
    lanes: dict[str, list[Occurrence]] = {}
    for tier, own in tiers.items():
        several = len({one.label for one in own}) > 1
        for one in own:
            lanes.setdefault(f"{one.label}, {tier}" if several else tier, []).append(one)
    return lanes


def _facts(table: Table) -> str:
    seconds = length_s(table.times_s)
    rate = f", {len(table) / seconds:.4g} frames a second in the mean" if seconds else ""
    facts = f"{len(table):,} frames, {seconds:.2f} s{rate}"
    if FACES in table.values:
        found = table.values[FACES][:, 1] > 0
        facts += f"; the subject's face in {found.mean() if len(found) else 0.0:.1%} of them"
    return facts


def _foot(layout: Layout, table: Table) -> str:
    lines = [*(f"note: {note}" for note in table.notes), *in_words(layout.columns)]
    lines.append(CAVEAT)
    return "\n".join(part for line in lines for part in wrap(line, WRAP))


def _clip(text: str, length: int) -> str:
    text = name_as_text(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"
