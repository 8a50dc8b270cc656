"""The modules of `aupipe.store` import only from their own layer and those below, and in no circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import aupipe

PACKAGE = Path(aupipe.__file__).parent / "store"

# From the bottom up. A name is a module or a package of `aupipe.store`; "" is `aupipe/store/__init__.py`.
LAYERS = [
    {"records", "keys", "processes", "fs", "links", "permissions", "adapters"},
    {"documents", "record_json", "reader", "view", "aligned", "run_log"},
    {"protocol"},
    {"formats", "log"},
    {"writer", "items", "folders", "map_cache", "memory", "local"},
    {"api", "clocks", "windows"},
    {"maintenance"},
    {""},
]
SEPARATE = {"formats", "log"}  # in one layer, and do not import each other


def modules():
    """Module name -> source of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["aupipe", "store", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


MODULES = modules()


def part(module):
    """The name of a module in `LAYERS`."""
    return module.removeprefix("aupipe.store").lstrip(".").partition(".")[0]


def imports(source):
    """The modules of `aupipe.store` that a source imports anywhere, in functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not read here"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in MODULES else node.module)
    return {name for name in found if name in MODULES}


def violations(module, source):
    """What a module imports from a layer above its own, or from a package it must not know."""
    own = part(module)
    level = next(number for number, layer in enumerate(LAYERS) if own in layer)
    allowed = set().union(*LAYERS[: level + 1])
    if own in SEPARATE:
        allowed -= SEPARATE - {own}
    return sorted(name for name in imports(source) if part(name) not in allowed)


def circle(sources):
    """Modules that import each other in a circle, or nothing."""
    try:
        TopologicalSorter({module: imports(source) for module, source in sources.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_module_has_a_layer():
    assert {part(module) for module in MODULES} == set().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_from_a_layer_above_it(module):
    assert violations(module, MODULES[module]) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circle(MODULES) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("aupipe.store.protocol", "from aupipe.store.local import LocalStore"),
        ("aupipe.store.formats.zarr3", "from aupipe.store.log.journal import Journal"),
        ("aupipe.store.log.index", "def f():\n    from aupipe.store import api"),
        ("aupipe.store.local", "from aupipe.store.maintenance.verify import check"),
        ("aupipe.store.local", "from aupipe.store import open_store"),
    ],
)
def test_an_import_from_above_is_found(module, source):
    assert violations(module, source)


def test_a_circle_is_found():
    source = "if TYPE_CHECKING:\n    from aupipe.store.maintenance.repair import repair_damage"
    verify = "aupipe.store.maintenance.verify"
    assert verify in circle(MODULES | {verify: MODULES[verify] + source})
