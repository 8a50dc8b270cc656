"""The tables of docs/papers.md, from the files of the papers. `python -m tests.train.papers_page` writes them anew."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from aupipe.train.reproduction import load_reproduction, reproduction_names

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"


def tables_of(name: str) -> str:
    """The rows of a paper, a table for each of its tables: the figure, and the command or why there is none."""
    paper = load_reproduction(name)
    found = []
    for title, rows in groupby(paper.rows, key=lambda row: (row.table, row.task)):
        found += ["", f"Table {title[0]} ({title[1]}):", "", "| row | paper | here |", "|---|---|---|"]
        for row in rows:
            here = f"not: {row.why}" if row.why else f"`aupipe reproduce {name} --rows {row.id}`"
            here += f"; {row.note}" if row.note else ""
            found.append(f"| {row.row} | {'' if row.paper is None else f'{row.paper:g}'} | {here} |")
    return "\n".join([*found, ""])


def with_tables(page: str) -> str:
    """The page with the tables of today between its marks."""
    for name in reproduction_names():
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        block = f"{marks[0]}\n{tables_of(name)}\n{marks[1]}"
        page = re.sub(f"{marks[0]}.*?{marks[1]}", lambda _, block=block: block, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
