"""Conversion of tables, as read from TOML or JSON, to frozen dataclasses, with checks of keys, types and ranges.

A field states its range in its type, ``size_px: Pixels`` or ``Annotated[int, Range(2, 64)]``; a field without one may
be any finite number.
"""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from aupipe.errors import UsageError
from aupipe.registry import nearest

T = TypeVar("T")

LARGEST = 2**53  # of integers without a range: a float does not represent all larger ones


@dataclass(frozen=True)
class Range:
    """The range of a number: ``low`` to ``high``, without the ends that are ``open``."""

    low: float
    high: float
    open: Literal["", "low", "high", "both"] = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open in ("low", "both") else value >= self.low
        return above and (value < self.high if self.open in ("high", "both") else value <= self.high)

    def describe(self, value: float) -> str:
        """The range as text; for a ``value`` below it, an upper limit of `FAR` or more is left out."""
        open_low, open_high = self.open in ("low", "both"), self.open in ("high", "both")
        low = f"{self.low:,.10g}"
        if self.high >= FAR and value <= self.low:
            return f"above {low}" if open_low else f"{low} or more"
        high = f"{'below ' if open_high else ''}{self.high:,.10g}"
        return f"above {low} and at most {high}" if open_low else f"{low} to {high}"


FAR = 1_000_000  # larger limits only exclude absurd values
Count = Annotated[int, Range(1, 1_000_000)]
Natural = Annotated[int, Range(0, 1_000_000)]
Pixels = Annotated[int, Range(1, 8192)]
Width = Annotated[int, Range(1, 65536)]  # of a layer
Layers = Annotated[int, Range(1, 1000)]
Hertz = Annotated[int, Range(1000, 1_000_000)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, open="high")]
Positive = Annotated[float, Range(0, 1_000_000, open="low")]
NotNegative = Annotated[float, Range(0, 1_000_000)]


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass ``cls`` from a table of TOML or JSON.

    Raises UsageError, starting with ``where``, for an unknown key (with the nearest known one), a missing key, a value
    of another type or out of its range, and a ValueError of the dataclass itself. Lists become tuples, and integers
    become floats, where the field has that type.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}: expected a table, not {reprlib.repr(table)}")
    hints = get_type_hints(cls, include_extras=True)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}.{nearest(key, known)} Known: {', '.join(sorted(known))}")
    for key, field in known.items():
        if key not in table and field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"{where}: the key {key!r} is missing")
    values = {key: _fit(value, hints[key], f"{where}: {key}") for key, value in table.items()}
    try:
        return cls(**values)
    except (ValueError, TypeError, ArithmeticError) as error:  # of the dataclass itself
        raise UsageError(f"{where}: {error}") from error


def check_range(value: Any, hint: Any, where: str) -> None:
    """Raises UsageError for a number out of the range of its annotated type."""
    if get_origin(hint) in (Union, types.UnionType) and value is not None:  # of one type and None
        hint = get_args(hint)[0]
    for limits in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(limits, Range) and value not in limits:
            raise UsageError(f"{where} = {reprlib.repr(value)}: expected {limits.describe(value)}")


def _fit(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type ``hint``, or UsageError.

    Types are bool, int, float, str, tuple[x, ...], tuple[x, y], dict[str, x], dataclasses, and unions of them.
    """
    if get_origin(hint) is Annotated:
        fitted = _fit(value, get_args(hint)[0], where)
        check_range(fitted, hint, where)
        return fitted
    if hint is Any:
        return value
    for option in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(option) is tuple and isinstance(value, list | tuple):
            inner = get_args(option)
            each = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
            if len(each) == len(value):
                return tuple(_fit(item, kind, where) for item, kind in zip(value, each, strict=True))
        elif get_origin(option) is dict and isinstance(value, Mapping):
            _, inner_type = get_args(option)
            return {str(key): _fit(item, inner_type, f"{where}.{key}") for key, item in value.items()}
        elif is_dataclass(option) and isinstance(option, type) and isinstance(value, Mapping):
            return build(option, value, where)
        elif get_origin(option) is Annotated:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return _fit(value, option, where)
        elif get_origin(option) is Literal:
            if isinstance(value, str | int) and value in get_args(option):
                return value
            accepted = [str(name) for name in get_args(option)]
            raise UsageError(
                f"{where} is {reprlib.repr(value)}.{nearest(str(value), accepted)} Accepted: {', '.join(accepted)}"
            )
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            if not abs(value) <= LARGEST or not math.isfinite(value):  # an integer may be too large for a float
                raise UsageError(f"{where} = {reprlib.repr(value)}: expected a finite number")
            return float(value)
        elif option in (bool, int, str) and type(value) is option:
            if option is int and abs(value) > LARGEST:
                raise UsageError(f"{where} = {reprlib.repr(value)}: expected a whole number of at most {LARGEST}")
            return value
    raise UsageError(f"{where} = {reprlib.repr(value)}: expected {type_in_words(hint)}")


def type_in_words(hint: Any) -> str:
    """What a value of a type is called in messages, such as ``a whole number``."""
    origin, inner = get_origin(hint), [one for one in get_args(hint) if one not in (Ellipsis, types.NoneType)]
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(type_in_words, inner)))
    if origin is Annotated:
        return type_in_words(inner[0])
    if origin is tuple:
        return f"a list, each {type_in_words(inner[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(hint, "a table")
