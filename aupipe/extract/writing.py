"""The last stage: rows of many recordings, in whatever order they come, into the store, whole items at a time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.job import OpenItem, Pass, failing_alone
from aupipe.store import ItemWriter

NAN_BYTES = 8 << 20  # of rows without a face, made at a time: hours without one are no reason to hold much


@dataclass
class Sink:
    """One feature of one recording being filled. Rows never given are NaN.

    The thread that makes inputs calls `expect`, which says for which rows; the writer's thread alone calls the rest.
    """

    run: Pass
    item: OpenItem
    shape: tuple[int, ...]  # of a row
    length: int  # of the recording
    began_s: float = field(default_factory=time.perf_counter)
    expected: int = 0  # inputs handed to the encoder so far
    total: int = -1  # inputs in all; known when the last has been handed over
    _index: list[NDArray[np.int64]] = field(default_factory=list)  # rows the inputs are of, as they were handed over
    _early: dict[int, NDArray[Any]] = field(default_factory=dict)  # first ordinal -> rows that others come before
    _given: int = 0
    _written: int = 0
    _writer: ItemWriter | None = None
    _over: bool = False

    def expect(self, index: NDArray[np.int64]) -> int:
        """Note that inputs of rows ``index`` (n,), rising and beyond all before, come next; the first's ordinal."""
        first, self.expected = self.expected, self.expected + len(index)
        if len(index):
            self._index.append(index)
        return first

    @property
    def dead(self) -> bool:
        """Nothing more is wanted: published, or failed for some reason."""
        return self._over or self.run.is_said(self.item)

    def give(self, first: int, rows: NDArray[Any]) -> None:
        """Write rows (n, ...) of the inputs from ordinal ``first`` on, or keep them until those before have come."""
        if self.dead:
            self._discard()
            return
        with failing_alone(self.run, self.item):
            if rows.shape[1:] != self.shape:
                raise RecordingError(f"{self.item.spec.name}: rows of shape {rows.shape[1:]}, expected {self.shape}")
            self._early[first] = rows
            while self._given in self._early:
                self._append(self._early.pop(self._given))
        self._end_if_whole()

    def finish(self) -> None:
        """No more inputs come; publish when the rows of the last have."""
        self.total = self.expected
        self._end_if_whole()

    def fail(self, error: Exception) -> None:
        """Give the item up."""
        if not self.dead:
            self.run.fail(self.item, error)
        self._end_if_whole()

    def abandon(self) -> None:
        """Let go of what was written: the recording has failed elsewhere."""
        self._discard()

    def _append(self, rows: NDArray[Any]) -> None:
        while len(rows):
            index = self._index[0]
            part, rows = rows[: len(index)], rows[len(index) :]
            if len(part) < len(index):
                self._index[0], index = index[len(part) :], index[: len(part)]
            else:
                self._index.pop(0)
            self._write(part, index)
            self._given += len(part)

    def _write(self, part: NDArray[Any], index: NDArray[np.int64]) -> None:
        """Rows ``index``, and NaN in those before them that have not been written; gaps of any length, in blocks."""
        stop = int(index[-1]) + 1
        if stop - self._written == len(part):
            self._open().append(part)
            self._written = stop
        elif stop - self._written <= self._block_rows:
            block = np.full((stop - self._written, *self.shape), np.nan, dtype=np.float32)
            block[index - self._written] = part
            self._open().append(block)
            self._written = stop
        else:
            for run in np.split(np.arange(len(part)), np.flatnonzero(np.diff(index) > 1) + 1):
                self._skip_to(int(index[run[0]]))
                self._open().append(part[run[0] : run[-1] + 1])
                self._written += len(run)

    def _skip_to(self, row: int) -> None:
        """Write NaN up to ``row``."""
        while self._written < row:
            count = min(self._block_rows, row - self._written)
            self._open().append(np.full((count, *self.shape), np.nan, dtype=np.float32))
            self._written += count

    @property
    def _block_rows(self) -> int:
        """How many rows of NaN are made at a time."""
        return max(1, NAN_BYTES // (4 * max(1, math.prod(self.shape))))

    def _open(self) -> ItemWriter:
        if self._writer is None:
            self._writer = self.run.writer(self.item, self.length, self.shape)
        return self._writer

    def _end_if_whole(self) -> None:
        if self._over:
            return
        if self.run.is_said(self.item):
            self._discard()
            return
        if self._given != self.total:
            return
        with failing_alone(self.run, self.item):
            self.run.confirm_source(self.item.recording, self.item.spec.modality)
            writer = self._open()
            self._skip_to(self.length)
            self.run.commit(writer, self.item.spec.modality, seconds=time.perf_counter() - self.began_s)
        self._discard()

    def _discard(self) -> None:
        if self._over:
            return
        self._over = True
        self._early.clear()
        self._index.clear()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(None, None, None)  # of a published item there is nothing left to discard
        self.run.end()
