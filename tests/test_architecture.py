"""The architecture: which module may import which, how long a module is, what a light command must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each layer may import itself and the layers above it in this list (docs/architecture.md).
LAYERS = [
    {
        "types",
        "tasks",
        "errors",
        "documents",
        "logs",
        "files",
        "listing",
        "quantities",
        "allocator",
        "gc_pause",
        "child_process",
        "callable_module",
    },
    {
        "registry",
        "tables",
        "task_tables",
        "config_values",
        "encoder_kinds",
        "encoder_tables",
        "config",
        "annotations",
        "facs_datasets",
        "file_kinds",
        "dataset_model",
        "dataset_columns",
        "table_rows",
        "label_rows",
        "label_tables",
        "dataset",
        "video_folders",
        "sources",
        "local_models",
    },
    {"store"},
    {"extract", "train", "demo"},
    {"report", "doctor", "imported"},
    {"cli"},
    {"project", "commands"},  # for callers from Python
]
INDEPENDENT = {"extract", "train", "demo"}  # in one layer, and do not import each other

# Inside `aupipe.extract`: package -> the packages it may import, besides itself and the base modules.
EXTRACT_BASE = {"contract", "limits", "memory", "meter", "versions", "user_cache"}
EXTRACT_LAYERS: dict[str, set[str]] = {
    "nets": set(),
    "weights": {"nets"},
    "media": set(),
    "imaging": set(),
    "gpu": {"media", "imaging"},
    "faces": {"nets", "weights", "media", "imaging", "gpu"},
    "encoders": {"nets", "weights", "media", "imaging", "gpu", "faces"},
    "planning": {"nets", "weights", "media", "imaging", "gpu", "faces", "encoders"},
    "engine": {"nets", "weights", "media", "imaging", "gpu", "faces", "encoders", "planning"},
    "executors": {"nets", "weights", "media", "imaging", "gpu", "faces", "encoders", "planning", "engine"},
}

LONGEST = 300  # lines of a module


def read_modules() -> dict[str, str]:
    """Module name -> source, of every file of the package; a package goes by its own name, without ``__init__``."""
    files = sorted((ROOT / "aupipe").rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return dict(zip(names, (file.read_text(encoding="utf-8") for file in files), strict=True))


MODULES = read_modules()


def find_imports(source: str) -> set[str]:
    """Every module of aupipe that a source imports, at any depth of its code and for type checking too.

    ``from package import name`` counts as the module ``package.name`` where there is one, else as ``package``.
    Raises ValueError for a relative import: aupipe writes names in full.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: a relative import")
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            # The top package holds nothing of its own, so each of its names counts as a module.
            found |= (
                full if node.module == "aupipe" else {name if name in MODULES else str(node.module) for name in full}
            )
    return {name for name in found if name.startswith("aupipe.")} - {"aupipe.__version__"}


def top_package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer_violations(module: str, source: str) -> list[str]:
    """The packages of aupipe that a module imports and may not."""
    imported = {top_package(name) for name in find_imports(source)}
    own = top_package(module)
    if not own:  # aupipe/__init__.py: the public names only, those of the last layer when they are asked for
        return sorted(imported - LAYERS[0] - LAYERS[-1])
    level = next(number for number, layer in enumerate(LAYERS) if own in layer)
    allowed = set().union(*LAYERS[: level + 1])
    if own in INDEPENDENT:
        allowed -= INDEPENDENT - {own}
    return sorted(imported - allowed)


def extract_violations(module: str, source: str) -> set[str]:
    """The modules of `aupipe.extract` that a module of it imports and may not. KeyError: unknown package."""
    imported = {name for name in find_imports(source) if name.startswith("aupipe.extract.")}
    own = module.split(".")[2] if module.count(".") > 1 else ""
    allowed = set() if own in ("", *EXTRACT_BASE) else {own, *EXTRACT_LAYERS[own]}
    return {name for name in imported if name.split(".")[2] not in allowed | EXTRACT_BASE}


def find_cycle(modules: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, or an empty list."""
    graph = {name: find_imports(source) for name, source in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_from_a_layer_above_it(module: str) -> None:
    assert layer_violations(module, MODULES[module]) == []


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
def test_the_layer_check_notices_a_violation(module: str, source: str) -> None:
    assert layer_violations(module, source)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("aupipe.extract")])
def test_no_module_of_extract_imports_from_a_layer_above_it(module: str) -> None:
    assert extract_violations(module, MODULES[module]) == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("aupipe.extract.media.audio", "from aupipe.extract.gpu import transfer"),
        ("aupipe.extract.gpu.warp", "def f():\n    from aupipe.extract.faces import DETECTORS"),
        ("aupipe.extract.nets.dan", "if TYPE_CHECKING:\n    from aupipe.extract.weights.checkpoint import read"),
        ("aupipe.extract.memory", "import aupipe.extract.media.video"),
        ("aupipe.extract", "from aupipe.extract.engine.engine import Engine"),
        ("aupipe.extract.engine.models", "from aupipe.extract.executors import ExecutorEvent"),
    ],
)
def test_the_layer_check_of_extract_notices_a_violation(module: str, source: str) -> None:
    assert extract_violations(module, source)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert find_cycle(MODULES) == []


@pytest.mark.parametrize(
    "line", ["import {}", "def f():\n    import {}", "if TYPE_CHECKING:\n    from {} import anything"]
)
def test_the_circle_check_notices_a_circle(line: str) -> None:
    first, second = "aupipe.types", "aupipe.errors"
    modules = {first: f"import {second}", second: line.format(first)}
    assert set(find_cycle(modules)) == {first, second}
    assert find_cycle(modules | {second: ""}) == []


def long_modules(modules: dict[str, str]) -> list[str]:
    return [name for name, source in modules.items() if len(source.splitlines()) > LONGEST]


def test_no_module_is_long() -> None:
    assert long_modules(MODULES) == []


def test_the_length_check_notices_a_long_module() -> None:
    assert long_modules({"aupipe.short": "\n" * LONGEST, "aupipe.long": "\n" * (LONGEST + 1)}) == ["aupipe.long"]


def test_train_needs_no_opencv() -> None:
    for module, source in MODULES.items():
        if top_package(module) == "train":
            assert "cv2" not in source, module


def loaded_modules(code: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.splitlines()[-1].split())


HEAVY = {
    "torch",
    "numpy",
    "cv2",
    "av",
    "librosa",
    "timm",
    "transformers",
    "zarr",
    "h5py",
    "scipy",
    "pandas",
    "matplotlib",
    "jinja2",
}


def test_importing_aupipe_loads_nothing_heavy() -> None:
    assert not loaded_modules("import aupipe") & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["extract", "--help"],
        ["train", "--help"],
        ["demo", "--help"],
        ["check", "--help"],
        ["analyse", "--help"],
        ["import", "--help"],
        ["overlay", "--help"],
        ["report", "run", "--help"],
        ["report", "--help"],
        ["report", "data", "--help"],
    ],
)
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
