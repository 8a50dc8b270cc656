"""The plug-in of a Dask worker that holds its `Agent`, and the task of a job, which waits for it.

Tasks hold no thread of Dask, so any ``dask worker`` serves, whatever its ``--nthreads``.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from distributed import Status, WorkerPlugin, get_worker

from aupipe.extract.executors import Attempt
from aupipe.extract.executors.cluster.agent import Agent
from aupipe.extract.executors.cluster.messages import PLUGIN, AgentMessage, Order, Refusal, opened, sealed
from aupipe.logs import log_to_stderr

if TYPE_CHECKING:
    from distributed import Worker

MANY = 1_000_000  # tasks that Dask runs at once: they only wait


class AgentPlugin(WorkerPlugin):
    """Sets up the `Agent` of a Dask worker. ``order`` is a sealed `Order`."""

    name = PLUGIN

    def __init__(self, order: bytes, topic: str) -> None:
        self.order, self.topic = order, topic
        self.agent: Agent | None = None
        self._numbers: dict[str, int] = {}  # key of a task -> number of its job

    def setup(self, worker: Worker) -> None:
        """Start the agent. Never raises: what is wrong is told as a `Refusal`."""
        self._threads, worker.state.nthreads = worker.state.nthreads, MANY
        self._profiler = worker.periodic_callbacks.get("profile")
        if self._profiler is not None:  # 100 times a second it would look for threads of tasks, and these have none
            self._profiler.stop()

        def tell(message: AgentMessage) -> None:
            worker.log_event(self.topic, sealed(message))

        try:
            order: Order = opened(self.order)
        except Exception as error:  # a plug-in that is not installed here
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            tell(Refusal(worker.address, socket.gethostname(), reason))
            return
        log_to_stderr(order.log_level)
        self.agent = Agent(order, worker.address, tell)

    def teardown(self, worker: Worker) -> Any:
        """End the worker processes."""
        worker.state.nthreads = self._threads
        if self._profiler is not None and worker.status == Status.running:
            self._profiler.start()
        if self.agent is not None:
            return asyncio.to_thread(self.agent.close)
        return None

    def transition(self, key: Any, start: str, finish: str, **more: Any) -> None:
        """Called by Dask for every change of a task: one that is cancelled has nobody to wait for it."""
        if finish in ("cancelled", "released", "forgotten") and self.agent is not None:
            number = self._numbers.pop(key, None)
            if number is not None:
                self.agent.abandon(number)

    async def run(self, key: str, number: int, attempt: Attempt) -> None:
        """Run a job; the task with this key waits for it."""
        if self.agent is None or not key.startswith(f"{self.topic}-"):  # of another run
            return
        self._numbers[key] = number
        try:
            await asyncio.wrap_future(self.agent.submit(number, attempt))
        finally:
            self._numbers.pop(key, None)


async def run_job(content: bytes) -> None:
    """The task of one job: a sealed (key, number, `Attempt`). What becomes of it is told as an `AgentMessage`."""
    key, number, attempt = opened(content)
    plugin = get_worker().plugins.get(PLUGIN)
    if isinstance(plugin, AgentPlugin):
        await plugin.run(key, number, attempt)
