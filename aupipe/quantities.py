"""Numbers in words for people: counts with their noun, sizes, durations."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: float, noun: str) -> str:
    """A number of things: "1 recording", "1,000 recordings". ``noun`` is the singular, of words that take an s."""
    return f"{number:,.0f} {noun}{'s' * (number != 1)}"


def first_of(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """The first ``most`` names, and how many there are more: "a, b and 3 more"."""
    return separator.join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def describe_bytes(size: int) -> str:
    """A size: ``12.3 MB``."""
    scale = max(0, min(4, (len(str(size)) - 1) // 3))
    return f"{size / 1000**scale:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[scale]}" if scale else f"{size} B"


def duration_of(seconds: float) -> str:
    """A time: ``50 s``, ``4 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
