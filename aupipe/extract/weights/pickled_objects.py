"""What a pickled checkpoint may hold, and the functions that rebuild it: tensors, arrays and plain containers.

Classes of network libraries become `Inert`: objects that only keep what they were given. `ALLOWED` is the whole of what
a pickle may name; see `aupipe.extract.weights.pickles`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from aupipe.extract.weights import RefusedWeightsError
from aupipe.extract.weights.bounded import short

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


STORAGE_DTYPES = {
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

ALLOWED: dict[str, Any] = {
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
    ALLOWED[f"{_module}._reconstruct"] = _Call(lambda *args: _Array())
    ALLOWED[f"{_module}.scalar"] = _Call(_scalar)
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


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
