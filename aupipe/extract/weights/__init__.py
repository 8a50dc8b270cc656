"""Weight names to checked local files. Nothing is fetched unless `pull_weights` is called; no pickle is executed."""

from __future__ import annotations

import hashlib
import shlex
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from aupipe.documents import parse_json
from aupipe.errors import WeightsMissingError
from aupipe.extract.weights.known import KNOWN_WEIGHTS, KnownWeights, known_weights
from aupipe.files import as_argument
from aupipe.local_models import imported_name, weights_folder
from aupipe.types import Weights

__all__ = [
    "KNOWN_WEIGHTS",
    "RANDOM",
    "RANDOM_SEED",
    "KnownWeights",
    "MissingFileError",
    "RefusedWeightsError",
    "file_sha256",
    "find_file",
    "find_weights",
    "identify",
    "imported_name",
    "is_random",
    "known_weights",
    "random_seed",
    "random_weights",
    "refused_pickle",
    "weights_folder",
]

# The value of an encoder's ``weights`` that asks for random numbers, for tests and benchmarks; others by random:NAME.
RANDOM = "random"
RANDOM_SEED = 0
PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin", ".tar", ".th")  # what only `aupipe weights import` reads


class RefusedWeightsError(WeightsMissingError):
    """A file offered as weights is not what was asked for, or holds what must not be read."""


class MissingFileError(WeightsMissingError):
    """A file of weights is not on this machine; ``name``: as it was asked for."""

    def __init__(self, name: str, *lines: str) -> None:
        super().__init__(*lines)
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, *self.lines)


def find_file(name: str, known: KnownWeights | None = None) -> Path:
    """The file of this name: an absolute path as it is, else in AUPIPE_WEIGHTS.

    Raises WeightsMissingError when it is not there, or when its sha256 is not the known one; the file is hashed before
    anything parses it.
    """
    known = known or known_weights(name)
    path = _path(name)
    if not path.is_absolute() or not path.is_file():
        folder = weights_folder()
        where = "because AUPIPE_WEIGHTS names no folder"
        if folder:
            where = f"in {folder} (AUPIPE_WEIGHTS or [weights] path{'' if folder.is_dir() else ': no such folder'})"
        how = known.how if known else "put it there"
        digest = f" (sha256 {known.sha256})" if known and known.sha256 else ""
        then = "set AUPIPE_WEIGHTS to its folder" + " and `aupipe weights import` it" * is_pickle(path)
        if known and known.url:
            first = "" if folder else "set AUPIPE_WEIGHTS to a folder, then "
            how = f"{first}`aupipe weights pull {shlex.quote(name)}` fetches it; or {how}"
        raise MissingFileError(name, f"weights {name!r} not found {where}: {how}{digest}, then {then}")
    _refuse_unpublished(path, file_sha256(path), known)
    return path


def find_weights(name: str, known: KnownWeights | None = None) -> Path:
    """The file that is read for this name: the one `find_file` finds, for a pickle what was imported from it.

    Raises as `find_file` does, and RefusedWeightsError with the command to give for a pickle that was not imported.
    """
    if is_random(name):
        raise WeightsMissingError("weights = 'random': here the file is the network, so there is none; name a file")
    if not is_pickle(Path(name)):
        return find_file(name, known)
    path, others = _path(name), []
    for folder in (path.parent, weights_folder()):
        made = (folder or path.parent) / imported_name(path)
        origin = {}
        with suppress(RefusedWeightsError):  # a file that only has this name
            origin = safetensors_metadata(made) if made.is_file() else {}
        if origin.get("source") != path.name:
            continue
        if path.is_file() and file_sha256(path) != origin.get("source_sha256"):
            others.append(made)
        elif path.is_file() or folder == path.parent or not Path(name).is_absolute():
            _refuse_unpublished(made, origin.get("source_sha256", ""), known or known_weights(name))
            return made
    path = find_file(name, known)
    if others:
        raise RefusedWeightsError(f"{others[0]} was imported from another {path.name}: remove it, and import again")
    raise refused_pickle(path)


def identify(name: str, licence: str = "unknown") -> Weights:
    """Name, sha256 and licence of a weight file; of a pickle those of the pickle, by what the import wrote down.

    The licence is the known one, or the one written into a safetensors file when it was imported. Raises as
    `find_weights` does.
    """
    known = known_weights(name)
    path = find_weights(name, known)
    origin = safetensors_metadata(path) if path.suffix == ".safetensors" else {}
    if known:
        licence = known.licence
    if is_pickle(Path(name)):
        return Weights(Path(name).name, origin["source_sha256"], licence)
    return Weights(path.name, file_sha256(path), licence if known else origin.get("licence", licence))


def refused_pickle(path: Path) -> RefusedWeightsError:
    """The error for a pickle that was named where weights are read."""
    command = f"aupipe weights import {as_argument(path)}"
    return RefusedWeightsError(f"{path} is a pickle, which extraction does not read: run `{command}` once")


def _path(name: str) -> Path:
    path, folder = Path(name).expanduser(), weights_folder()
    return folder / path if folder and not path.is_absolute() else path


def is_pickle(path: Path) -> bool:
    """Whether a file's name is that of a pickle, which is only read to import it."""
    return path.suffix.lower() in PICKLES


def _refuse_unpublished(path: Path, sha256: str, known: KnownWeights | None) -> None:
    if known and not sha256.startswith(known.sha256):
        raise RefusedWeightsError(
            f"{path} is not the published {path.name}: sha256 {sha256}, expected {known.sha256}; {known.how}"
        )


def is_random(weights: str) -> bool:
    """Does an encoder's ``weights`` ask for random numbers?"""
    return weights == RANDOM or weights.startswith(f"{RANDOM}:")


def random_seed(weights: str) -> int:
    """The seed of ``random`` or ``random:NAME``."""
    name = weights.partition(":")[2]
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) if name else RANDOM_SEED


def random_weights(what: str, weights: str = RANDOM) -> Weights:
    """The identity of the random numbers that ``weights`` asks for, in a network called ``what``."""
    name = f"{RANDOM}:{weights.partition(':')[2] or RANDOM_SEED}:{what}"
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
