"""The threads of one process: jobs go in, each stage has threads of its own, outcomes come out."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import is_out_of_memory
from aupipe.extract.encoders import Encode, rows_of
from aupipe.extract.engine.batch_size import CPU_BATCH, BatchSizes, one_prober, probe, remember, remembered
from aupipe.extract.engine.batcher import Batcher, BatchSlice, joined
from aupipe.extract.engine.item_writer import Sink
from aupipe.extract.engine.job_context import JobContext, JobResult, is_of_the_recording
from aupipe.extract.engine.models import ModelCache
from aupipe.extract.engine.options import ThreadCounts
from aupipe.extract.engine.process_audio import listen
from aupipe.extract.engine.process_video import Stages, film
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.memory import KEPT_ON_DEVICE_BYTES, Budget
from aupipe.extract.meter import Meter
from aupipe.extract.planning.plan import Job
from aupipe.store.base import ItemRecord, Store
from aupipe.types import FeatureSpec

log = logging.getLogger(__name__)

RESULTS = 8  # batches of rows that wait for the writer


@dataclass
class Line:
    """The stages of one process, running. `submit` jobs, hear of their outcomes, `close`.

    ``on_result`` hears of each job when its last item is published or has failed, ``on_error`` of what no
    recording is the reason of, after which nothing more happens. Both are called from the line's threads.
    """

    store: Store
    loaded: ModelCache
    versions: dict[str, str]
    on_result: Callable[[JobResult], None]
    on_error: Callable[[BaseException], None]
    crew: ThreadCounts = field(default_factory=ThreadCounts)
    sizes: BatchSizes = field(default_factory=BatchSizes)
    on_frames: Callable[[int], None] = lambda n: None
    on_published: Callable[[ItemRecord], None] = lambda record: None
    meter: Meter = field(default_factory=Meter)
    compiled: bool = False  # encoders go through torch.compile
    beside: int = 1  # processes on the device, this one too
    kept_on_device: int = KEPT_ON_DEVICE_BYTES

    def __post_init__(self) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._heard: queue.Queue[tuple[JobContext, NDArray[np.float64]] | None] = queue.Queue()
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=RESULTS)
        self._encoders: dict[str, Any] = {}  # feature id -> its function
        self._filming = 0  # jobs whose inputs may still come
        self._lock = threading.RLock()
        self._store_lock = threading.RLock()
        self._batches: Batcher[Sink] = Batcher(self._size_of)
        self._batches.flow(False)
        self._stages = Stages(self._batches, self._tasks.put, self.meter, kept_on_device=Budget(self.kept_on_device))
        self.loaded.on_load = self._settle
        crew = [("film", self._film)] * self.crew.decoders + [("encode", self._encode)] * self.crew.encoders
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"{name}-{number}", daemon=True)
            for number, (name, work) in enumerate([*crew, ("sound", self._listen), ("write", self._write)])
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Take on a job."""
        with self._lock:
            self._filming += 1
            self._batches.flow(True)
        self._jobs.put(job)

    def close(self) -> None:
        """Finish every job that was submitted, and end the threads."""
        by_name: dict[str, list[threading.Thread]] = {}
        for thread in self._threads:
            by_name.setdefault(thread.name.partition("-")[0], []).append(thread)
        for _ in by_name["film"]:
            self._jobs.put(None)
        _join(by_name["film"])
        self._heard.put(None)
        self._batches.close()
        _join(by_name["sound"] + by_name["encode"])
        self._tasks.put(None)
        _join(by_name["write"])

    def look(self) -> None:
        """Note how full the queues are."""
        self.meter.filled = {
            "encode": self._batches.filled(),
            "write": self._tasks.qsize() / RESULTS,
            "decode": min(1.0, self._stages.ring.acquired_bytes / self._stages.ring.limit_bytes),
        }

    # The threads ------------------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            with self.loaded.stream():
                work()
        except BaseException as error:
            self.on_error(error)

    def _film(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self.meter.video(job.video_id):
                self._film_one(job)
            with self._lock:
                self._filming -= 1
                self._batches.flow(self._filming > 0)

    def _film_one(self, job: Job) -> None:
        with self.meter.timed("decode"):  # what its sources are is read from them
            run = JobContext(
                job,
                self.store,
                self.loaded,
                self.on_frames,
                self.on_published,
                self.versions,
                JobResult(job),
                self._store_lock,
                self.on_result,
            )
        run.begin()

        def hear(clock: NDArray[np.float64]) -> None:
            run.begin()
            self._heard.put((run, clock))

        film(run, self._stages, hear)
        run.end()

    def _listen(self) -> None:
        while (heard := self._heard.get()) is not None:
            run, clock = heard
            with self.meter.video(run.job.video_id, media_s=float(clock[-1] - clock[0]) if len(clock) else 0.0):
                listen(run, self._stages, clock)
            run.end()

    def _write(self) -> None:
        while (task := self._tasks.get()) is not None:
            with self.meter.timed("write"):
                task()

    def _encode(self) -> None:
        """Begin each batch before the rows of the one before are waited for: a device then never waits for this."""
        late: _Begun | None = None
        while (batch := self._batches.take(wait=late is None)) is not None or late is not None:
            begun = self._begin(*batch) if batch is not None else None
            if late is not None:
                self._end(late)
            late = begun

    # Batches ----------------------------------------------------------------------------------------------------------

    def _size_of(self, feature: str) -> int:
        return self.sizes.of(feature)

    def _settle(self, spec: FeatureSpec, template: CropTemplate, encode: Encode) -> Encode:
        """Find the batch size of an encoder on a device, and compile it for that where asked to."""
        if self.loaded.device.startswith("cuda") and not self.sizes.fixed:
            self._probe(spec, template, encode)
        if not self.compiled:
            return encode
        from aupipe.extract.encoders.torch_compile import compiled

        made = compiled(encode, template.size_px, self.sizes.of(spec.id))
        if made is not encode:
            self.loaded.made_by[spec.id] = {"torch.compile": "inductor"}
        return made

    def _probe(self, spec: FeatureSpec, template: CropTemplate, encode: Encode) -> None:
        """Find the batch size of an encoder on this device, or remember it."""
        if not hasattr(encode, "start"):
            return
        import torch

        from aupipe.extract.gpu.transfer import empty_cache

        device = self.loaded.device
        key = f"{spec.key} {torch.cuda.get_device_name(device)} {spec.params.get('precision', 'float32')}"
        key += f" 1/{self.beside}" * (self.beside > 1)  # of its memory

        def run(count: int) -> None:
            encode(torch.zeros((count, template.size_px, template.size_px, 3), dtype=torch.uint8, device=device))

        with one_prober():  # the other processes of this device wait, and then remember
            size = remembered(key)
            if size is None:
                size = probe(run)
                empty_cache()
                if size:
                    remember(key, size)
                    log.info("%s: %d at a time", spec.name, size)
        self.sizes.set(spec.id, size or CPU_BATCH)

    def _begin(self, feature: str, parts: list[BatchSlice[Sink]]) -> _Begun | None:
        """Begin to encode a batch; None where that has failed, and has been dealt with."""
        item = parts[0].to.item
        encode, _ = self.loaded.encode(item.spec, item.encoder)
        # A device is given one size only: every size is a plan of its own, and rows may differ between sizes.
        padded = self.sizes.of(feature) if self.loaded.device != "cpu" else 0
        begun = _Begun(feature, parts, max(padded, sum(len(part.inputs) for part in parts)))
        try:
            with self.meter.timed("encode", begun.count):
                begun.rows = rows_of(encode, joined(parts, padded))
        except Exception as error:
            failure = error
        else:
            return begun
        self._failed(begun, failure)  # out here the error holds none of the memory it ran out of
        return None

    def _end(self, begun: _Begun) -> None:
        """Hand the rows of a batch on."""
        try:
            with self.meter.timed("encode"):
                rows = begun.rows()[: begun.count]
            if len(rows) != begun.count:
                raise ValueError(f"{begun.parts[0].to.item.spec.name}: {len(rows)} rows for {begun.count} inputs")
        except Exception as error:
            failure = error
        else:
            start = 0
            for part in begun.parts:
                stop = start + len(part.inputs)
                self._tasks.put(_task(part.to.give, part.first, rows[start:stop]))
                start = stop
            return
        self._failed(begun, failure)

    def _failed(self, begun: _Begun, error: Exception) -> None:
        """Try a batch again in smaller ones, or each recording's share by itself, so that only the guilty one fails."""
        feature, parts = begun.feature, begun.parts
        if is_out_of_memory(error) and begun.size > 1:
            error.__traceback__ = None  # which holds what was made before memory ran out
            if self.loaded.device != "cpu":
                from aupipe.extract.gpu.transfer import empty_cache

                empty_cache()
            size, fewer = self.sizes.halve(feature, begun.size)
            self._batches.resize(feature, size)
            if fewer:
                log.warning("%s: out of memory; %d at a time from now on", parts[0].to.item.spec.name, size)
            again = _split(parts, size)
        elif not is_of_the_recording(error):
            raise error
        elif len(parts) > 1:
            again = [[part] for part in parts]
        else:
            self._tasks.put(_task(parts[0].to.fail, error))
            return
        for some in again:
            if (begun_again := self._begin(feature, some)) is not None:
                self._end(begun_again)


@dataclass
class _Begun:
    """A batch whose rows are being made. ``size``: inputs and padding."""

    feature: str
    parts: list[BatchSlice[Sink]]
    size: int
    rows: Callable[[], NDArray[Any]] = field(init=False)

    @property
    def count(self) -> int:
        return sum(len(part.inputs) for part in self.parts)


def _split(parts: list[BatchSlice[Sink]], size: int) -> list[list[BatchSlice[Sink]]]:
    return [
        [BatchSlice(part.to, part.first + start, part.inputs[start : start + size])]
        for part in parts
        for start in range(0, len(part.inputs), size)
    ]


def _task(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
