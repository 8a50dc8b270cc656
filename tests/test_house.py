"""The house stands as designed: who may import whom, and what a light command must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aupipe"

# Each layer may import itself and what stands to its left (docs/design.md).
LAYERS = [
    {"types", "errors", "documents", "logs", "files", "allocator", "collection"},
    {"registry", "tables", "config", "annotations", "dataset", "sources"},
    {"store"},
    {"extract", "train", "demo"},
    {"report"},
    {"cli"},
]
NEIGHBOURS = {"extract", "train", "demo"}  # in one layer, and strangers to each other


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_rooms(source: str, module: str) -> set[str]:
    """Every room of aupipe a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = module.split(".")[: -node.level]
                names = [".".join([*base, node.module or ""])]
            else:
                names = [node.module or ""]
            if node.module == "aupipe":
                names = [f"aupipe.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {room(name) for name in names if name.startswith("aupipe.")}
    return found


def breaches(source: str, module: str) -> list[str]:
    """What a file imports and may not."""
    here = room(module)
    if not here:  # aupipe/__init__.py: the public names only
        return sorted(imported_rooms(source, module) - LAYERS[0] - {"__version__"})
    level = next(i for i, layer in enumerate(LAYERS) if here in layer)
    allowed = set().union(*LAYERS[: level + 1]) | {"__version__"}
    if here in NEIGHBOURS:
        allowed -= NEIGHBOURS - {here}
    return sorted(imported_rooms(source, module) - allowed)


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found.append((".".join(parts), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_no_file_imports_from_a_layer_above_it(module: str, path: Path) -> None:
    assert breaches(path.read_text(), module.removesuffix(".__init__")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("aupipe.train.fit", "from aupipe.extract.planning.plan import make_plan"),
        ("aupipe.extract.executors.devices", "def f():\n    import aupipe.train.heads"),
        ("aupipe.store.protocol", "from aupipe.extract import decode"),
        ("aupipe.types", "from aupipe.registry import Registry"),
        ("aupipe.config", "from aupipe import store"),
        ("aupipe", "from aupipe.cli import main"),
    ],
)
def test_the_layer_check_notices_a_breach(module: str, source: str) -> None:
    assert breaches(source, module)


def test_train_needs_no_opencv() -> None:
    for module, path in modules():
        if room(module) == "train":
            assert "cv2" not in path.read_text(), module


def loaded_modules(code: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.splitlines()[-1].split())


HEAVY = {"torch", "numpy", "cv2", "av", "librosa", "timm", "transformers", "zarr", "h5py", "scipy", "pandas"}


def test_importing_aupipe_loads_nothing_heavy() -> None:
    assert not loaded_modules("import aupipe") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["train", "--help"], ["demo", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"from aupipe.cli import cli\ntry:\n    cli.main({arguments!r})\nexcept SystemExit:\n    pass"
    assert not loaded_modules(code) & HEAVY


def test_every_command_has_help_with_an_example() -> None:
    from aupipe.cli import cli

    for name, command in cli.commands.items():
        text = command.help or ""
        assert text, name
        if not hasattr(command, "commands") and name != "plugins":
            assert "Example" in text, name
