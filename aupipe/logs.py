"""Log lines that stay lines: what a file's name holds neither breaks them nor steers the terminal."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any


def printable(text: str) -> str:
    """Text on one line: whatever in a file's name would break the line or steer the terminal is escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def traceback_lines(error: BaseException) -> list[str]:
    """A traceback line by line, what the errors in it say on one line each."""
    lines = []
    for part in traceback.format_exception(error):
        if part.startswith(("  ", "Traceback", "\n")):  # places in code, and how one error led to another
            lines += part.strip("\n").split("\n")
        else:
            lines.append(part.strip("\n"))
    return [line if line.isprintable() else printable(line) for line in lines]


class LineFormatter(logging.Formatter):
    """``LEVEL message`` on one line, however the message came to be; a traceback follows line by line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record).rstrip("\n"))

    def formatException(self, ei: Any) -> str:
        return "\n".join(traceback_lines(ei[1]))


def log_to_stderr(level: int) -> None:
    """Log lines from ``level`` up go to stderr, as this process writes them and its worker processes do."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
