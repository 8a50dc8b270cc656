"""Errors of `aupipe` as they come from other processes."""

from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import aupipe
from aupipe.errors import AupipeError, named

MADE = {"MissingFileError": ("net.onnx", "weights 'net.onnx' not found"), "WeightsMissingError": ("one", "two")}
DEFINED = re.compile(r"^class \w+Error\(", re.MULTILINE)


def kinds_below(kind: type[AupipeError]) -> Iterator[type[AupipeError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from kinds_below(each)


def test_every_error_comes_from_another_process_as_it_was_raised() -> None:
    root = Path(aupipe.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if DEFINED.search(path.read_text(encoding="utf-8")):
            importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts))
    kinds = {kind for kind in kinds_below(AupipeError) if kind.__module__.startswith("aupipe.")}
    assert {"MissingFileError", "NoAudioError", "SourceChangedError"} <= {kind.__name__ for kind in kinds}
    for kind in kinds:
        error = kind(*MADE.get(kind.__name__, ("a line",)))
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_an_unforeseen_error_is_one_line_with_its_kind() -> None:
    assert named(ValueError("a shape\n  of (3, 4)")) == "ValueError: a shape of (3, 4)"
