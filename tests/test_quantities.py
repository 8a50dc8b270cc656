"""Counts, sizes and durations in words."""

from __future__ import annotations

import re
from pathlib import Path

from aupipe.quantities import counted, describe_bytes, duration_of, first_of

# A number before a plural; what counts one of something would say "1 recordings".
UNCOUNTED = re.compile(r"\{(?:len|sum)\([^{}]*\)[^{}]*\} (recordings|items|findings|videos|files)\b")


def test_one_is_no_plural() -> None:
    assert [counted(number, "finding") for number in (0, 1, 1000)] == ["0 findings", "1 finding", "1,000 findings"]
    assert [describe_bytes(size) for size in (999, 12_345_678)] == ["999 B", "12.3 MB"]
    assert [duration_of(seconds) for seconds in (50, 240, 7800)] == ["50 s", "4 min", "2 h 10 min"]


def test_of_many_names_the_first_are_said_and_how_many_there_are_more() -> None:
    assert [first_of(["a", "b", "c"], most) for most in (2, 3)] == ["a, b and 1 more", "a, b, c"]
    assert first_of([str(number) for number in range(7)], separator="; ") == "0; 1; 2; 3; 4 and 2 more"


def test_messages_count_by_that_function() -> None:
    package = Path(__file__).parent.parent / "aupipe"
    lines = [line for path in package.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line.strip() for line in lines if UNCOUNTED.search(line)] == []
    assert UNCOUNTED.search('f"{len(found)} items"')
