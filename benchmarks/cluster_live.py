"""How busy a run keeps the machines of a real Dask cluster, and what a job costs it, on one computer.

    python benchmarks/cluster_live.py [--machines 64] [--jobs 5000] [--rate 19]

The scheduler, the Dask workers and their agents, the driver loop and its executor are the real ones, each Dask worker
in a process of its own; only the worker processes of the agents are replaced, by ones that sleep as long as their job
would take (`sleeping_machines.py`). ``--rate``: jobs per second that the machines could end together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from extract_run import verdict
from sleeping_machines import AT_ONCE, BYTES_PER_S, SleepingPlugin

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.extract.engine.options import ExecutionOptions
from aupipe.extract.executors import MachineChanged
from aupipe.extract.executors.cluster import executor as cluster
from aupipe.extract.executors.cluster.connection import SchedulerOptions, connected, dask_executor
from aupipe.extract.executors.driver import extract
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import Plan, make_plan
from aupipe.store import Store, create_store
from aupipe.types import Recording

MIB = 1 << 20
ASKED = {  # and whether at most so much; the processor time of a job: with many jobs a second
    "share of the machines used": (0.95, False),
    "CPU a job in all, ms": (8.0, True),
    "memory of the scheduler, MiB": (200.0, True),
}
IDLE_S = 10.0  # for which the cluster is watched before its first job
CONFIG = [EncoderConfig("hog", "hog", "visual"), EncoderConfig("mfcc", "mfcc", "audio")]


def make_corpus(folder: Path, jobs: int, machines: int, rate: float) -> tuple[Plan, Store]:
    """Videos in name and size only, which the machines would need ``jobs / rate`` seconds for."""
    took_s = np.random.default_rng(0).lognormal(2.0, 0.8, jobs)
    took_s *= machines * AT_ONCE / rate / took_s.mean()
    (folder / "videos").mkdir()
    recordings = []
    for number, seconds in enumerate(took_s):
        path = folder / "videos" / f"{number:06}.mp4"
        with path.open("wb") as file:
            file.truncate(round(seconds * BYTES_PER_S))
        recordings.append(Recording(path.name, path))
    store = create_store(folder / "features", "zarr")
    parts = build_feature_set(Config(faces=FacesConfig("none"), encoders=tuple(CONFIG)))
    return make_plan(recordings, parts, store), store


def start(folder: Path, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """One process of Dask, with a log in the folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", f"distributed.cli.dask_{name.partition('-')[0]}", *arguments]
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """Seconds of CPU that processes have used."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def run(folder: Path, machines: int, jobs: int, rate: float) -> dict[str, float]:
    """Start a cluster, run the jobs, and say what came of it."""
    file = folder / "scheduler.json"
    address = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
    scheduler = start(folder, "scheduler", [*address, "--no-dashboard"])
    options = ["--scheduler-file", str(file), "--no-dashboard", "--no-nanny", "--nthreads", "1"]
    options += ["--local-directory", str(folder), "--memory-limit", "0"]
    started = [scheduler, *(start(folder, f"worker-{number}", options) for number in range(machines))]
    cluster.AgentPlugin = SleepingPlugin  # type: ignore[misc]
    try:
        with connected(SchedulerOptions(str(file)), print) as connection:
            connection.client.wait_for_workers(machines, timeout=600)
            plan, store = make_corpus(folder, jobs, machines, rate)
            with dask_executor(connection, plan.parts, store.path, None, True, ExecutionOptions()) as executor:
                return measured(plan, store, executor, machines, [psutil.Process(each.pid) for each in started])
    finally:
        for process in started:
            process.kill()
            process.wait()


def measured(
    plan: Plan, store: Store, executor: cluster.DaskExecutor, machines: int, processes: Sequence[psutil.Process]
) -> dict[str, float]:
    """Run a plan once all machines take part."""
    while len(list(executor.machines)) < machines:
        for event in executor.poll():
            if isinstance(event, MachineChanged) and event.state == "refused":
                raise SystemExit(f"{event.host} takes no part: {event.reason}")
    me, scheduler, *workers = psutil.Process(), *processes
    names = ("client", "scheduler", "workers")
    idle = cpu_s(processes)
    time.sleep(IDLE_S)
    idle = (cpu_s(processes) - idle) / IDLE_S
    before = [cpu_s([me]), cpu_s([scheduler]), cpu_s(workers)]
    began_s, client_mib, grown = time.monotonic(), me.memory_info().rss / MIB, list[float]()
    ended = 0
    for _ in extract(plan, store, executor):
        ended += 1
        if ended % max(1, len(plan.jobs) // 20) == 0:
            grown.append(me.memory_info().rss / MIB)
    wall_s = time.monotonic() - began_s
    used = [cpu_s([me]), cpu_s([scheduler]), cpu_s(workers)]
    assert ended == len(plan.jobs), f"{ended} of {len(plan.jobs)} jobs ended"
    work_s = sum(job.recordings[0].video.stat().st_size for job in plan.jobs if job.recordings[0].video) / BYTES_PER_S
    found = {"share of the machines used": work_s / (machines * AT_ONCE * wall_s), "wall, s": wall_s}
    for name, first, last in zip(names, before, used, strict=True):
        found[f"CPU a job of the {name}, ms"] = 1000 * (last - first) / ended
    found["CPU a job in all, ms"] = 1000 * (sum(used) - sum(before)) / ended
    found["of that, what Dask uses without a job, ms"] = 1000 * idle * wall_s / ended
    found["memory of the client at the start, MiB"] = client_mib
    found["at half of the jobs"] = statistics.median(grown)
    found["at the end"] = me.memory_info().rss / MIB
    found["memory of the scheduler, MiB"] = scheduler.memory_info().rss / MIB
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machines", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=19.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in run(Path(folder), given.machines, given.jobs, given.rate).items():
            asked = f"   {verdict(value, *ASKED[name])}" if name in ASKED else ""
            print(f"{name:45} {value:10.3f}{asked}")


if __name__ == "__main__":
    main()
