"""Long sound in equal windows: overlap, compute, keep the middles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.media.long_arrays import ArrayBuilder, cut


class Slice(NamedTuple):
    """One window of rows [start, start + length), of which [keep, keep_stop) are kept; all counted from row 0."""

    start: int
    keep: int
    keep_stop: int


def slices(rows: int, length: int, context: int) -> list[Slice]:
    """Windows of ``length`` rows that cover ``rows``, each kept but for ``context`` rows towards its neighbours.

    All windows are equally long, so that they go through a network together without padding or masks: the last one is
    moved back to end with the sound. Every row is kept exactly once.
    """
    if length <= 2 * context:
        raise ValueError(f"{length = } rows leaves nothing between two contexts of {context}")
    if rows <= length:
        return [Slice(0, 0, rows)]
    found = []
    kept = 0
    for start in range(0, rows, length - 2 * context):
        last = start + length >= rows
        start = rows - length if last else start
        stop = rows if last else start + length - context
        found.append(Slice(start, kept, stop))
        kept = stop
        if last:
            break
    return found


def slide(
    rows: int,
    length: int,
    context: int,
    batch: int,
    compute: Callable[[list[int]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """(rows, D) from ``compute``, which maps starts of windows, at most ``batch``, to (b, length, D)."""
    out = ArrayBuilder()
    for group in _groups(slices(rows, length, context), batch):
        found = compute([window.start for window in group])
        for window, values in zip(group, found, strict=True):
            kept = values[window.keep - window.start : window.keep_stop - window.start]
            out.append(kept.astype(np.float32))
    return out.array()


def _groups(windows: list[Slice], batch: int) -> Iterator[list[Slice]]:
    for first in range(0, len(windows), batch):
        yield windows[first : first + batch]


def moments(samples: NDArray[np.float32], block: int = 1 << 20) -> tuple[float, float]:
    """Mean and variance of sound of any length, in float64, without a copy of it."""
    n = max(len(samples), 1)
    starts = range(0, len(samples), block)

    def blocks() -> Iterator[NDArray[np.float32]]:
        return (cut(samples, start, min(start + block, len(samples))) for start in starts)

    mean = sum(float(part.sum(dtype=np.float64)) for part in blocks()) / n
    return mean, sum(float(np.square(part - np.float64(mean)).sum()) for part in blocks()) / n
