"""Weight names to checked local files. Nothing is fetched unless `pull_weights` is called; no pickle is executed."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from aupipe.documents import parse_json
from aupipe.errors import WeightsMissingError
from aupipe.extract.weights.known import KNOWN_WEIGHTS, KnownWeights, known_weights
from aupipe.types import Weights

__all__ = [
    "KNOWN_WEIGHTS",
    "RANDOM",
    "RANDOM_SEED",
    "KnownWeights",
    "RefusedWeightsError",
    "file_sha256",
    "find_weights",
    "identify",
    "known_weights",
    "random_weights",
    "weights_folder",
]

RANDOM = "random"  # the value of an encoder's ``weights`` that asks for random numbers, for tests and benchmarks
RANDOM_SEED = 0


class RefusedWeightsError(WeightsMissingError):
    """A file offered as weights is not what was asked for, or holds what must not be read."""


def weights_folder() -> Path | None:
    """The folder named by AUPIPE_WEIGHTS, or None."""
    value = os.environ.get("AUPIPE_WEIGHTS")
    return Path(value).expanduser() if value else None


def find_weights(name: str, known: KnownWeights | None = None) -> Path:
    """The file of this name: an absolute path as it is, else in AUPIPE_WEIGHTS.

    Raises WeightsMissingError when it is not there, or when its sha256 is not the known one; the file is hashed before
    anything parses it.
    """
    if name == RANDOM:
        raise WeightsMissingError("weights = 'random': here the file is the network, so there is none; name a file")
    known = known or known_weights(name)
    folder = weights_folder()
    path = Path(name).expanduser()
    if not path.is_absolute() and folder is not None:
        path = folder / path
    if not path.is_absolute() or not path.is_file():
        where = f"in {folder} (AUPIPE_WEIGHTS)" if folder else "because AUPIPE_WEIGHTS names no folder"
        how = known.how if known else "put it there"
        digest = f" (sha256 {known.sha256})" if known and known.sha256 else ""
        raise WeightsMissingError(
            f"weights {name!r} not found {where}: {how}{digest}, then set AUPIPE_WEIGHTS to its folder"
        )
    if known and not file_sha256(path).startswith(known.sha256):
        raise RefusedWeightsError(
            f"{path} is not the published {path.name}: sha256 {file_sha256(path)}, expected {known.sha256}; {known.how}"
        )
    return path


def identify(name: str, licence: str = "unknown") -> Weights:
    """Name, sha256 and licence of a weight file. Raises WeightsMissingError as `find_weights` does.

    The licence is the known one, or the one written into a safetensors file when it was imported.
    """
    known = known_weights(name)
    path = find_weights(name, known)
    if known:
        licence = known.licence
    elif path.suffix == ".safetensors":
        licence = safetensors_metadata(path).get("licence", licence)
    return Weights(path.name, file_sha256(path), licence)


def random_weights(what: str) -> Weights:
    """The identity of random numbers from `RANDOM_SEED` in a network called ``what``."""
    name = f"{RANDOM}:{RANDOM_SEED}:{what}"
    return Weights(name, hashlib.sha256(name.encode()).hexdigest(), "none: random numbers")


def safetensors_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself, and what the import wrote into it: source, source_sha256, licence.

    Raises RefusedWeightsError when it is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
        imported = parse_json(metadata.pop("aupipe", "{}"))
        return metadata | {str(key): str(value) for key, value in imported.items()}
    except (SafetensorError, ValueError, AttributeError) as error:
        raise RefusedWeightsError(f"{path} is not a safetensors file: {error}") from error


def file_sha256(path: Path) -> str:
    """The sha256 of a file, hashed once per process while size and date stay the same."""
    stat = path.stat()
    return _sha256(str(path.absolute()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
