"""Log messages and tracebacks on single lines, with control characters escaped."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def printable(text: str) -> str:
    """Text with escaped control characters, so that a file name cannot break the line or control the terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def traceback_lines(error: BaseException) -> list[str]:
    """The lines of a traceback; the message of each error is one line."""
    lines = []
    for part in traceback.format_exception(error):
        if part.startswith(("  ", "Traceback", "\n")):  # positions in code, and "During handling of ..."
            lines += part.strip("\n").split("\n")
        else:
            lines.append(part.strip("\n"))
    return [line if line.isprintable() else printable(line) for line in lines]


class LineFormatter(logging.Formatter):
    """Formats ``LEVEL message`` on one line, followed by the lines of a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record).rstrip("\n"))

    def formatException(self, ei: Any) -> str:
        return "\n".join(traceback_lines(ei[1]))


class Once(logging.Filter):
    """Lets each message through once, of runs that have the same data and so the same warnings."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[int, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.levelno, record.getMessage()
        is_new = said not in self._seen
        self._seen.add(said)
        return is_new


@contextmanager
def repeating_nothing() -> Iterator[None]:
    """Inside, a message that was logged is not written again."""
    once, handlers = Once(), list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(once)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(once)


def log_to_stderr(level: int) -> None:
    """Write log messages of ``level`` and above to stderr. Worker processes call it too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
