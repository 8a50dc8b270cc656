"""Lines at the end of a terminal's output that are drawn again and again in the same place, never wider than it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from aupipe.cli.output import control
from aupipe.logs import printable

CLEAR = "\r\x1b[J"  # from here to the end of the screen


def is_terminal(err: bool) -> bool:
    """Whether stdout, or stderr, is a terminal."""
    return (sys.stderr if err else sys.stdout).isatty()


def bar_line(share: float, about: str, columns: int) -> str:
    """``about`` behind a bar and the share in percent, as wide as that leaves."""
    from tqdm import tqdm

    text = about.replace("{", "{{").replace("}", "}}")
    form = "{percentage:3.0f}% |{bar}| " + text
    return str(tqdm.format_meter(100 * share, 100, 0, ncols=columns, ascii=" -#", bar_format=form))


def cut(text: str, columns: int) -> str:
    """A text without control characters, cut to the columns that it takes on a terminal."""
    from tqdm.utils import disp_len, disp_trim

    text = printable(text)
    return text if disp_len(text) <= columns else f"{disp_trim(text, max(0, columns - 3))}..."


class LiveLines:
    """Lines that stand below everything else on a terminal.

    Between two drawings the cursor stands on an empty line above them: what others print comes there, and stays.
    """

    def __init__(self, err: bool) -> None:
        self.err = err
        self._stream = sys.stderr if err else sys.stdout

    def size(self) -> tuple[int, int]:
        """Columns that may be used, and rows."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, rows = 80, 24
        return max(1, (columns or 80) - 1), rows or 24  # a terminal may wrap behind its last column

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the lines; those for which the terminal has no rows are left out."""
        columns, rows = self.size()
        shown = [cut(line, columns) for line in lines[: max(0, rows - 2)]]
        back = f"\x1b[{len(shown)}A\r" if shown else ""
        control(CLEAR + "".join(f"\n{line}" for line in shown) + back, self.err)

    def print(self, text: str) -> None:
        """Print a line that stays, above the others, which are cleared until the next drawing."""
        control(f"{CLEAR}{printable(text)}\n", self.err)

    def clear(self) -> None:
        """Remove the lines."""
        control(CLEAR, self.err)
