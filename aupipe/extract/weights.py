"""Weight names to checked local files. Nothing is ever fetched here, and no pickle is ever opened here."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from aupipe.errors import WeightsMissingError
from aupipe.types import Weights


@dataclass(frozen=True)
class KnownWeights:
    """A published file: what it must hash to, under which licence, and how one gets it."""

    sha256: str
    licence: str
    how: str


KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    "face_detection_yunet_2023mar.onnx": KnownWeights(
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        "MIT",
        "download models/face_detection_yunet/face_detection_yunet_2023mar.onnx of the OpenCV Zoo",
    ),
}


def weights_folder() -> Path | None:
    """The folder named by AUPIPE_WEIGHTS, or None."""
    value = os.environ.get("AUPIPE_WEIGHTS")
    return Path(value).expanduser() if value else None


def find_weights(name: str, known: KnownWeights | None = None) -> Path:
    """The file of this name: an absolute path as it is, else in AUPIPE_WEIGHTS.

    Raises WeightsMissingError when it is not there, or when its sha256 is not the known one; the file is hashed before
    anything parses it.
    """
    known = known or KNOWN_WEIGHTS.get(Path(name).name)
    folder = weights_folder()
    path = Path(name).expanduser()
    if not path.is_absolute() and folder is not None:
        path = folder / path
    if not path.is_absolute() or not path.is_file():
        where = f"in {folder} (AUPIPE_WEIGHTS)" if folder else "because AUPIPE_WEIGHTS names no folder"
        how = f"{known.how} (sha256 {known.sha256})" if known else "put it there"
        raise WeightsMissingError(f"weights {name!r} not found {where}: {how}, then set AUPIPE_WEIGHTS to its folder")
    if known and file_sha256(path) != known.sha256:
        raise WeightsMissingError(
            f"{path} is not the published {path.name}: sha256 {file_sha256(path)}, expected {known.sha256}; {known.how}"
        )
    return path


def identify(name: str, licence: str = "unknown") -> Weights:
    """Name, sha256 and licence of a weight file. Raises WeightsMissingError as `find_weights` does."""
    known = KNOWN_WEIGHTS.get(Path(name).name)
    path = find_weights(name, known)
    return Weights(path.name, file_sha256(path), known.licence if known else licence)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, hashed once per process while size and date stay the same."""
    stat = path.stat()
    return _sha256(str(path.absolute()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
