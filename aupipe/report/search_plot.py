"""The plot of a search, as SVG: the scores of its points, and beside them the score that the winner is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

LABELS_PX, WIDTH_PX, ROW_PX, TOP_PX, BOTTOM_PX = 320, 480, 22, 34, 64
FONT = 'font-family="sans-serif" font-size="12"'


def draw_search(document: Mapping[str, Any]) -> str:
    """An SVG document of ``sweep.json``: a row per point, the best first.

    A dot is the score on what all folds held out, a small dot that without one of the folds. The line is the nested
    score of the winner, the band its 95% interval.
    """
    points = sorted(document["points"], key=lambda point: -(point["score"] or -math.inf))
    nested, interval = document["nested"]["scores"]["mean"], document["nested"]["interval"]
    band = interval["interval"] if interval else (nested, nested)
    inner = [[cell["score"] for cell in point["without"].values()] for point in points]
    known = [v for row in inner for v in row if v is not None] + [p["score"] for p in points if p["score"] is not None]
    low, high = _bounds([*known, nested, *band])
    height = TOP_PX + ROW_PX * len(points)

    def x(value: float) -> str:
        return f"{LABELS_PX + WIDTH_PX * (value - low) / (high - low):.1f}"

    parts = [
        f'<rect x="{x(band[0])}" y="{TOP_PX}" width="{float(x(band[1])) - float(x(band[0])):.1f}" '
        f'height="{height - TOP_PX}" fill="#dde7f3"/>',
        _line(x(nested), TOP_PX, height, "#1f5fa8", 2),
        f'<text x="{x(nested)}" y="{TOP_PX - 10}" text-anchor="middle" fill="#1f5fa8">nested {nested:.3f}</text>',
    ]
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(_line(x(value), height, height + 5, "#666", 1))
        parts.append(f'<text x="{x(value)}" y="{height + 20}" text-anchor="middle">{value:.3f}</text>')
    for number, (point, row) in enumerate(zip(points, inner, strict=True)):
        y = TOP_PX + ROW_PX * (number + 0.5)
        weight = ' font-weight="bold"' if point["name"] == document["winner"] else ""
        label = point["label"] if len(point["label"]) <= 48 else point["label"][:47] + "\u2026"
        parts.append(f'<text x="{LABELS_PX - 10}" y="{y + 4:.0f}" text-anchor="end"{weight}>{escape(label)}</text>')
        if point["score"] is None:
            parts.append(f'<text x="{LABELS_PX + 6}" y="{y + 4:.0f}" fill="#a33">failed</text>')
            continue
        parts += [f'<circle cx="{x(v)}" cy="{y:.0f}" r="2.5" fill="#aaa"/>' for v in row if v is not None]
        parts.append(f'<circle cx="{x(point["score"])}" cy="{y:.0f}" r="5" fill="#c8571b"/>')
    title = (
        f"{document['metric']}: dots on all folds (small: without one of them); the line is what the choice is worth"
    )
    parts.append(f'<text x="{LABELS_PX}" y="{height + 44}">{escape(title)}</text>')
    size = f'width="{LABELS_PX + WIDTH_PX + 60}" height="{height + BOTTOM_PX}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>\n<rect {size} fill="white"/>\n{body}\n</svg>\n'


def _line(x: str, top: float, bottom: float, colour: str, width: int) -> str:
    return f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{colour}" stroke-width="{width}"/>'


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """The axis: the values with a margin of a twentieth."""
    low, high = min(values), max(values)
    margin = (high - low) / 20 or 0.01
    return low - margin, high + margin
