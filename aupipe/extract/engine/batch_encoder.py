"""Batches through encoders: begun, waited for, handed to their recordings; tried again in part when they fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from aupipe.errors import is_out_of_memory
from aupipe.extract.encoders import rows_of
from aupipe.extract.engine.batch_size import BatchSizes
from aupipe.extract.engine.batcher import Batcher, BatchSlice, joined
from aupipe.extract.engine.job_rows import ItemRows
from aupipe.extract.engine.models import ModelCache
from aupipe.extract.engine.results import is_of_the_recording
from aupipe.extract.meter import Meter

log = logging.getLogger(__name__)


@dataclass
class _Begun:
    """A batch whose rows are being made. ``size``: inputs and padding."""

    feature: str
    slices: list[BatchSlice[ItemRows]]
    size: int
    rows: Callable[[], NDArray[Any]] = field(init=False)

    @property
    def count(self) -> int:
        return sum(len(one.inputs) for one in self.slices)


@dataclass
class BatchEncoder:
    """Takes batches from a batcher until it is closed. `run` is called by every encoder thread of an engine."""

    batcher: Batcher[ItemRows]
    models: ModelCache
    sizes: BatchSizes
    meter: Meter

    def run(self) -> None:
        """Begin each batch before the rows of the one before are waited for: a device then never waits for the host.

        Raises what no recording is the reason of.
        """
        previous: _Begun | None = None
        while (batch := self.batcher.take(wait=previous is None)) is not None or previous is not None:
            begun = self._begin(*batch) if batch is not None else None
            if previous is not None:
                self._end(previous)
            previous = begun

    def _begin(self, feature: str, slices: list[BatchSlice[ItemRows]]) -> _Begun | None:
        """Begin to encode a batch; None where that has failed, and has been dealt with."""
        # A device is given one size only: every size is a plan of its own, and rows may differ between sizes.
        padded = self.sizes.of(feature) if self.models.device.name != "cpu" else 0
        begun = _Begun(feature, slices, max(padded, sum(len(one.inputs) for one in slices)))
        item = slices[0].to.item
        try:
            encode = self.models.encoder(item.spec, item.encoder).encode
            with self.meter.timed("encode", begun.count):
                begun.rows = rows_of(encode, joined(slices, padded))
        except Exception as error:
            failure = error
        else:
            return begun
        self._failed(begun, failure)  # out here the error holds none of the memory it ran out of
        return None

    def _end(self, begun: _Begun) -> None:
        """Wait for the rows of a batch and hand them on."""
        try:
            with self.meter.timed("encode"):
                rows = begun.rows()[: begun.count]
            if len(rows) != begun.count:
                raise ValueError(f"{begun.slices[0].to.item.spec.name}: {len(rows)} rows for {begun.count} inputs")
        except Exception as error:
            failure = error
        else:
            start = 0
            for one in begun.slices:
                stop = start + len(one.inputs)
                one.to.deliver(one.first, rows[start:stop])
                start = stop
            return
        self._failed(begun, failure)

    def _failed(self, begun: _Begun, error: Exception) -> None:
        """Try a batch again in smaller ones, or each recording's share alone: only the one that breaks it fails."""
        feature, slices = begun.feature, begun.slices
        if is_out_of_memory(error) and begun.size > 1:
            error.__traceback__ = None  # which holds what was made before memory ran out
            if self.models.device.name != "cpu":
                from aupipe.extract.gpu.transfer import empty_cache

                empty_cache()
            size, fewer = self.sizes.halve(feature, begun.size)
            self.batcher.resize(feature, size)
            if fewer:
                log.warning("%s: out of memory; %d at a time from now on", slices[0].to.item.spec.name, size)
            again = _split(slices, size)
        elif not is_of_the_recording(error):
            raise error
        elif len(slices) > 1:
            again = [[one] for one in slices]
        else:
            slices[0].to.fail(error)
            return
        for some in again:
            if (begun_again := self._begin(feature, some)) is not None:
                self._end(begun_again)


def _split(slices: list[BatchSlice[ItemRows]], size: int) -> list[list[BatchSlice[ItemRows]]]:
    return [
        [BatchSlice(one.to, one.first + start, one.inputs[start : start + size])]
        for one in slices
        for start in range(0, len(one.inputs), size)
    ]
