"""The fenced blocks of README and docs, and a folder in which somebody types what a page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SEPARATORS = ("&&", "||", "|", "&", ";", ">")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, relative to the project, the number of its first line, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text, page = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2])
        for found in FENCE.finditer(text)
    ]


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all pages, of these languages."""
    return [block for path in PAGES for block in blocks_of(path) if block.language in languages]


def inline_code(path: Path) -> list[str]:
    """The code in the sentences and tables of a page; brackets, which mark what may be left out, are not part of it."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    spans = (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))
    return [span.translate(str.maketrans("", "", "[]\\")) for span in spans]


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after ``aupipe`` of each command in lines of a shell."""
    for line in text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word not in SEPARATORS:
                command.append(word)
                continue
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                del command[0]
            if command[:1] == ["aupipe"]:
                yield command[1:]
            command = []


def fault_of(words: list[str], command: click.Command) -> str:
    """What click says against a command, as typed; '' where nothing. Files need not be there."""
    words = list(words)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    try:
        command.make_context("aupipe", words)
    except click.exceptions.Exit:  # --help, --version
        return ""
    except click.BadParameter as error:
        return "" if "does not exist" in error.message else error.format_message()
    except click.ClickException as error:
        return error.format_message()
    return ""


@dataclass(frozen=True)
class Reader:
    """A folder in which somebody follows a page. ``aupipe`` is that of this Python, and nothing is fetched."""

    path: Path

    def __post_init__(self) -> None:
        (self.path / "bin").mkdir(parents=True, exist_ok=True)
        for name, code in (("aupipe", "-c 'from aupipe.cli import main; main()'"), ("python", "")):
            script = self.path / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {code} "$@"\n')
            script.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """That of somebody who has a clone and one thread."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own |= {"PATH": f"{self.path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": python_path}
        return own | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}

    def follow(self, blocks: list[Block], folder: Path) -> str:
        """Type the blocks one after another, each in the folder where the one before ended; returns what was printed.

        Fails with the block that ends with another exit code than 0.
        """
        place, printed = self.path / "place", []
        place.write_text(f"{folder}\n")
        for block in blocks:
            here = place.read_text().rstrip("\n")
            if block.language == "bash":
                text = f"set -e\n{block.text}\npwd > {shlex.quote(str(place))}\n"
                command = ["bash", "-c", text]
            else:
                command = [sys.executable, "-c", block.text]
            done = subprocess.run(
                command,
                cwd=here,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=590,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            printed.append(done.stdout + done.stderr)
            assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{printed[-1][-3000:]}"
        return "\n".join(printed)


def shape_of(line: str) -> str:
    """A line without its numbers, its spaces and its drawn lengths: what two runs of a command have in common."""
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d,.:]*", "0", line)).strip()
