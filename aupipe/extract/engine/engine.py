"""One engine per process and device: `Engine.process` makes the missing items of one video."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.engine.batch_encoder import BatchEncoder
from aupipe.extract.engine.batch_size import BatchSizes
from aupipe.extract.engine.batcher import Batcher
from aupipe.extract.engine.device import Device
from aupipe.extract.engine.encode_video import encode_video
from aupipe.extract.engine.events import EngineEvent, EventSink
from aupipe.extract.engine.job_context import JobContext, failing
from aupipe.extract.engine.job_rows import ItemRows, JobRows
from aupipe.extract.engine.models import ModelCache
from aupipe.extract.engine.options import ThreadCounts
from aupipe.extract.engine.process_audio import process_audio
from aupipe.extract.engine.resources import Resources
from aupipe.extract.engine.results import JobResult
from aupipe.extract.engine.scan_video import SOUND, crops_to_keep, scan_video
from aupipe.extract.engine.tuning import Tuner
from aupipe.extract.media.clock import length_of
from aupipe.extract.memory import KEPT_ON_DEVICE_BYTES, Budget
from aupipe.extract.meter import Meter
from aupipe.extract.planning.features import FeatureSet
from aupipe.extract.planning.plan import Job
from aupipe.extract.versions import library_versions
from aupipe.store import Store


def ignore(event: EngineEvent) -> None:
    """The sink of who wants no events."""


@dataclass
class Engine:
    """Media in, published items out: models, batches and memory budgets of one process on one device.

    It knows nothing of processes, retries or progress. Use it as a context manager: its encoder threads end with it.
    """

    store: Store
    features: FeatureSet
    device: Device = field(default_factory=lambda: Device("cpu"))
    threads: ThreadCounts = field(default_factory=ThreadCounts)
    on_event: EventSink = ignore
    sizes: BatchSizes = field(default_factory=BatchSizes)
    meter: Meter = field(default_factory=Meter)
    compiled: bool = False  # encoders go through torch.compile
    sharing: int = 1  # processes on the device, this one too
    kept_on_device_bytes: int = KEPT_ON_DEVICE_BYTES

    def __post_init__(self) -> None:
        tuner = Tuner(self.device.name, self.sizes, self.compiled, self.sharing)
        models = ModelCache(self.features, self.device, tuner)
        batcher: Batcher[ItemRows] = Batcher(self.sizes.of)
        kept_on_device = Budget(self.kept_on_device_bytes)
        self.resources = Resources(models, batcher, self.meter, kept_on_device=kept_on_device)
        self._versions = library_versions()
        self._decoding = threading.Semaphore(self.threads.decoders)
        self._running: set[JobRows] = set()
        self._error: BaseException | None = None
        self._lock, self._warming = threading.Lock(), threading.Lock()
        self._audio = ThreadPoolExecutor(self.threads.encoders, "audio")
        encoder = BatchEncoder(batcher, models, self.sizes, self.meter)
        self._encoders = [
            threading.Thread(target=self._encode, args=(encoder,), name=f"encode-{number}", daemon=True)
            for number in range(self.threads.encoders)
        ]
        for thread in self._encoders:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; no job may be in `process`."""
        self.resources.batcher.close()
        for thread in self._encoders:
            thread.join()
        self._audio.shutdown()

    def process(self, job: Job) -> JobResult:
        """Make the items of a job, in the calling thread; returns when each is published or has failed.

        Any number of threads may call it. `ThreadCounts.decoders` of them decode at the same time; the others wait for
        their rows, or their turn: batches fill across jobs, so more callers than decoders make fuller batches of short
        clips. Pictures and sound that cannot be read, and encoders that break on them, fail their own items by name.

        Raises what no recording is the reason of: a full disk, missing weights, too little memory. What was not
        published by then is dropped.
        """
        visual = [item.spec.id for item in job.items if item.spec.modality == "visual"]
        with (
            self.device.active(),
            self.meter.job(job.video_id),
            self.meter.video(job.video_id),
            self._rows() as rows,
            self._sound() as sound,
        ):
            with self.resources.batcher.producing(visual):
                self._warm_up(job)
                with self._decoding:
                    context = self._context(job)
                    self._read(context, rows, sound)
            rows.finish()
        return context.ended()

    def sample_queues(self) -> None:
        """Note in the meter how full the queues are."""
        prefetched = self.resources.prefetched
        self.meter.filled = {
            "encode": self.resources.batcher.filled(),
            "decode": min(1.0, prefetched.acquired_bytes / prefetched.limit_bytes),
        }

    @contextmanager
    def _rows(self) -> Iterator[JobRows]:
        """The rows of a job under way; what is not published when it is left is dropped."""
        rows = JobRows(self.meter)
        with self._lock:
            if self._error is not None:
                raise self._error
            self._running.add(rows)
        try:
            yield rows
        finally:
            with self._lock:
                self._running.discard(rows)
            rows.discard()

    @contextmanager
    def _sound(self) -> Iterator[list[Future[None]]]:
        """The sound of a job under way; its end is waited for, however this is left."""
        sound: list[Future[None]] = []
        try:
            yield sound
        finally:
            wait(sound)
        for future in sound:
            future.result()

    def _warm_up(self, job: Job) -> None:
        with self._warming:
            if not self.resources.models.is_warm(job):
                with self.meter.timed("load"):
                    self.resources.models.warm_up(job)

    def _context(self, job: Job) -> JobContext:
        with self.meter.timed("decode"):  # what its sources are is read from them
            return JobContext(
                job,
                self.features,
                self.store,
                self._versions,
                self.resources.models.versions,
                self.on_event,
            )

    def _read(self, context: JobContext, rows: JobRows, sound: list[Future[None]]) -> None:
        """Decode a job's video: its sound begins when its clock is known, its pictures go to the encoders."""
        kept = crops_to_keep(context, self.resources)
        with failing(context, context.job.recordings, "visual", *SOUND):
            try:
                scan = scan_video(context, self.resources, kept, rows)
                context.result.frames, context.result.media_s = len(scan.clock), length_of(scan.clock)
                if context.open_items(context.job.recordings, *SOUND):
                    sound.append(self._audio.submit(self._process_audio, context, scan.clock, scan.publish_clock))
                encode_video(context, self.resources, scan, rows)
            finally:
                kept.drop()

    def _process_audio(
        self, context: JobContext, clock: NDArray[np.float64], publish_clock: Callable[[], None]
    ) -> None:
        with self.device.active(), self.meter.video(context.job.video_id, media_s=length_of(clock)):
            with self.meter.timed("write"):
                publish_clock()
            process_audio(context, self.resources, clock)

    def _encode(self, encoder: BatchEncoder) -> None:
        try:
            with self.device.active():
                encoder.run()
        except BaseException as error:
            self._abort(error)

    def _abort(self, error: BaseException) -> None:
        """Have every job under way, and every later one, raise an error."""
        with self._lock:
            self._error = self._error or error
            for rows in self._running:
                rows.abort(error)
        self.resources.batcher.abort(error)
