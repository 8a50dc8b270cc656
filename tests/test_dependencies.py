"""What pyproject.toml asks for is what the package imports, and the reverse."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Distributions whose module has another name than they have.
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL"}

# Declared, and imported by no line of the package, because:
NOT_IMPORTED = {
    "sentencepiece": "transformers imports it to read the tokenisers of some speech recognisers",
}

# Imported, and not declared, because:
NOT_DECLARED = {"triton": "comes with torch's CUDA wheels; without it the kernels are torch's own operations"}


def declared() -> set[str]:
    """Distributions in the dependencies and in every extra except dev and docs, which the package never imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name not in ("dev", "docs")}
    lines = [*project["dependencies"], *(line for wanted in extras.values() for line in wanted)]
    return {re.split(r"[^\w.-]", line)[0] for line in lines}


def module_of(distribution: str) -> str:
    return MODULES.get(distribution, distribution.replace("-", "_"))


def name_called(call: ast.Call) -> str:
    """The last part of the name of what is called; '' where it has none."""
    return getattr(call.func, "attr", None) or getattr(call.func, "id", "")


def names_imported(source: str) -> set[str]:
    """Top-level modules that a file imports, or names to `import_module` or `find_spec`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append(node.module or "")
        elif isinstance(node, ast.Call) and name_called(node) in ("import_module", "find_spec"):
            found += [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return {name.partition(".")[0] for name in found}


@functools.cache
def imported() -> set[str]:
    found = set().union(*(names_imported(path.read_text()) for path in (ROOT / "aupipe").rglob("*.py")))
    return found - set(sys.stdlib_module_names) - {"aupipe"}


def test_every_dependency_is_imported_or_says_why_not() -> None:
    unused = {name for name in declared() if module_of(name) not in imported()}
    assert unused == set(NOT_IMPORTED)


def test_everything_imported_is_a_declared_dependency() -> None:
    assert imported() - {module_of(name) for name in declared()} == set(NOT_DECLARED)


def test_the_check_sees_imports_at_any_depth() -> None:
    source = "import a.b\ndef f():\n    from c.d import e\n    import_module('g.h')\n    util.find_spec('i')\n"
    assert names_imported(source) == {"a", "c", "g", "i"}
