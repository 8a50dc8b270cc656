"""The file of a run, ``head.safetensors``: weights, standardisation, everything about the run, and its checksum.

All of it is in one file that is replaced by renaming, so a score never stands beside other weights. While a run is not
finished the file also holds the state of training (`aupipe.train.checkpoint`). It holds tensors and JSON, nothing that
executes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.documents import parse_json
from aupipe.errors import DamageError
from aupipe.files import write_file

FILE = "head.safetensors"
DOCUMENT, CHECKSUM = "document", "sha256"  # keys of the metadata; runs of aupipe 0.1.0 have only the id of the run

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class RunFile:
    """The content of a file. ``document``: JSON, empty in files of aupipe 0.1.0, which have an ``owner`` instead."""

    tensors: dict[str, NDArray[Any]]
    document: Mapping[str, Any]
    owner: str = ""  # id of the run


def write_run_file(folder: Path, document: Mapping[str, Any], tensors: Arrays) -> None:
    """Write the file; a former one is replaced by renaming."""
    from safetensors.numpy import save

    text = json.dumps(document)
    tensors = {name: np.array(value, order="C") for name, value in tensors.items()}
    content = save(tensors, metadata={DOCUMENT: text, CHECKSUM: _checksum(text, tensors)})
    write_file(folder / FILE, content, overwrite=True)


def read_document(folder: Path) -> dict[str, Any] | None:
    """The document alone, not checked; None where there is no file, or one of aupipe 0.1.0, which has none.

    Raises DamageError where the file is not readable.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(DOCUMENT)
        document: dict[str, Any] | None = None if text is None else parse_json(text)
        return document
    except (OSError, SafetensorError, ValueError) as error:
        raise _damage(path, str(error)) from error


def read_run_file(folder: Path) -> RunFile:
    """The whole file. Raises DamageError where it is missing, not readable, or differs from its checksum."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        text = metadata.get(DOCUMENT)
        document = {} if text is None else parse_json(text)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _damage(path, str(error)) from error
    if text is not None and metadata.get(CHECKSUM) != _checksum(text, tensors):
        raise _damage(path, "its content differs from its checksum")
    if text is not None and not (isinstance(document, dict) and isinstance(document.get("run"), dict)):
        raise _damage(path, "it does not describe a run")
    return RunFile(tensors, document, metadata.get("run", ""))


def _checksum(text: str, tensors: Arrays) -> str:
    """sha256, in hex, of the document and of the names, types, shapes and bytes of all tensors."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\0{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        found.update(value.tobytes())
    return found.hexdigest()


def _damage(path: Path, why: str) -> DamageError:
    return DamageError(f"{path}: not readable as a run's weights ({why}); train it again")
