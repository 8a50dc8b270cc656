"""What the plug-in of aupipe changes in a Dask worker that it was lent, and puts back."""

from __future__ import annotations

from distributed import Client, LocalCluster, Worker

from aupipe.extract.executors.cluster.messages import PLUGIN
from aupipe.extract.executors.cluster.plugin import MANY, SLOWED_MS, AgentPlugin


def settings(worker: Worker) -> dict[str, float]:
    """What a run may change: the number of tasks at once, and the milliseconds between periodic calls."""
    periods = {name: callback.callback_time for name, callback in worker.periodic_callbacks.items()}
    del periods["heartbeat"]  # the scheduler sets it
    return {"threads": worker.state.nthreads, **periods}


def test_a_dask_worker_looks_at_itself_less_often_during_a_run_and_as_before_afterwards() -> None:
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        (worker,) = cluster.workers.values()
        before = settings(worker)
        client.register_plugin(AgentPlugin(b"no order", "aupipe-test"), name=PLUGIN)
        during = settings(worker)
        assert during == before | SLOWED_MS | {"threads": MANY}
        assert all(callback.is_running() for callback in worker.periodic_callbacks.values())
        client.unregister_worker_plugin(PLUGIN)
        assert settings(worker) == before
