"""The plug-in of a Dask worker that holds its `Agent`, and the task of some jobs, which waits for them.

Tasks hold no thread of Dask, so any ``dask worker`` serves, whatever its ``--nthreads``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from aupipe.errors import named
from aupipe.extract.executors import Attempt
from aupipe.extract.executors.cluster.agent import Agent
from aupipe.extract.executors.cluster.messages import PLUGIN, AgentMessage, Order, Refusal, opened, sealed
from aupipe.logs import log_to_stderr

if TYPE_CHECKING:
    from distributed import Worker

MANY = 1_000_000  # tasks that Dask runs at once: they only wait
# Milliseconds between two looks of a Dask worker at itself, for its dashboard: at its threads, its event loop (Dask
# logs a warning where two ticks are 3 s apart), its memory and network. At Dask's 10, 20 and 500 ms an idle worker
# wakes up 150 times a second for them.
SLOWED_MS = {"profile": 10_000.0, "profile-cycle": 10_000.0, "tick": 2_000.0, "ticks": 10_000.0, "monitor": 5_000.0}


class AgentPlugin(WorkerPlugin):
    """Sets up the `Agent` of a Dask worker. ``order`` is a sealed `Order`."""

    name = PLUGIN

    def __init__(self, order: bytes, topic: str) -> None:
        self.order, self.topic = order, topic
        self.agent: Agent | None = None
        self._numbers: dict[str, tuple[int, ...]] = {}  # key of a task -> numbers of its jobs
        self._periods_ms: dict[str, float] = {}  # what `SLOWED_MS` has replaced

    def setup(self, worker: Worker) -> None:
        """Start the agent. Never raises: what is wrong is told as a `Refusal`."""
        self._threads, worker.state.nthreads = worker.state.nthreads, MANY
        for name in SLOWED_MS.keys() & worker.periodic_callbacks.keys():
            callback = worker.periodic_callbacks[name]
            self._periods_ms[name], callback.callback_time = callback.callback_time, SLOWED_MS[name]

        def tell(message: AgentMessage) -> None:
            worker.log_event(self.topic, sealed(message))

        try:
            order: Order = opened(self.order)
        except Exception as error:  # a plug-in that is not installed here
            tell(Refusal(worker.address, socket.gethostname(), named(error)))
            return
        log_to_stderr(order.log_level)
        self.agent = Agent(order, worker.address, tell)

    def teardown(self, worker: Worker) -> Any:
        """End the worker processes."""
        worker.state.nthreads = self._threads
        for name, period_ms in self._periods_ms.items():
            if name in worker.periodic_callbacks:
                worker.periodic_callbacks[name].callback_time = period_ms
        if self.agent is not None:
            return asyncio.to_thread(self.agent.close)
        return None

    def transition(self, key: Any, start: str, finish: str, **more: Any) -> None:
        """Called by Dask for every change of a task: the jobs of one that is cancelled are abandoned."""
        if finish in ("cancelled", "released", "forgotten") and self.agent is not None:
            numbers = self._numbers.pop(key, ())
            if numbers:
                self.agent.abandon(numbers)

    async def run(self, key: str, jobs: Mapping[int, Attempt]) -> None:
        """Run jobs; the task with this key waits for them."""
        if self.agent is None or not key.startswith(f"{self.topic}-"):  # this machine refused, or it is another run's
            return
        self._numbers[key] = tuple(jobs)
        try:
            await asyncio.wrap_future(self.agent.submit(jobs))
        finally:
            self._numbers.pop(key, None)


async def run_jobs(content: bytes) -> None:
    """The task of some jobs: a sealed (key, `Attempt` by number). What becomes of each is told as an `AgentMessage`."""
    key, jobs = opened(content)
    plugin = get_worker().plugins.get(PLUGIN)
    if isinstance(plugin, AgentPlugin):
        await plugin.run(key, jobs)
