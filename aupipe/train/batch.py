"""Batches of windows: rows read from the store, concatenated and standardised. numpy only.

Columns of a row: the features one after another (standardised, 0 where a feature has no row for the frame), then one
presence column per feature (1 where it has one). A frame without a face keeps its row, and the head can see that the
face is missing. Features that are not standardised, such as crops, are no columns: they lie beside, as they are stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.train.data import Example, Scaling, centred_rows, columns, read_rows
from aupipe.types import Window


@dataclass(frozen=True)
class Batch:
    """``x`` float32 (B, T, D), ``mask`` (B, T) False at padding, ``targets`` and ``valid`` (B, T, K) if labelled.

    ``scored`` (B, T): False at padding and at context, where nothing is ``valid``. ``times`` (B, T) in s, inf at
    padding, where they are asked for. ``raw``: (B, T, d) of each feature that is not standardised, in its own dtype, 0
    where it has no row.
    """

    x: NDArray[np.float32]
    mask: NDArray[np.bool_]
    targets: NDArray[np.float32]
    valid: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    times: NDArray[np.float64] | None = None
    raw: tuple[NDArray[Any], ...] = ()


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


def collate(examples: Mapping[str, Example], windows: Sequence[Window], scaling: Scaling, timed: bool = False) -> Batch:
    """A batch of windows with their context; shorter ones are padded at their end with zeros, masked and invalid."""
    longest = max(window.before + len(window) + window.after for window in windows)
    one = examples[windows[0].recording]
    targets = one.targets.shape[1]
    batch = Batch(
        x=np.zeros((len(windows), longest, columns(one.dims, scaling.unscaled)), dtype=np.float32),
        mask=np.zeros((len(windows), longest), dtype=bool),
        targets=np.zeros((len(windows), longest, targets), dtype=np.float32),
        valid=np.zeros((len(windows), longest, targets), dtype=bool),
        scored=np.zeros((len(windows), longest), dtype=bool),
        times=np.full((len(windows), longest), np.inf) if timed else None,
        raw=tuple(empty_rows(one, scaling.unscaled, (len(windows), longest))),
    )
    for row, window in enumerate(windows):
        example, first, last = examples[window.recording], window.start - window.before, window.stop + window.after
        read, scored = slice(0, last - first), slice(window.before, window.before + len(window))
        fill(example, first, last, scaling, batch.x[row, read], [own[row, read] for own in batch.raw])
        batch.mask[row, read] = True
        batch.scored[row, scored] = True
        batch.targets[row, read] = example.targets[first:last]
        batch.valid[row, scored] = example.valid[window.start : window.stop]
        if batch.times is not None:
            batch.times[row, read] = example.times[first:last]
    return batch
