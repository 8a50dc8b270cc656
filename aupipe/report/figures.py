"""Figures drawn by matplotlib: inline SVG in the colours of the page, and files for a paper.

A figure is a row of panels, each drawn by a function on axes, so that a page lays them out by its width and a file has
them in a grid. The same input gives the same bytes: no dates, and ids that are hashes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from aupipe.report.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIGHT = {name: colour.light for name, colour in COLOURS.items()}  # what is drawn with; pages replace them by variables
VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "aupipe",
    "svg.fonttype": "none",  # texts stay texts
    "pdf.fonttype": 42,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.titlecolor": LIGHT["ink"],
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "path.simplify": True,
}
PX_PER_INCH = 96
GRID_COLUMNS = 4
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Panel:
    """One pair of axes: ``draw`` draws on it. ``title`` may be ''; ``says``: what it shows, in words."""

    title: str
    draw: Callable[[Axes], None]
    says: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure of panels of one size, ``inches`` (width, height); ``caption``: the question that it answers."""

    name: str  # of its file
    caption: str
    panels: tuple[Panel, ...]
    inches: tuple[float, float]


def to_svgs(plot: Plot) -> list[str]:
    """Each panel as an SVG element for a page, in the variables of `aupipe.report.palette`, without styles or ids that
    another one has."""
    return [
        _for_page(_svg(_drawn(replace(plot, panels=(panel,)))), panel, plot, number)
        for number, panel in enumerate(plot.panels)
    ]


def to_file(plot: Plot, form: str) -> bytes:
    """The whole figure as ``svg`` or ``pdf``, on white."""
    figure = _drawn(plot)
    if form == "svg":
        return _svg(figure)
    content = io.BytesIO()
    with _style():
        figure.savefig(content, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return content.getvalue()


def _drawn(plot: Plot) -> Figure:
    columns = min(GRID_COLUMNS, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    with _style():
        figure = Figure((plot.inches[0] * columns, plot.inches[1] * rows), layout="constrained")
        for number, panel in enumerate(plot.panels):
            axes = figure.add_subplot(rows, columns, number + 1)
            if panel.title:
                axes.set_title(panel.title)
            panel.draw(axes)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    settings: Any = dict(STYLE)
    with matplotlib.rc_context(settings):
        yield


def _svg(figure: Figure) -> bytes:
    content = io.BytesIO()
    with _style():
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _for_page(svg: bytes, panel: Panel, plot: Plot, number: int) -> str:
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag not in _KEPT:
                parent.remove(child)
    used = set(re.findall(rb'(?:url\(#|href="#)([\w-]+)', svg))
    prefix = f"{plot.name}-{number}-"
    for element in root.iter():
        element.text = (element.text or "").strip() or None
        element.tail = None
        element.tag = element.tag.removeprefix(SVG)
        own = element.attrib
        if own.get("id", "").encode() not in used:
            own.pop("id", None)
        else:
            own["id"] = prefix + own["id"]
        if LINK in own:
            own["href"] = own.pop(LINK).replace("#", f"#{prefix}", 1)
        if "clip-path" in own:
            own["clip-path"] = own["clip-path"].replace("#", f"#{prefix}", 1)
        own.update(_attributes(own.pop("style", "")))
        for name, value in own.items():
            own[name] = VARIABLES.get(value, value) if name in ("fill", "stroke") else _rounded(value)
    width, height = (round(side * PX_PER_INCH) for side in plot.inches)
    label = ". ".join(filter(None, (panel.title or plot.caption.rstrip("."), panel.says)))
    root.attrib.update({"width": str(width), "height": str(height), "role": "img", "aria-label": label})
    root.attrib.pop("version", None)
    return ElementTree.tostring(root, encoding="unicode")


def _rounded(value: str) -> str:
    """Coordinates to a hundredth of a point."""
    return " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())


_KEPT = {SVG + name for name in ("defs", "g", "path", "use", "text", "tspan", "clipPath", "rect", "image")}


def _attributes(style: str) -> dict[str, str]:
    """The declarations of a ``style`` as presentation attributes, which a page's policy allows. (SVG 1.1, chapter 6)"""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":  # [style weight] size family
            size = re.search(r"([\d.]+)px", value)
            found |= {"font-size": size[1] if size else "8"}
            if "bold" in value or re.search(r"\b[67]00\b", value):
                found["font-weight"] = "bold"
        elif name and name != "font-family":  # the font is the page's
            found[name] = value.removesuffix("px")
    return found
