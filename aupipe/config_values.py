"""A value of a configuration file, a variable or the command line, as the type of its field."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from aupipe.errors import UsageError
from aupipe.registry import nearest
from aupipe.tables import type_in_words


def coerce(raw: Any, hint: Any, folder: Path, what: str) -> Any:
    """``raw`` as the type of its field: strings become numbers, paths relative to ``folder`` become absolute.

    Raises UsageError, which begins with ``what``, for what is no such value.
    """
    if get_origin(hint) in (Union, types.UnionType):
        if raw is None:
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Literal:
        if raw not in get_args(hint):
            accepted = ", ".join(map(str, get_args(hint)))
            raise UsageError(f"{what} is {raw!r}.{nearest(str(raw), get_args(hint))} Accepted: {accepted}")
        return raw
    if get_origin(hint) is tuple:
        values = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(values, list | tuple):
            raise UsageError(f"{what} is {raw!r}: expected a list of names")
        return tuple(str(value).strip() for value in values if str(value).strip())
    if hint is Path:
        if not isinstance(raw, str | Path):
            raise UsageError(f"{what} is {raw!r}: expected a path")
        return (folder / Path(raw).expanduser()).absolute()
    try:
        if isinstance(raw, bool) or (hint is int and isinstance(raw, float) and raw != int(raw)):
            raise ValueError
        return hint(raw)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{what} is {raw!r}: expected {type_in_words(hint)}") from None
