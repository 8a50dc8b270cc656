"""Tables, as TOML or JSON gives them, to frozen dataclasses: unknown keys and wrong types are refused by name."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from aupipe.errors import UsageError
from aupipe.registry import nearest

T = TypeVar("T")


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass ``cls`` from a table as TOML or JSON gives it.

    Raises UsageError, beginning with ``where``, for a key the dataclass does not have (with the nearest it has), for a
    missing key, for a value of another type, and for what the dataclass itself refuses with a ValueError. Lists become
    tuples and whole numbers become floats where one is asked.
    """
    hints = get_type_hints(cls)
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
    except ValueError as error:  # what the dataclass itself checks
        raise UsageError(f"{where}: {error}") from error


def _fit(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type ``hint`` (of bool, int, float, str, tuple[x, ...], tuple[x, y], unions), or UsageError."""
    for option in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(option) is tuple and isinstance(value, list | tuple):
            inner = get_args(option)
            each = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
            if len(each) == len(value):
                return tuple(_fit(item, kind, where) for item, kind in zip(value, each, strict=True))
        elif get_origin(option) is Literal:
            if value in get_args(option):
                return value
            accepted = [str(name) for name in get_args(option)]
            raise UsageError(f"{where} is {value!r}.{nearest(str(value), accepted)} Accepted: {', '.join(accepted)}")
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif option in (bool, int, str) and type(value) is option:
            return value
    name = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
    raise UsageError(f"{where} = {value!r}: expected {name}")
