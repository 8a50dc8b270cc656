"""Jobs through an engine in this process, as a worker runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aupipe.extract.engine.batch_size import BatchSizes
from aupipe.extract.engine.device import Device
from aupipe.extract.engine.engine import Engine
from aupipe.extract.engine.events import EngineEvent, FramesDecoded
from aupipe.extract.engine.options import ThreadCounts
from aupipe.extract.engine.results import JobResult
from aupipe.extract.meter import Meter
from aupipe.extract.planning.features import FeatureSet
from aupipe.extract.planning.plan import Job
from aupipe.store import Store


def run_jobs(
    jobs: Sequence[Job],
    store: Store,
    features: FeatureSet,
    *,
    threads: ThreadCounts | None = None,
    batch: int = 0,
    callers: int = 4,
    on_frames: Callable[[int], None] = lambda n: None,
    meter: Meter | None = None,
    device: str = "cpu",
    frames_on: str = "",
    nvdec: bool = False,
    compiled: bool = False,
    kept_on_device: int = 1 << 30,
) -> list[JobResult]:
    """The results in the order they came. Raises what stops a run.

    ``callers``: threads that call the engine. ``frames_on``: a torch device to decode to.
    """

    def hear(event: EngineEvent) -> None:
        if isinstance(event, FramesDecoded):
            on_frames(event.count)

    results: list[JobResult] = []
    lock = threading.Lock()
    with Engine(
        store,
        features,
        Device(device, frames_on, nvdec),
        threads or ThreadCounts(2, 2),
        on_event=hear,
        sizes=BatchSizes.on(device, batch),
        meter=meter or Meter(),
        compiled=compiled,
        kept_on_device_bytes=kept_on_device,
    ) as engine:

        def process(job: Job) -> None:
            result = engine.process(job)
            with lock:
                results.append(result)

        with ThreadPoolExecutor(callers) as pool:
            for future in [pool.submit(process, job) for job in jobs]:
                future.result()
    return results
