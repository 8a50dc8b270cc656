"""Rows of one job's items, in whatever order the encoders give them, into the store, whole items at a time."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.engine.job_context import JobContext, OpenItem, failing_alone
from aupipe.extract.engine.results import is_of_the_recording
from aupipe.extract.meter import Meter
from aupipe.store import ItemWriter

NAN_BYTES = 8 << 20  # of rows without a face, made at a time: hours without one are no reason to hold much


class JobRows:
    """The items of one job whose rows come from encoders.

    Encoder threads call `ItemRows.deliver` and `ItemRows.fail`; the thread of the job alone calls the rest, and writes.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._first: list[Callable[[], None]] = []
        self._items: list[ItemRows] = []
        self._arrived: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()

    def add(self, context: JobContext, item: OpenItem, row_shape: tuple[int, ...], length: int) -> ItemRows:
        """An item of ``length`` rows of this shape; rows that are never given are NaN."""
        self._items.append(ItemRows(context, item, row_shape, length, self._arrived))
        return self._items[-1]

    def publish_first(self, publish: Callable[[], None]) -> None:
        """Have `finish` publish something before any item of these: what they are computed from."""
        self._first.append(publish)

    def write_arrived(self) -> None:
        """Write the rows that are there; never blocks on an encoder, and publishes nothing."""
        while not self._arrived.empty():
            self._write(self._arrived.get())

    def finish(self) -> None:
        """Write rows until every item is published or has failed. Raises what no recording is the reason of."""
        for publish in self._first:
            with self._meter.timed("write"):
                publish()
        for item in self._items:
            self._end_if_whole(item)
        while not all(item.is_over for item in self._items):
            written = self._write(self._arrived.get())
            if written is not None:
                self._end_if_whole(written)

    def abort(self, error: BaseException) -> None:
        """Have `finish` raise this error; any thread may call it."""
        self._arrived.put(_Arrival(None, 0, error))

    def discard(self) -> None:
        """Drop what is not published."""
        for item in self._items:
            item.discard()

    def _write(self, arrival: _Arrival) -> ItemRows | None:
        if isinstance(arrival.rows, BaseException):
            if arrival.item is None or not is_of_the_recording(arrival.rows):
                raise arrival.rows
            arrival.item.give_up(arrival.rows)
        elif arrival.item is not None and not arrival.item.is_over:
            with self._meter.timed("write"):
                arrival.item.write(arrival.first, arrival.rows)
        return arrival.item

    def _end_if_whole(self, item: ItemRows) -> None:
        with self._meter.timed("write"):
            item.end_if_whole()


@dataclass(frozen=True)
class _Arrival:
    item: ItemRows | None
    first: int
    rows: Any  # or the error in their place


@dataclass
class ItemRows:
    """One feature of one recording being filled."""

    context: JobContext
    item: OpenItem
    shape: tuple[int, ...]  # of a row
    length: int  # of the recording
    arrived: queue.SimpleQueue[_Arrival]
    began_s: float = field(default_factory=time.perf_counter)
    expected: int = 0  # inputs handed to the encoder so far
    is_fed: bool = False  # the last input has been handed over
    is_over: bool = False  # published, failed or discarded
    _index: list[NDArray[np.int64]] = field(default_factory=list)  # rows the inputs are of, as they were handed over
    _early: dict[int, NDArray[Any]] = field(default_factory=dict)  # first ordinal -> rows that others come before
    _given: int = 0
    _written: int = 0
    _writer: ItemWriter | None = None

    # Called by encoder threads

    def deliver(self, first: int, rows: NDArray[Any]) -> None:
        """Rows (n, ...) of the inputs from ordinal ``first`` on."""
        self.arrived.put(_Arrival(self, first, rows))

    def fail(self, error: BaseException) -> None:
        """The inputs cannot be encoded."""
        self.arrived.put(_Arrival(self, 0, error))

    # Called by the thread of the job

    def expect(self, index: NDArray[np.int64]) -> int:
        """Note that inputs of rows ``index`` (n,), rising and beyond all before, come next; the first's ordinal."""
        first, self.expected = self.expected, self.expected + len(index)
        if len(index):
            self._index.append(index)
        return first

    @property
    def is_resolved(self) -> bool:
        """Nothing more is wanted: published, or failed for some reason."""
        return self.is_over or self.context.is_resolved(self.item)

    def write(self, first: int, rows: NDArray[Any]) -> None:
        """Write rows (n, ...) of the inputs from ordinal ``first`` on, or keep them until those before have come."""
        if self.is_resolved:
            self.discard()
            return
        with failing_alone(self.context, self.item):
            if rows.shape[1:] != self.shape:
                raise RecordingError(f"{self.item.spec.name}: rows of shape {rows.shape[1:]}, expected {self.shape}")
            self._early[first] = rows
            while self._given in self._early:
                self._append(self._early.pop(self._given))

    def give_up(self, error: BaseException) -> None:
        """Fail the item."""
        if not self.is_resolved:
            self.context.fail(self.item, error)
        self.discard()

    def end_if_whole(self) -> None:
        """Publish the item when all its rows are written."""
        if self.is_over:
            return
        if self.context.is_resolved(self.item):
            self.discard()
            return
        if not self.is_fed or self._given != self.expected:
            return
        with failing_alone(self.context, self.item):
            self.context.confirm_source(self.item.recording, self.item.spec.modality)
            writer = self._open()
            self._skip_to(self.length)
            self.context.commit(writer, self.item.spec.modality, seconds=time.perf_counter() - self.began_s)
        self.discard()

    def discard(self) -> None:
        """Drop what is not published; of a published item there is nothing to drop."""
        self.is_over = True
        self._early.clear()
        self._index.clear()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(None, None, None)

    def _append(self, rows: NDArray[Any]) -> None:
        while len(rows):
            index = self._index[0]
            block, rows = rows[: len(index)], rows[len(index) :]
            if len(block) < len(index):
                self._index[0], index = index[len(block) :], index[: len(block)]
            else:
                self._index.pop(0)
            self._write(block, index)
            self._given += len(block)

    def _write(self, block: NDArray[Any], index: NDArray[np.int64]) -> None:
        """Rows ``index``, and NaN in those before them that have not been written; gaps of any length, in blocks."""
        stop = int(index[-1]) + 1
        if stop - self._written == len(block):
            self._open().append(block)
            self._written = stop
        elif stop - self._written <= self._block_rows:
            filled = np.full((stop - self._written, *self.shape), np.nan, dtype=np.float32)
            filled[index - self._written] = block
            self._open().append(filled)
            self._written = stop
        else:
            for run in np.split(np.arange(len(block)), np.flatnonzero(np.diff(index) > 1) + 1):
                self._skip_to(int(index[run[0]]))
                self._open().append(block[run[0] : run[-1] + 1])
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
            self._writer = self.context.writer(self.item, self.length, self.shape)
        return self._writer
