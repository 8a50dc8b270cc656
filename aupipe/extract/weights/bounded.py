"""An unpickler whose time and memory are bounded by the size of the file, however hostile the file is.

A pickle of some bytes can ask for years of work: tuples of tuples that are hashed over and over, sizes that are
declared and not there, lists copied again and again. The C unpickler of Python cannot be told to refuse these; the one
written in Python can. It reads about a million instructions per second, and a checkpoint has some thousands.
"""

from __future__ import annotations

import pickle
import reprlib
from collections.abc import Callable
from typing import IO, Any, ClassVar

from aupipe.extract.weights import RefusedWeightsError

MOST_NESTED = 64  # tuples in tuples
MOST_IN_TUPLE = 100_000  # elements, those of inner tuples counted as often as they stand there
COPIED = 16  # times the size of the file that its calls may be handed, in elements
COPIED_ANYWAY = 1 << 20
COPYABLE = (str, bytes, list, tuple, dict, set, frozenset)  # no call copies a tensor: it gives views of storages

_short = reprlib.Repr()
_short.maxlevel = 2


def short(value: Any) -> str:
    """What a value looks like, of bounded length, for an error message."""
    return _short.repr(value)


class _Checked:
    """A binary file that refuses to read beyond its end, before memory is taken for what is not there."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size

    def read(self, count: int = -1) -> bytes:
        if count > self.size - self.file.tell():
            raise RefusedWeightsError("it ends too early")
        return self.file.read(count)

    def readline(self) -> bytes:
        return self.file.readline()


class BoundedUnpickler(pickle._Unpickler):
    """Reads one pickle of a file of ``size`` bytes. Raises RefusedWeightsError for what would take too long."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(_Checked(file, size))
        self.left = COPIED * size + COPIED_ANYWAY
        self.tuples: dict[int, tuple[Any, int, int]] = {}  # id -> tuple (kept alive), elements, depth

    def spend(self, args: Any) -> None:
        """Account for what a call is handed, which it may copy."""
        self.left -= 1 + sum(len(item) for item in args if isinstance(item, COPYABLE))
        if self.left < 0:
            raise RefusedWeightsError("it copies itself again and again")

    def made(self, value: Any) -> None:
        """Account for a tuple: hashing one goes through all that stand in it."""
        elements, depth = len(value), 1
        for item in value:
            if type(item) is tuple and item:
                _, inner, below = self.tuples.get(id(item), (item, len(item), 1))
                elements, depth = elements + inner, max(depth, below + 1)
        if depth > MOST_NESTED or elements > MOST_IN_TUPLE:
            raise RefusedWeightsError("it nests tuples too deeply")
        self.tuples[id(value)] = (value, elements, depth)


def _tuple(load: Callable[[Any], None]) -> Callable[[BoundedUnpickler], None]:
    def bounded(self: BoundedUnpickler) -> None:
        load(self)
        self.made(self.stack[-1])  # type: ignore[attr-defined]

    return bounded


def _call(load: Callable[[Any], None], arguments: int) -> Callable[[BoundedUnpickler], None]:
    """``arguments``: how many values on top of the stack are a call's; 0: those since the mark."""

    def bounded(self: BoundedUnpickler) -> None:
        top = self.stack[-arguments:] if arguments else self.stack  # type: ignore[attr-defined]
        self.spend(top)
        for value in top:
            if arguments and isinstance(value, tuple):
                self.spend(value)
        load(self)
        if type(made := self.stack[-1]) is tuple:  # type: ignore[attr-defined]
            self.made(made)

    return bounded


def _refuse(self: BoundedUnpickler) -> None:
    raise RefusedWeightsError("it holds what no weights need: byte arrays or extensions")


for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    BoundedUnpickler.dispatch[_code[0]] = _tuple(BoundedUnpickler.dispatch[_code[0]])
for _code, _arguments in (
    (pickle.REDUCE, 1), (pickle.NEWOBJ, 1), (pickle.NEWOBJ_EX, 2), (pickle.INST, 0), (pickle.OBJ, 0)
):  # fmt: skip
    BoundedUnpickler.dispatch[_code[0]] = _call(BoundedUnpickler.dispatch[_code[0]], _arguments)
for _code in (
    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4
):  # fmt: skip
    BoundedUnpickler.dispatch[_code[0]] = _refuse
