"""Jobs through the stages in this process, as a worker runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aupipe.extract.batchsize import BatchSizes
from aupipe.extract.job import Outcome
from aupipe.extract.line import Line
from aupipe.extract.loaded import Loaded
from aupipe.extract.means import Crew
from aupipe.extract.meter import Meter
from aupipe.extract.parts import Parts
from aupipe.extract.plan import Job
from aupipe.store import Store


def run_jobs(
    jobs: Sequence[Job],
    store: Store,
    parts: Parts,
    *,
    crew: Crew | None = None,
    batch: int = 0,
    on_frames: Callable[[int], None] = lambda n: None,
    meter: Meter | None = None,
    device: str = "cpu",
    frames_on: str = "",
    nvdec: bool = False,
    compiled: bool = False,
    kept_on_device: int = 1 << 30,
) -> list[Outcome]:
    """The outcomes in the order they came. Raises what stops a run. ``frames_on``: a torch device to decode to."""
    outcomes: list[Outcome] = []
    errors: list[BaseException] = []
    line = Line(
        store,
        Loaded(parts, device, frames_on, nvdec),
        {},
        outcomes.append,
        errors.append,
        crew=crew or Crew(2, 2),
        sizes=BatchSizes.on(device, batch),
        on_frames=on_frames,
        meter=meter or Meter(),
        compiled=compiled,
        kept_on_device=kept_on_device,
    )
    for job in jobs:
        line.submit(job)
    line.close()
    if errors:
        raise errors[0]
    return outcomes
