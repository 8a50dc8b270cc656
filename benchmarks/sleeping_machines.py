"""Machines of a Dask cluster whose worker processes sleep as long as a job takes, for `benchmarks/cluster_live.py`.

All but the computation is real: the agent, its thread, its checks of the videos, its messages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aupipe.extract.engine.events import FramesDecoded, ItemPublished
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import Attempt, ExecutorEvent, JobEnded
from aupipe.extract.executors.cluster import plugin
from aupipe.extract.executors.cluster.agent import Agent
from aupipe.extract.executors.cluster.messages import Hello
from aupipe.extract.executors.local import POLL_S
from aupipe.store import ItemRecord

BYTES_PER_S = 1_000_000  # of video
AT_ONCE, LEAST, MOST = 1, 3, 12  # jobs that run on a machine, and that it holds


@dataclass
class SleepingExecutor:
    """Ends each job after its time, and publishes what it was asked for in name only."""

    running: list[tuple[float, Attempt]] = field(default_factory=list)  # with the second at which each ends
    waiting: list[Attempt] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether any job is under way."""
        return bool(self.running)

    def has_slot(self, size_bytes: int = 0, alone: bool = False) -> bool:
        """Whether a job can be assigned now."""
        return len(self.running) + len(self.waiting) < MOST

    def assign(self, attempt: Attempt) -> None:
        """Begin a job, or have it wait."""
        self.waiting.append(attempt)
        self._start(time.monotonic())

    def _start(self, now_s: float) -> None:
        while self.waiting and len(self.running) < AT_ONCE:
            attempt = self.waiting.pop(0)
            self.running.append((now_s + attempt.size_bytes / BYTES_PER_S, attempt))

    def poll(self) -> Iterator[ExecutorEvent]:
        """Sleep until a job ends, at most as long as the executor of real processes waits."""
        now_s = time.monotonic()
        time.sleep(max(0.0, min(min(end_s for end_s, _ in self.running) - now_s, POLL_S)))
        now_s = time.monotonic()
        for each in [each for each in self.running if each[0] <= now_s]:
            self.running.remove(each)
            self._start(each[0])
            job = each[1].job
            yield FramesDecoded(100)
            for item in job.items:
                yield ItemPublished(ItemRecord(item.key, item.spec.id, "done", 100, 100, (100, 8), "float16", 2000))
            yield JobEnded(each[1], JobResult(job.video_id, 100, 4.0, {job.video_id: 100}, seconds=1.0))

    def shutdown(self) -> Iterator[ExecutorEvent]:
        """End; there are no processes."""
        yield from ()

    def kill_all(self) -> None:
        """End; there are no processes."""
        self.running.clear()


class SleepingAgent(Agent):
    """The agent of a machine with such an executor."""

    def _open(self) -> None:
        self._executor = SleepingExecutor()
        self._hello = Hello(self.address, self.address, (), AT_ONCE, LEAST, MOST)


class SleepingPlugin(plugin.AgentPlugin):
    """The plug-in that starts such an agent."""

    def setup(self, worker: Any) -> None:
        """As `AgentPlugin` does."""
        plugin.Agent = SleepingAgent  # type: ignore[misc]
        super().setup(worker)
