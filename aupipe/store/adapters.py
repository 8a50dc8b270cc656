"""Rows as objects of other libraries, which are imported when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.registry import optional_package


def to_torch(rows: NDArray[Any], dtype: Any) -> Any:
    """A tensor (T, ...) over ``rows``, converted to ``dtype`` if one is given."""
    tensor = optional_package("torch", "to_torch").from_numpy(rows)
    return tensor if dtype is None else tensor.to(dtype)


def to_pandas(rows: NDArray[Any], times: NDArray[np.float64] | None, columns: Sequence[str]) -> Any:
    """A data frame with a row per frame, indexed by ``times`` in s or by the frame's number.

    ``columns``: names of the values of a row, flattened; without them, columns have numbers.
    """
    pandas = optional_package("pandas", "to_pandas")
    index = pandas.RangeIndex(len(rows), name="frame") if times is None else pandas.Index(times, name="time")
    return pandas.DataFrame(flat_rows(rows), index=index, columns=list(columns) or None)


def flat_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows (T, ...) as (T, D)."""
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))


def flat_names(shape: tuple[int, ...], columns: Sequence[str]) -> list[str]:
    """Names of the values of a row of this shape, flattened; none where ``columns`` does not name its last axis.

    Of rows (N, D), such as those of the faces of a frame, ``x1_px_0`` is of the first.
    """
    *outer, last = shape or (1,)
    if last != len(columns):
        return []
    return [f"{name}_{k}" for k in range(math.prod(outer)) for name in columns] if outer else list(columns)


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
    coords: dict[str, Any] = {"valid": ("time", valid)}
    if times is not None:
        coords["time"] = ("time", times, {"units": "s"})
    return _labelled(rows, "time", coords, name, attributes, columns)


def join_to_xarray(items: Sequence[Any], name: str, feature: str, columns: Sequence[str]) -> Any:
    """A data array over the rows of several items (`aupipe.store.view.ItemView`), one after another.

    The recording of a row is a number, since a text in each row would need far more memory than the other coordinates.
    """
    dask_array = optional_package("dask.array", "to_xarray")
    if not items:
        raise UsageError(f"{feature} has no items")
    names, frames = [item.record.recording for item in items], [len(item) for item in items]
    times = [item.known_times() for item in items]
    known = [np.full(n, np.nan) if t is None else t for n, t in zip(frames, times, strict=True)]
    coords: dict[str, Any] = {
        "recording": ("row", np.repeat(np.arange(len(items), dtype=np.int32), frames), {"names": names}),
        "frame": ("row", np.concatenate([np.arange(n) for n in frames])),
        "time": ("row", np.concatenate(known), {"units": "s"}),
        "valid": ("row", np.concatenate([item.valid for item in items])),
    }
    rows = dask_array.concatenate([item.dask() for item in items])
    return _labelled(rows, "row", coords, name, {"feature": feature}, columns)


def _labelled(
    rows: Any, dim: str, coords: dict[str, Any], name: str, about: Mapping[str, Any], columns: Sequence[str]
) -> Any:
    xarray = optional_package("xarray", "to_xarray")
    dims = [dim, *(f"dim_{axis}" for axis in range(1, rows.ndim))]
    if rows.ndim > 1 and rows.shape[-1] == len(columns):
        dims[-1] = "column"
        coords = coords | {"column": list(columns)}
    return xarray.DataArray(rows, coords, dims, name, about)
