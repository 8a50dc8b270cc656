"""The folder of weights: what is there, what it should be, and how files come into it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aupipe.documents import read_json
from aupipe.errors import UsageError
from aupipe.extract.weights import (
    KNOWN_WEIGHTS,
    KnownWeights,
    RefusedWeightsError,
    file_sha256,
    find_file,
    imported_name,
    known_weights,
    safetensors_metadata,
    weights_folder,
)
from aupipe.extract.weights.onnx_file import external_files
from aupipe.files import staged_file

NOTES = "aupipe-weights.json"  # of `aupipe weights pull`: licences that were accepted, digests of first pulls
NOT_WEIGHTS = (NOTES, ".lock", ".part", ".part.json")  # ends of names
COPIED = (".onnx", ".tflite", ".task", ".safetensors")  # what imports as it is; every other file is converted

Check = Literal["as published", "not the published file", "as first pulled", "changed", "unknown", "unreadable"]


@dataclass(frozen=True)
class ListedWeights:
    """One line of the list: a known file and where it lies, if it does."""

    name: str
    known: KnownWeights
    path: Path | None


@dataclass(frozen=True)
class VerifiedWeights:
    """What one file turned out to be."""

    path: Path
    sha256: str
    check: Check
    licence: str


def list_weights() -> list[ListedWeights]:
    """Every known checkpoint, and whether it lies in the folder of AUPIPE_WEIGHTS."""
    folder = weights_folder()
    found = []
    for name, known in KNOWN_WEIGHTS.items():
        places = [folder / name, folder / imported_name(Path(name))] if folder else []
        found.append(ListedWeights(name, known, next((path for path in places if path.is_file()), None)))
    return found


def verify_weights(folder: Path | None = None) -> Iterator[VerifiedWeights]:
    """Hash every file of the folder and compare it with what is known of it."""
    folder = needed_folder(folder)
    pulled = read_notes(folder)["sha256"]
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(NOT_WEIGHTS)):
        name = path.relative_to(folder).as_posix()
        known = known_weights(name)
        digest = file_sha256(path)
        check: Check = "unknown"
        licence = known.licence if known else "unknown"
        if known and known.sha256:
            check = "as published" if digest.startswith(known.sha256) else "not the published file"
        elif name in pulled:
            check = "as first pulled" if digest == pulled[name] else "changed"
        elif path.suffix == ".safetensors":
            try:
                licence = safetensors_metadata(path).get("licence", licence)
            except RefusedWeightsError:
                check = "unreadable"
        yield VerifiedWeights(path, digest, check, licence)


def import_weights(source: Path, name: str | None = None, folder: Path | None = None) -> Path:
    """Bring a downloaded file into the folder and say where it went.

    Checkpoints are read by the restricted reader and written as safetensors with the sha256, name and licence of the
    original inside, beside the original where there is no folder; ONNX, TFLite and safetensors files are copied. A
    wrong digest is refused before anything parses the file. An ONNX file brings the files it keeps tensors in. Raises
    RefusedWeightsError for a file that holds no weights, UsageError when the target exists with other content.
    """
    source = source.expanduser().absolute()
    copied = source.suffix in COPIED
    folder = needed_folder(folder or weights_folder() or (None if copied else source.parent))
    known = known_weights(source.as_posix())
    find_file(str(source), known)  # is there, and is the published file where one is known
    default = source.name if copied else imported_name(source)
    target = folder / (name or default)
    if target.suffix != (source.suffix if copied else ".safetensors"):
        raise UsageError(f"import {source.name} as {target.name!r}: the name must end in {Path(default).suffix}")
    beside = external_files(source) if source.suffix == ".onnx" else []
    for location, file in beside:  # first what the network needs: one that is there is whole
        _refuse_other(target.parent / location, file)
        with staged_file(target.parent / location, overwrite=True) as part:
            shutil.copyfile(file, part)
    with staged_file(target, overwrite=True) as part:
        if copied:
            if source.suffix == ".safetensors":
                safetensors_metadata(source)
            shutil.copyfile(source, part)
        else:
            _convert(source, part, known)
        _refuse_other(target, part)
    return target


def _convert(source: Path, target: Path, known: KnownWeights | None) -> None:
    from safetensors.torch import save_file

    from aupipe.extract.weights.pickled_checkpoint import read_checkpoint

    # Clones: tensors that share a storage cannot be written twice.
    state = {name: tensor.detach().contiguous().clone() for name, tensor in read_checkpoint(source).items()}
    origin = {"source": source.name, "source_sha256": file_sha256(source)}
    origin |= {"licence": known.licence} if known else {}
    # One entry: safetensors writes several in any order, and the same checkpoint must give the same file everywhere.
    save_file(state, target, {"aupipe": json.dumps(origin, sort_keys=True)})


def _refuse_other(target: Path, source: Path) -> None:
    """Raises UsageError where a file is there already whose content is another."""
    if target.exists() and file_sha256(target) != file_sha256(source):
        raise UsageError(f"{target} exists and holds other weights: remove it, or import under another --name")


def needed_folder(folder: Path | None) -> Path:
    """``folder``, or that of AUPIPE_WEIGHTS. Raises UsageError where there is none."""
    folder = folder or weights_folder()
    if folder is None:
        raise UsageError(
            "AUPIPE_WEIGHTS names no folder: set it, or path in [weights] of aupipe.toml, to where weights are kept"
        )
    return folder


def read_notes(folder: Path) -> dict[str, dict[str, str]]:
    """What `NOTES` says: ``accepted``: licence -> when, ``sha256``: name -> digest. Raises UsageError."""
    path = folder / NOTES
    try:
        found = read_json(path) if path.is_file() else {}
        return {key: dict(found.get(key, {})) for key in ("accepted", "sha256")}
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: not readable ({error}): remove it, and pull again") from error
