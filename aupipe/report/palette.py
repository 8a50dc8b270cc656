"""The colours of pages and figures, in a light and a dark form. Curves keep apart for colour-blind readers.

The hues are those of Okabe and Ito, "Color universal design" (2008). On their paper, texts have a contrast of 4.5 or
more and curves of 3 or more (WCAG 2.2, 1.4.3 and 1.4.11).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Colour(NamedTuple):
    """A colour on light and on dark paper, ``#rrggbb``."""

    light: str
    dark: str


COLOURS: Mapping[str, Colour] = MappingProxyType(
    {
        "paper": Colour("#ffffff", "#15181d"),
        "panel": Colour("#f3f5f7", "#20252c"),
        "ink": Colour("#1a1d21", "#e8eaed"),
        "muted": Colour("#565d66", "#a6aeb8"),
        "rule": Colour("#d3d8de", "#3b424b"),
        "edge": Colour("#767e88", "#7d8691"),  # of what can be pressed
        "link": Colour("#00538b", "#7cc4f5"),
        "warning": Colour("#a3261b", "#ff9d8f"),
        "blue": Colour("#0072b2", "#56b4e9"),
        "pale": Colour("#8fc1df", "#2f6c95"),  # an area behind a blue curve
        "green": Colour("#008f68", "#2fbf94"),
        "orange": Colour("#d55e00", "#f5873d"),
        "grey": Colour("#7d8590", "#89929d"),
    }
)
TEXTS = ("ink", "muted", "link", "warning")
CURVES = ("blue", "green", "orange", "grey", "edge")


def variables() -> str:
    """The colours as variables of a style sheet: as the system prefers, unless the page says ``data-theme``."""
    light, dark = ("".join(f"--{name}:{colour[which]};" for name, colour in COLOURS.items()) for which in range(2))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        f"@media print{{:root:root{{color-scheme:light;{light}}}}}\n"
    )


def contrast(one: str, other: str) -> float:
    """The contrast of two colours ``#rrggbb``, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
