"""Rows as objects of other libraries, which are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError


def optional_package(name: str, what: str) -> Any:
    """A package that only ``what`` needs. Raises UsageError, saying what to install, where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UsageError(f"{what} needs {package}: pip install {package}") from None


def to_torch(rows: NDArray[Any], dtype: Any) -> Any:
    """A tensor (T, ...) over ``rows``, converted to ``dtype`` if one is given."""
    tensor = optional_package("torch", "to_torch").from_numpy(rows)
    return tensor if dtype is None else tensor.to(dtype)


def to_pandas(rows: NDArray[Any], times: NDArray[np.float64] | None, columns: Sequence[str] = ()) -> Any:
    """A data frame with a row per frame, indexed by ``times`` in s or by the frame's number.

    Columns have names where ``columns`` names the last axis of a row, else numbers. Of rows (T, N, D), such as those of
    the faces of a frame, ``x1_px_0`` is of the first.
    """
    pandas = optional_package("pandas", "to_pandas")
    index = pandas.RangeIndex(len(rows), name="frame") if times is None else pandas.Index(times, name="time")
    flat = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))  # (T, ...) -> (T, D)
    return pandas.DataFrame(flat, index=index, columns=_flat_names(rows.shape[1:], columns))


def _flat_names(shape: tuple[int, ...], columns: Sequence[str]) -> list[str] | None:
    """Names of the values of a row of this shape, None where there are none."""
    *outer, last = shape or (1,)
    if last != len(columns):
        return None
    return [f"{name}_{k}" for k in range(int(np.prod(outer))) for name in columns] if outer else list(columns)


def to_xarray(
    rows: NDArray[Any],
    times: NDArray[np.float64] | None,
    valid: NDArray[np.bool_],
    name: str,
    attributes: Mapping[str, Any],
    columns: Sequence[str] = (),
) -> Any:
    """A data array over ``rows`` (T, ...) with the dimension ``time`` and the coordinates ``valid`` and ``time``.

    ``columns``: names along the last axis, which is then called ``column``.
    """
    xarray = optional_package("xarray", "to_xarray")
    dims = ["time", *(f"dim_{axis}" for axis in range(1, rows.ndim))]
    coords: dict[str, Any] = {"valid": ("time", valid)}
    if rows.ndim > 1 and rows.shape[-1] == len(columns):
        dims[-1] = "column"
        coords["column"] = list(columns)
    if times is not None:
        coords["time"] = ("time", times, {"units": "s"})
    return xarray.DataArray(rows, coords, dims, name, attributes)
