"""Rows are checked here, and only here, before they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = ("float16", "float32", "float64", "uint8")
_BITS: dict[int, tuple[Any, Any, int]] = {  # itemsize: signed and unsigned integers, the bits of infinity
    2: (np.int16, np.uint16, 0x7C00),
    4: (np.int32, np.uint32, 0x7F800000),
    8: (np.int64, np.uint64, 0x7FF << 52),
}
BLOCK_BYTES = 1 << 20  # rows are checked, summed and written in pieces that fit into the processor's cache


def _all_finite(rows: NDArray[Any]) -> bool:
    """`np.isfinite(rows).all()` by the bits of the values: numpy takes 25 times longer for float16.

    The largest bits as signed integers are those of the largest positive value, as unsigned integers those of the most
    negative one.
    """
    signed, unsigned, infinity = _BITS[rows.dtype.itemsize]
    if not rows.size:
        return True
    negative_infinity = infinity + (1 << (8 * rows.dtype.itemsize - 1))
    return int(rows.view(signed).max()) < infinity and int(rows.view(unsigned).max()) < negative_infinity


def stored_dtype(name: str) -> np.dtype[Any]:
    """The little-endian dtype a feature is stored in. Raises ValueError for any other."""
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r}: a feature is stored as one of {', '.join(DTYPES)}")
    return np.dtype(name).newbyteorder("<")


def row_blocks(shape: tuple[int, ...], dtype: Any) -> Iterator[tuple[int, int]]:
    """Half-open ranges of rows of an array (T, ...), 16 MiB each, to copy it piece by piece."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
    step = max(1, 16 * BLOCK_BYTES // row_bytes)
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def padding_value(dtype: np.dtype[Any]) -> float | int:
    """What stands in rows without data: NaN, and 0 in a dtype that has none."""
    return np.nan if dtype.kind == "f" else 0


def checked_rows(
    rows: NDArray[Any], dtype: np.dtype[Any], where: str, first_row: int = 0
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Rows (n, ...) in ``dtype``, C order, with `padding_value` in every invalid row; and (n,) which are valid.

    Raises ValueError, naming ``where`` and the row, for rows that are NaN in part or infinite, and for finite values
    that ``dtype`` cannot hold.
    """
    if dtype.kind == "u":
        return _checked_integers(rows, dtype, where, first_row)
    with np.errstate(over="ignore"):  # an overflow is an error below, which names the row
        cast = np.ascontiguousarray(rows, dtype=dtype)
    if _all_finite(cast):
        return cast, np.ones(len(cast), bool)
    flat = cast.reshape(len(cast), -1)  # (n, ...) -> (n, D)
    nan = np.isnan(flat)
    invalid = nan.all(axis=1)
    infinite = np.isinf(flat)
    bad = infinite.any(axis=1) | (nan.any(axis=1) & ~invalid)
    if bad.any():
        row = int(np.argmax(bad))
        at = f"{where}, row {first_row + row}"
        if infinite[row].any():
            column = int(np.argmax(infinite[row]))
            value = np.asarray(rows[row]).reshape(-1)[column]
            if np.isfinite(value):
                limit = np.finfo(dtype).max
                raise ValueError(f"{at}: {value:g} does not fit {dtype.name} (limit {limit:g}); use dtype 'float32'")
            raise ValueError(f"{at}: infinite value; make the row NaN if it is invalid")
        raise ValueError(f"{at}: NaN in part of the row; an invalid row is NaN in every element")
    if np.shares_memory(cast, rows):
        cast = cast.copy()
    cast[invalid] = np.nan  # one bit pattern, so that equal rows are equal bytes
    return cast, ~invalid


def _checked_integers(
    rows: NDArray[Any], dtype: np.dtype[Any], where: str, first_row: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """As `checked_rows`, for whole numbers; rows of ``dtype`` itself are all valid."""
    if rows.dtype == dtype:
        return np.ascontiguousarray(rows), np.ones(len(rows), bool)
    flat = rows.reshape(len(rows), -1)  # (n, ...) -> (n, D)
    nan = np.isnan(flat)
    invalid = nan.all(axis=1)
    with np.errstate(invalid="ignore"):  # NaN and infinity have no integer
        cast = np.ascontiguousarray(rows).astype(dtype)
        wrong = (cast.reshape(flat.shape) != flat) & ~invalid[:, None]
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        at, value = f"{where}, row {first_row + row}", flat[row, column]
        if np.isnan(value):
            raise ValueError(f"{at}: NaN in part of the row; an invalid row is NaN in every element")
        raise ValueError(f"{at}: {value:g} does not fit {dtype.name}: whole numbers from 0 to {np.iinfo(dtype).max}")
    cast[invalid] = 0
    return cast, ~invalid
