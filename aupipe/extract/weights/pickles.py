"""Reading pickled checkpoints without executing anything.

A pickle is a program; which functions it may call is decided in one place, `_Reader.find_class`. Tensors, arrays and
plain containers are rebuilt by functions of this module. Classes of network libraries become `Inert`: objects that only
keep what they were given. Everything else is refused by name. How long it may take and how much memory it may ask for
is bounded by the size of the file (`aupipe.extract.weights.bounded`).
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.bounded import BoundedUnpickler, short

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of files torch.save wrote before 1.6
MOST_INFLATED = 16  # times the archive that its entries may be; torch.save packs nothing
MOST_DIMENSIONS = 64

# Roots of modules whose classes checkpoints are known to hold: networks, their arguments, StyleGAN's network objects.
INERT_ROOTS = ("torch.nn.", "torch.optim.", "timm.", "geffnet.", "torchvision.", "argparse.", "functools.", "dnnlib.")


class Inert:
    """Stands in for an object of another class: keeps its arguments and its state, and does nothing."""

    origin = ""
    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.origin}, not loaded>"


class InertDict(dict[Any, Any]):
    """Stands in for a dict with attributes."""

    def __setstate__(self, state: Any) -> None:
        self.update(state if isinstance(state, dict) else {})


class _Call:
    """A function a pickle may call. Sealed: a pickle cannot change it."""

    __slots__ = ("function",)
    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "function", function)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RefusedWeightsError("the file tries to change the reader")

    def __setstate__(self, state: Any) -> None:
        raise RefusedWeightsError("the file tries to change the reader")


class _Dtype:
    """A numpy dtype being rebuilt: its code, then its byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or np.dtype(code).hasobject:
            raise RefusedWeightsError(f"an array of {short(code)}")
        self.code: str = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """A numpy array being rebuilt; `plain` takes the array out."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(raw, bytes) or not isinstance(kind, _Dtype):
            raise RefusedWeightsError("an array of objects")
        self.array = np.frombuffer(raw, kind.dtype()).reshape(shape, order="F" if fortran else "C")


def _scalar(kind: _Dtype, raw: bytes) -> Any:
    return np.frombuffer(raw, kind.dtype())[0].item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise RefusedWeightsError(f"bytes encoded as {short(encoding)}")
    return text.encode("latin1")


def _rebuild_tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """A view of a storage, which may be filled later; one that leaves its storage is refused by torch itself."""
    if not isinstance(storage, torch.Tensor):
        raise RefusedWeightsError("a tensor without a storage")
    if len(size) > MOST_DIMENSIONS or not all(isinstance(n, int) and abs(n) < 2**63 for n in (*size, *stride)):
        raise RefusedWeightsError("a tensor of no shape")
    if math.prod(size) > len(storage):  # a step of 0 makes any number of elements of one
        raise RefusedWeightsError("a tensor with more elements than its storage")
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if all(size) else 0
    if offset < 0 or reach > len(storage) or any(step < 0 for step in stride):
        raise RefusedWeightsError("a tensor that reaches beyond its storage")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _rebuild_from_type(function: Any, kind: Any, args: tuple[Any, ...], state: Any) -> Any:
    if not isinstance(function, _Call):
        raise RefusedWeightsError("a tensor rebuilt by an unknown function")
    return function(*args)


def _reconstruct_object(cls: Any, base: Any, state: Any) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, Inert | InertDict)):
        raise RefusedWeightsError(f"an object of {short(cls)}")
    return cls()


_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}

_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": _Call(lambda *args: InertDict()),
    "collections.Counter": _Call(lambda content=(): InertDict(content)),
    "builtins.int": _Call(lambda *args: 0),  # what a defaultdict makes
    "builtins.long": _Call(lambda *args: 0),
    "builtins.float": _Call(lambda *args: 0.0),
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.dict": dict,
    "builtins.list": list,
    "torch.Size": _Call(lambda sizes=(): tuple(sizes)),
    "torch.device": _Call(lambda *args: ":".join(map(short, args))),
    "torch._utils._rebuild_tensor": _Call(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Call(lambda data, *_: data),
    "torch._utils._rebuild_parameter_with_state": _Call(lambda data, *_: data),
    "torch._tensor._rebuild_from_type_v2": _Call(_rebuild_from_type),
    "torch.nn.parameter.Parameter": None,  # never an Inert: its numbers would be lost without a word
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    "_codecs.encode": _Call(_latin1),
    "copyreg._reconstructor": _Call(_reconstruct_object),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[f"{_module}._reconstruct"] = _Call(lambda *args: _Array())
    _ALLOWED[f"{_module}.scalar"] = _Call(_scalar)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Reader(BoundedUnpickler):
    def __init__(
        self, file: IO[bytes], size: int, storage: Callable[[tuple[Any, ...]], torch.Tensor] | None = None
    ) -> None:
        super().__init__(file, size)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        full = f"{_PYTHON_2.get(module, module)}.{name}"
        if _ALLOWED.get(full) is not None:
            return _ALLOWED[full]
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if full == "dnnlib.util.EasyDict":
            return InertDict
        if full.startswith(INERT_ROOTS) and full not in _ALLOWED:
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


def plain(value: Any) -> Any:
    """Arrays under construction to arrays, everywhere in plain containers and in the states of inert objects."""
    return _plain(value, {})


def _plain(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """``seen``: id -> what was found there (kept, so that no other gets its id) and what became of it."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _Dtype):
        return value.code
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, dict):
        seen[id(value)] = (value, value)
        for key, item in value.items():
            value[key] = _plain(item, seen)
    elif isinstance(value, list):
        seen[id(value)] = (value, value)
        value[:] = [_plain(item, seen) for item in value]
    elif isinstance(value, tuple):
        made = tuple(_plain(item, seen) for item in value)
        seen[id(value)] = (value, made)
        return made
    elif isinstance(value, Inert):
        seen[id(value)] = (value, value)
        value.state = _plain(value.state, seen)
    return value
