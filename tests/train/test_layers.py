"""The modules of aupipe.train import each other in one direction only."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import aupipe.train

FOLDER = Path(aupipe.train.__file__).parent
LONGEST = 300  # lines of a module


def sources() -> dict[str, str]:
    """Module name -> source text."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = ("aupipe", "train", *path.relative_to(FOLDER).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def imports(source: str, modules: Mapping[str, str]) -> set[str]:
    """The modules that a source imports anywhere: at its top, inside functions, or for type checking."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & modules.keys()


def circle(modules: Mapping[str, str]) -> list[str]:
    """The names of modules that import each other in a circle; [] where there is none."""
    try:
        TopologicalSorter({name: imports(source, modules) for name, source in modules.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(sources()) == []


@pytest.mark.parametrize(
    "back",
    [
        "from aupipe.train.fit import fit",
        "import aupipe.train.fit",
        "def f():\n    from aupipe.train import fit",
        "if TYPE_CHECKING:\n    from aupipe.train.fit import fit",
    ],
)
def test_a_circle_is_found_however_the_import_is_written(back: str) -> None:
    modules = sources()
    assert "aupipe.train.windows" in imports(modules["aupipe.train.fit"], modules)
    broken = modules | {"aupipe.train.windows": f"{modules['aupipe.train.windows']}\n{back}\n"}
    assert {"aupipe.train.fit", "aupipe.train.windows"} <= set(circle(broken))


@pytest.mark.parametrize("name", sources())
def test_no_module_is_too_long_to_read_at_once(name: str) -> None:
    assert len(sources()[name].splitlines()) <= LONGEST
