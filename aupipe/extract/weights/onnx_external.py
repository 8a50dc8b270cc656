"""Tensors that an ONNX file keeps in files beside it: which files, without the package onnx.

A message is walked without its bytes being copied, so that a file of gigabytes costs one pass over its field heads.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from aupipe.errors import WeightsMissingError
from aupipe.extract.weights import RefusedWeightsError, file_sha256, find_weights, identify
from aupipe.extract.weights.protobuf import fields
from aupipe.types import Weights

# Field numbers of onnx.proto3. What may hold a tensor, by message: field -> the message it holds.
HOLDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
ENTRY_KEY, ENTRY_VALUE = 1, 2


def external_files(path: Path) -> list[tuple[str, Path]]:
    """(location as written, file) of everything an ONNX file keeps outside, sorted by location; none for most.

    Raises RefusedWeightsError for a location outside the file's own folder, WeightsMissingError for one that is not
    there. What cannot be read as ONNX has none: who opens it says what is wrong.
    """
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return []
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        locations = sorted(set(_locations(memoryview(content), "model")))
    except (ValueError, IndexError):
        return []
    return [(location, _beside(path, location)) for location in locations]


def identify_network(name: str, licence: str = "unknown") -> Weights:
    """As `identify`; where an ONNX file keeps tensors outside, the sha256 is of all its files together.

    Raises as `external_files` does.
    """
    found = identify(name, licence)
    outside = external_files(find_weights(name))
    if not outside:
        return found
    lines = [found.sha256, *(f"{location} {file_sha256(file)}" for location, file in outside)]
    return replace(found, sha256=hashlib.sha256("\n".join(lines).encode()).hexdigest())


def _beside(path: Path, location: str) -> Path:
    """The file of a location, which must lie in the folder of ``path``, links included."""
    parts = PurePosixPath(location).parts
    outside = not location or PurePosixPath(location).is_absolute() or ".." in parts
    outside = outside or PureWindowsPath(location).is_absolute() or ".." in PureWindowsPath(location).parts
    found = path.parent / location
    if outside or not Path(os.path.realpath(found)).is_relative_to(os.path.realpath(path.parent)):
        raise RefusedWeightsError(
            f"{path} keeps tensors in {location!r}, outside its own folder: save it as one file, "
            "onnx.save(onnx.load(FILE), ONE_FILE)"
        )
    if not found.is_file():
        raise WeightsMissingError(f"{path} keeps tensors in {location!r}, which is not beside it: put it there")
    return found


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    """The locations in a message and all that it holds."""
    for number, value in fields(message):
        inner = HOLDS[kind].get(number)
        if inner is None or not isinstance(value, memoryview):
            continue
        if inner == "entry":
            entry = {key: bytes(text) for key, text in fields(value) if isinstance(text, memoryview)}
            if entry.get(ENTRY_KEY) == b"location":
                yield entry.get(ENTRY_VALUE, b"").decode()
        else:
            yield from _locations(value, inner)
