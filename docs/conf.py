"""The documentation site: `make docs` builds it into build/site, with warnings as errors.

Pages are Markdown. What is said of the Python names comes from their docstrings, and what is said of the commands from
their ``--help``: neither is written down a second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
from sphinx.application import Sphinx

from aupipe import __version__
from aupipe.cli import cli

project = "aupipe"
author = "the authors of aupipe"
copyright = "the authors of aupipe"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
smartquotes = False  # they make one dash of the two hyphens of an option

default_role = "py:obj"  # a name in single backticks leads to its docstring where that is on a page
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# A class that `aupipe` gives a short name to is described where it is defined too; either is the right target.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"aupipe {__version__}"
html_copy_source = False
html_show_sphinx = False
html_use_index = html_domain_indices = False  # every name is found by the search, and on the page of its package
html_static_path = ["style"]
html_css_files = ["site.css"]
highlight_language = "text"

COMMANDS = "reference/commands"  # the page that ends with the help of every command
WIDTH = 88  # of a listing, in characters


def help_of(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """A command and those below it: its name as typed, and what its ``--help`` prints."""
    context = click.Context(command, parent, name, **command.context_settings | {"terminal_width": WIDTH})
    yield context.command_path, command.get_help(context)
    for below, one in getattr(command, "commands", {}).items():
        yield from help_of(one, below, context)


def add_commands(app: Sphinx, page: str, source: list[str]) -> None:
    """Append a section for each command to the page of commands."""
    if page == COMMANDS:
        source[0] += "".join(f"\n## {path}\n\n```text\n{text}\n```\n" for path, text in help_of(cli, "aupipe"))


def read_plainly(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with names in backticks: bars and stars are no markup, indented lines are code."""
    for number, line in enumerate(lines):
        after = lines[number + 1 : number + 3]
        if line.endswith(":") and not line.endswith("::") and len(after) == 2 and not after[0] and after[1][:1] == " ":
            line += ":"
        if not line.startswith(" "):
            parts = re.split(r"(``.+?``|`[^`]+`)", line)
            parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
            line = "".join(parts)
        lines[number] = line


def write_signature(app: Sphinx, what: str, name: str, of: object, options: object, given: str, returns: Any) -> Any:
    """Signatures as they are written: types without their modules, and a protocol is not called."""
    if given is None:
        return None
    if given == "(*args, **kwargs)" and what == "class":
        return "", returns
    given, returns = (part and re.sub(r"~(?:\w+\.)+", "", part) for part in (given, returns))
    return given.replace("<factory>", "..."), returns


def is_without_words(app: Sphinx, what: str, name: str, of: object, skip: bool, options: object) -> bool | None:
    """Leave out the fields of named tuples, of which Python itself says which number they have."""
    return True if str(getattr(of, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_commands)
    app.connect("autodoc-process-docstring", read_plainly)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-skip-member", is_without_words)
