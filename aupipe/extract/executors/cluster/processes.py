"""The worker processes that a run orders on a machine: those of an extraction, or of other work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aupipe.extract.executors import Executor
from aupipe.extract.executors.cluster.checks import work_content
from aupipe.extract.executors.cluster.messages import Order, WorkOrder
from aupipe.extract.executors.local import local_executor
from aupipe.extract.executors.work import WorkProcesses, visible


@dataclass(frozen=True)
class Capacity:
    """The number of worker processes (``slots``), and of the jobs they hold: ``least``, up to ``most`` short ones."""

    slots: int
    least: int
    most: int


def open_processes(order: Order, devices: Sequence[str]) -> tuple[Executor, Capacity]:
    """The worker processes on some torch devices of this machine, which start with the first job.

    Raises AupipeError where the work cannot be read, or its results not be written.
    """
    if order.work is not None:
        return _of_work(order, order.work, devices)
    executor = local_executor(order.features, Path(order.store), devices, order.options)
    environment = {**executor.config.environment, **order.environment}
    config = replace(executor.config, log_level=order.log_level, environment=environment)
    least = sum(slot.threads.decoders + 2 for slot in executor.slots)
    most = sum(slot.jobs for slot in executor.slots)
    return replace(executor, config=config), Capacity(len(executor.slots), min(least, most), most)


def _of_work(order: Order, work: WorkOrder, devices: Sequence[str]) -> tuple[Executor, Capacity]:
    """One item for each process and none ahead: it may take hours, and another machine may be free for it."""
    count = max(work.processes, len(devices))
    places = [visible(devices[number % len(devices)]) for number in range(count)]
    environments = [{**order.environment, **place} for place in places]
    return WorkProcesses(work_content(work), environments, order.log_level), Capacity(count, count, count)
