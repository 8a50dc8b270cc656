"""Batches of windows as plain loops make them: what both loaders are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.train.batch import empty_rows, fill
from aupipe.train.data import Example, Scaling, columns
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
