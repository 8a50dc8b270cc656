"""The plot of a search, as SVG: the scores of its points, and beside them the score that the winner is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

LABELS_PX, WIDTH_PX, ROW_PX, TOP_PX, BOTTOM_PX = 320, 480, 22, 34, 84
FONT = 'font-family="sans-serif" font-size="12"'


def draw_search(document: Mapping[str, Any]) -> str:
    """An SVG document of ``sweep.json``: a row per point, the best first.

    A large dot is the naive score, on what all folds held out, a small one that without one of the folds. The line is
    the nested score of the winner, the band its 95% interval.
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
    for value, text in _ticks(low, high):
        parts.append(_line(x(value), height, height + 5, "#666", 1))
        parts.append(f'<text x="{x(value)}" y="{height + 20}" text-anchor="middle">{text}</text>')
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
    parts.append(f'<text x="{LABELS_PX}" y="{height + 44}">{escape(document["metric"])}</text>')
    parts += _legend(height + 68, with_band=bool(interval))
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


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round values from ``low`` to ``high``, three to eight of them, and how they are written."""
    power = math.floor(math.log10((high - low) / 3))
    step, digits = next(
        (factor * 10.0**power, max(0, -power)) for factor in (5, 2, 1) if (high - low) / (factor * 10.0**power) >= 3
    )
    return [(k * step, f"{k * step:.{digits}f}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _legend(y: float, with_band: bool) -> list[str]:
    """What each mark is, on one line."""
    marks = [
        (10, '<circle cx="{x}" cy="{y}" r="5" fill="#c8571b"/>', "naive: do not report"),
        (180, '<circle cx="{x}" cy="{y}" r="2.5" fill="#aaa"/>', "without one of the folds"),
        (370, '<rect x="{x}" y="{y}" width="9" height="2" fill="#1f5fa8"/>', "nested: what the choice is worth"),
        (
            610,
            '<rect x="{x}" y="{y}" width="9" height="9" transform="translate(0 -5)" fill="#dde7f3"/>',
            "95% interval of it",
        ),
    ]
    return [
        f'{mark.format(x=x, y=y - 4)}<text x="{x + 14}" y="{y}">{text}</text>'
        for x, mark, text in marks[: None if with_band else -1]
    ]
