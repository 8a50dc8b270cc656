"""What commands print with ``--json`` is what docs/reference/json.md says: objects, with these keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from aupipe.cli import cli
from tests.cli.test_train import SMALL, Folder, fill
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "reference" / "json.md"
ROW = re.compile(r"^\| `(aupipe [^`]+)`[^|]* \| `(\w+)`([^|]*) \| ([^|]*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Shape:
    """The keys of an object besides its ``message_type``: those it always has, and those it may have."""

    always: frozenset[str]
    sometimes: frozenset[str]
    open: bool  # further keys have the names of settings, states or the like


def read_page() -> dict[str, dict[str, Shape]]:
    """Command -> ``message_type`` -> the keys that the page names."""
    found: dict[str, dict[str, Shape]] = {}
    for command, kind, _, keys in ROW.findall(PAGE.read_text(encoding="utf-8")):
        always, _, sometimes = keys.partition("sometimes")
        names = [frozenset(re.findall(r"`([\w.]+)`", part)) for part in (always, sometimes)]
        shapes = found.setdefault(command.removeprefix("aupipe ").removesuffix(" --json"), {})
        shapes[kind] = Shape(*names, "..." in keys)
    return found


SHAPES = read_page()


def check_shapes(command: str, printed: str) -> list[dict[str, object]]:
    """The objects that a command printed; fails where one is not as the page says, or the last is no summary."""
    try:
        rows = [json.loads(printed)]
    except ValueError:
        rows = [json.loads(line) for line in printed.splitlines()]
    known = SHAPES[command]
    for row in rows:
        shape, keys = known[row["message_type"]], set(row) - {"message_type"}
        assert keys >= shape.always, f"{command}: {row['message_type']} lacks {shape.always - keys}"
        others = keys - shape.always - shape.sometimes
        assert shape.open or not others, f"{command}: {row['message_type']} has {others}, which the page lacks"
    kinds = [row["message_type"] for row in rows]
    assert "item" not in kinds[kinds.count("item") :], f"{command}: an item after the summary"
    assert kinds[-1] != "item", f"{command}: no summary"
    return rows


def commands(command: click.Command = cli, words: tuple[str, ...] = ()) -> Iterator[str]:
    """The commands that have ``--json``."""
    if any("--json" in one.opts for one in command.params):
        yield " ".join(words)
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("json")
    fill(root)
    return Folder(root)


def test_the_page_names_every_command_with_json_and_no_other() -> None:
    assert {name.partition(" --")[0] for name in SHAPES} == set(commands())


# Others are checked where something is trained, decoded or fetched anyway: the tests that import `check_shapes`.
ASKED = [
    ("train", "--recipe", "baseline", "--feature", "hog", *SMALL, "--out", "one"),
    ("train", "--recipe", "baseline", "--feature", "hog", *SMALL, "--folds", "2", "--out", "two"),
    ("evaluate", "one", "--cpu"),
    ("evaluate", "one", "two", "--cpu", "--on-tuned"),
    ("tune", "one", "--cpu"),
    ("runs", "."),
    ("inspect",),
    ("inspect", "v0"),
    ("status",),
    ("check",),
    ("extract --dry-run",),
    ("store ls", "--orphans"),
    ("store info",),
    ("store verify",),
    ("store rm", "hog", "--force", "--dry-run"),
    ("store gc", "--dry-run"),
    ("recipes",),
    ("recipes show", "tcn"),
    ("config show",),
    ("plugins",),
    ("weights list",),
    ("weights verify",),
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: " ".join(asked[:2]))
def test_what_a_command_prints_has_the_keys_of_the_page(
    project: Folder, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUPIPE_WEIGHTS", str(tmp_path))
    name, *rest = asked
    printed = project.out(*name.split(), *rest, "--json")
    assert check_shapes(name, printed)
    assert printed.count("\n") == 1 or name not in ("train", "evaluate", "tune")  # a line of a script's log


def test_an_object_of_other_keys_is_found() -> None:
    good = '{"message_type": "import", "feature": 1, "done": 1, "fitted": 1, "failed": 1, "no_file": 1, '
    good += '"no_recording": 1, "dropped_columns": 1, "replaced": 1}'
    item = '{"message_type": "item", "recording": 1, "feature": 1, "state": 1, "frames": 1, "valid_frames": 1}'
    assert len(check_shapes("import", f"{item}\n{item}\n{good}")) == 3
    for wrong in (good.replace('"done"', '"did"'), item, f"{good}\n{item}", "[]", good.replace("import", "imported")):
        with pytest.raises((AssertionError, KeyError, TypeError)):
            check_shapes("import", wrong)
