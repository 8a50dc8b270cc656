"""No block of README, docs or `--help` is out of date: commands, options, settings and Python names are there.

What the commands do is shown by tests that run them: `test_followed_pages.py` here, and the tests that name their page.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aupipe.cli import cli
from aupipe.config import load_config
from tests.docs.blocks import PAGES, ROOT, Block, all_blocks, blocks_of, commands_in, fault_of, inline_code

LANGUAGES = {"bash", "sh", "python", "toml", "text", "yaml"}  # yaml: read by tests/cli/test_cluster_page.py
OTHERS = {"project", "build-system"}  # tables of a pyproject.toml
CONFIGURED = {"dataset", "store", "weights", "faces", "detector", "encoder", "train", "task"}
OF_A_RECIPE = {"head", "loss", "aux_tasks", "optimiser", "postprocess", "task", "extends", "member", "paper"}


def test_no_command_is_in_a_block_that_is_not_read() -> None:
    found = {block for path in PAGES for block in blocks_of(path)}
    assert len(found) > 60
    others = {block for block in found if block.language not in LANGUAGES and block.language[:1] != "{"}
    assert {
        str(block) for block in others if block.language or re.search("^aupipe ", block.text, re.MULTILINE)
    } == set()


def helps(command: click.Command) -> Iterator[str]:
    yield command.help or ""
    for below in getattr(command, "commands", {}).values():
        yield from helps(below)


def test_every_command_and_option_in_the_docs_and_in_help_is_one_that_is_there() -> None:
    texts = {str(block): block.text for block in all_blocks("bash", "sh")}
    examples = "\n".join(
        line.strip() for text in helps(cli) for line in text.splitlines() if "  aupipe " in f"  {line}"
    )
    texts["--help"] = "\n".join(line.split("   ")[0] for line in examples.splitlines() if line.startswith("aupipe "))
    found = [(place, words) for place, text in texts.items() for words in commands_in(text)]
    assert len(found) > 100
    assert [f"{place}: {fault}" for place, words in found if (fault := fault_of(words, cli))] == []


NAMED_ALONE = ("Missing argument", "Missing option", "requires an argument")  # a command in a sentence


def test_every_command_that_a_sentence_of_the_docs_names_is_one_that_is_there() -> None:
    found = [(path.name, words) for path in PAGES for text in inline_code(path) for words in commands_in(text)]
    assert len(found) > 200
    faults = [(name, words, fault_of(words, cli)) for name, words in found if words and "COMMAND" not in words]
    assert [one for one in faults if one[2] and not any(part in one[2] for part in NAMED_ALONE)] == []


def test_a_command_that_is_not_there_is_found() -> None:
    assert fault_of(["extractt"], cli)
    assert fault_of(["extract", "--gpuu", "0"], cli)
    assert fault_of(["report", "run"], cli)
    assert fault_of(["predict", "runs/a", "--sample", "absent.txt"], cli) == ""
    assert list(commands_in("A=1 aupipe init && aupipe extract \\\n --cpu # aupipe no")) == [
        ["init"],
        ["extract", "--cpu"],
    ]


@pytest.mark.parametrize("block", all_blocks("toml"), ids=str)
def test_every_setting_in_the_docs_is_one_that_is_there(block: Block, tmp_path: Path) -> None:
    content = tomllib.loads(block.text)
    if set(content) & OTHERS:
        return
    if set(content) <= CONFIGURED:
        (tmp_path / "aupipe.toml").write_text(block.text)
        load_config(tmp_path / "aupipe.toml", environment={})
    else:  # of a recipe
        assert set(content) <= OF_A_RECIPE


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def names_in(file: Path) -> set[str]:
    """The names that a module defines or imports, and those of the modules beside an ``__init__.py``."""
    found = {path.stem for path in file.parent.glob("*")} if file.name == "__init__.py" else set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and file.name == "__init__.py":
            found.add(node.value)  # of __all__: names that are imported when they are asked for
    return found


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_every_name_that_the_docs_import_is_there(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aupipe":
            file = module_file(str(node.module))
            assert file is not None, f"{block}: no module {node.module}"
            missing = {alias.name for alias in node.names} - names_in(file)
            assert missing == set(), f"{block}: not in {node.module}"
