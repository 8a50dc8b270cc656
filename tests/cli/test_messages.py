"""Every command that a message names exists, with the options that it is named with."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

import aupipe
from aupipe.cli import cli

PACKAGE = Path(aupipe.__file__).parent


def texts(source: str) -> list[str]:
    """The strings of a module, docstrings too; what an f-string fills in is left out."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            found.append(node.value)
    return found


def named_commands(text: str) -> list[str]:
    """What stands between backquotes after ``aupipe``, and commands with options after a colon."""
    return re.findall(r"`aupipe ([^`]+)`", text) + re.findall(r": aupipe ([a-z][^;()\n]*--[^;()\n]*)", text)


def fault(command: str) -> str:
    """Why a command does not exist, or an empty string."""
    found: click.Command = cli
    for word in command.replace(",", " ").split():
        if isinstance(found, click.Group):
            if word.startswith("-"):
                continue
            if word not in found.commands:
                return f"no command {word!r} in `aupipe {command}`"
            found = found.commands[word]
        elif word.startswith("--"):
            options = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
            if word.partition("=")[0] not in options:
                return f"no option {word!r} in `aupipe {command}`"
    return ""


def test_every_command_that_a_message_names_exists() -> None:
    named = {
        (path.relative_to(PACKAGE).as_posix(), command)
        for path in PACKAGE.rglob("*.py")
        for text in texts(path.read_text(encoding="utf-8"))
        for command in named_commands(text)
    }
    assert len(named) > 30
    assert [f"{path}: {why}" for path, command in sorted(named) if (why := fault(command))] == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("f'{x}: run `aupipe verify`'", True),
        ("'run `aupipe store verify --repair`'", False),
        ("f'`aupipe extract --features {name}`'", True),
        ("f'`aupipe extract{option(x)}` computes it'", False),
        ("print(f'to continue: aupipe train --again {out}')", True),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(source: str, wrong: bool) -> None:
    commands = [command for text in texts(source) for command in named_commands(text)]
    assert len(commands) == 1
    assert bool(fault(commands[0])) == wrong
