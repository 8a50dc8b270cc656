"""Texts as they may stand on a page that is passed on: names of files, without the folders that they lie in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

ABSOLUTE = re.compile(r"(?<![\w.~/])(?:~|[A-Za-z]:)?/(?:[^\s/:;,'\"]+/)+")


def without_folders(folders: Iterable[Path | None]) -> Callable[[str], str]:
    """A function that takes the beginning of every absolute path out of a text.

    ``folders``: those that are known, whose names may have spaces; each with its parents.
    """
    known: set[str] = set()
    for folder in (*folders, Path.home(), Path.cwd()):
        if folder is None:
            continue
        for path in (folder.absolute(), folder.resolve()):
            known |= {f"{each}/" for each in (path, *path.parents) if each != each.parent}
    longest_first = sorted(known, key=lambda beginning: (-len(beginning), beginning))
    beginnings = re.compile(r"(?<![\w.])(?:" + "|".join(map(re.escape, longest_first)) + ")")

    def clean(text: str) -> str:
        return ABSOLUTE.sub("", beginnings.sub("", text))

    return clean
