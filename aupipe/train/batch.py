"""The rows of windows: read from the store, concatenated and standardised. numpy only.

Columns of a row: the features one after another (standardised, 0 where a feature has no row for the frame), then one
presence column per feature (1 where it has one). A frame without a face keeps its row, and the head can see that the
face is missing. Features that are not standardised, such as crops, are no columns: they lie beside, as they are stored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.train.data import Example, Scaling, centred_rows, read_rows


def fill(
    example: Example,
    start: int,
    stop: int,
    scaling: Scaling,
    out: NDArray[np.float32],
    raw: Sequence[NDArray[Any]] = (),
) -> None:
    """Write the standardised rows [start, stop) into ``out`` (stop - start, D), the others into ``raw`` as stored."""
    for own, i in zip(raw, sorted(scaling.unscaled), strict=True):
        own[...] = example.arrays[i][start:stop].reshape(own.shape)
        own[~example.present[start:stop, i]] = 0
    at = column = 0  # in mean and std, and in ``out``
    for i, dim in enumerate(example.dims):
        if i in scaling.unscaled:
            at += dim
            continue
        rows = read_rows(example, i, start, stop, scaling.center)
        absent = ~example.present[start:stop, i]
        if scaling.absent == "nearest" and absent.any():
            nearest = example.nearest[start:stop, i]
            replaced = np.flatnonzero(absent & (nearest >= 0))
            if len(replaced):
                rows[replaced] = centred_rows(example, i, example.arrays[i][nearest[replaced]], scaling.center)
                absent[replaced] = False
        rows -= scaling.mean[at : at + dim]
        rows /= scaling.std[at : at + dim]
        if scaling.clip:
            np.clip(rows, -scaling.clip, scaling.clip, out=rows)
        rows[absent] = 0.0
        out[:, column : column + dim] = rows
        at, column = at + dim, column + dim
    out[:, column:] = example.present[start:stop]


def empty_rows(example: Example, unscaled: Collection[int], shape: Sequence[int]) -> list[NDArray[Any]]:
    """An array (*shape, d) of zeros for each of the ``unscaled`` features, in the dtype in which it is stored."""
    return [np.zeros((*shape, example.dims[i]), example.arrays[i].dtype) for i in sorted(unscaled)]
