"""Reading pickled checkpoints without executing anything.

A pickle is a program; which functions it may call is decided in one place, `_Reader.find_class`, from the table in
`aupipe.extract.weights.pickled_objects`. Everything else is refused by name. How long it may take and how much memory
it may ask for is bounded by the size of the file (`aupipe.extract.weights.bounded`).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.bounded import BoundedUnpickler
from aupipe.extract.weights.pickled_objects import (
    ALLOWED,
    INERT_ROOTS,
    PYTHON_2,
    STORAGE_DTYPES,
    Inert,
    InertDict,
    plain,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of files torch.save wrote before 1.6
MOST_INFLATED = 16  # times the archive that its entries may be; torch.save packs nothing


class _Reader(BoundedUnpickler):
    def __init__(
        self, file: IO[bytes], size: int, storage: Callable[[tuple[Any, ...]], torch.Tensor] | None = None
    ) -> None:
        super().__init__(file, size)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        full = f"{PYTHON_2.get(module, module)}.{name}"
        if ALLOWED.get(full) is not None:
            return ALLOWED[full]
        if module in ("torch", "torch.storage") and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if full == "dnnlib.util.EasyDict":
            return InertDict
        if full.startswith(INERT_ROOTS) and full not in ALLOWED:
            return type(name, (Inert,), {"origin": full})
        raise RefusedWeightsError(f"it asks for {full}, which no weights need")

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]  # the old form wraps each class, with its source, which is not looked at
        if self.storage is None or not isinstance(pid, tuple) or pid[0] != "storage":
            raise RefusedWeightsError("it refers to something outside itself")
        return self.storage(pid)


def read_pickle(path: Path) -> Any:
    """What a pickled file holds: dicts, lists, numbers, tensors, arrays, and `Inert` for objects of network libraries.

    Reads what torch.save writes (both forms) and plain pickles. Raises RefusedWeightsError, naming the file and the
    reason, for everything else; nothing of the file is executed.
    """
    try:
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive, size)
        with open(path, "rb") as file:
            return plain(_read_stream(file, size))
    except RefusedWeightsError as error:
        raise RefusedWeightsError(f"{path} is refused as weights: {error}; nothing of it was run") from None
    except RecursionError:
        raise RefusedWeightsError(f"{path} is refused as weights: it nests too deeply; nothing of it was run") from None
    except Exception as error:  # whatever a broken or hostile stream makes the unpickler raise
        said = " ".join(map(str, error.args[:1])) if len(error.args) < 2 else str(error)
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise RefusedWeightsError(
            f"{path} cannot be read as weights: it is damaged or no checkpoint of torch ({said})"
        ) from error


def _read_zip(archive: zipfile.ZipFile, size: int) -> Any:
    names = archive.namelist()
    if sum(entry.file_size for entry in archive.infolist()) > MOST_INFLATED * size:
        raise RefusedWeightsError("the archive unpacks to many times its size")
    main = next((name for name in names if name == "data.pkl" or name.endswith("/data.pkl")), None)
    if main is None:
        raise RefusedWeightsError("the archive holds no data.pkl")
    folder = main.removesuffix("data.pkl")
    if any(name.startswith(f"{folder}code/") for name in names):
        raise RefusedWeightsError("it is a TorchScript program, not a state dict")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise RefusedWeightsError("its numbers are big-endian")
    storages: dict[str, torch.Tensor] = {}

    def storage(pid: tuple[Any, ...]) -> torch.Tensor:
        _, dtype, key, _, _ = pid
        if key not in storages:
            raw = bytearray(archive.read(f"{folder}data/{key}"))
            storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return storages[key]

    content = archive.read(main)
    return plain(_Reader(io.BytesIO(content), len(content), storage).load())


def _read_stream(file: IO[bytes], size: int) -> Any:
    first = _Reader(file, size).load()
    if first != LEGACY_MAGIC:
        return first
    _Reader(file, size).load()  # protocol
    _Reader(file, size).load()  # byte order and word sizes
    storages: dict[str, torch.Tensor] = {}
    left = size

    def storage(pid: tuple[Any, ...]) -> torch.Tensor:
        nonlocal left
        _, dtype, key, _, count, view = pid
        if key not in storages:
            if view is not None or not 0 <= count * dtype.itemsize <= left:
                raise RefusedWeightsError("storages larger than the file")
            left -= count * dtype.itemsize
            storages[key] = torch.zeros(count, dtype=dtype)
        return storages[key]

    found = _Reader(file, size, storage).load()
    for key in _Reader(file, size).load():  # the numbers follow the objects that view them
        numbers = storages[key]
        count = int.from_bytes(file.read(8), "little")
        raw = file.read(count * numbers.element_size())
        if count != len(numbers) or len(raw) != count * numbers.element_size():
            raise RefusedWeightsError("it ends too early")
        if count:
            numbers.copy_(torch.frombuffer(bytearray(raw), dtype=numbers.dtype))
    return found
