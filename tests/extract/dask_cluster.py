"""A real Dask cluster on this machine: a scheduler and workers in processes of their own, as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aupipe

DASK = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker"]
QUICK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s", "PYTHONUNBUFFERED": "1"}


@dataclass
class Cluster:
    """``folder`` holds the scheduler's file and the logs."""

    folder: Path
    scheduler: subprocess.Popen[bytes] | None = None
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    def start_scheduler(self, *arguments: str) -> None:
        self.file.unlink(missing_ok=True)
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file)]
        self.scheduler = self._start("scheduler", [*DASK, *options, *arguments])

    def start_worker(
        self, name: str, *arguments: str, prefix: tuple[str, ...] = (), nanny: bool = False, **environment: str
    ) -> None:
        options = ["--scheduler-file", str(self.file), "--no-dashboard", "--name", name, "--nthreads", "1"]
        local = ["--local-directory", str(self.folder)]
        command = [*prefix, *WORKER, *options, *local, "--nanny" if nanny else "--no-nanny", *arguments]
        self.workers[name] = self._start(name, command, **environment)

    def kill_worker(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        os.killpg(self.workers[name].pid, number)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        package = str(Path(aupipe.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | QUICK | {"PYTHONPATH": path} | environment,
                start_new_session=True,
            )

    def stop(self) -> None:
        for process in [*self.workers.values(), self.scheduler]:
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                process.terminate()
        until_s = time.monotonic() + 10
        for process in [*self.workers.values(), self.scheduler]:
            if process is not None:
                try:
                    process.wait(timeout=max(0.1, until_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """A scheduler and some workers, ended afterwards."""
    cluster = Cluster(folder)
    try:
        cluster.start_scheduler()
        for number in range(workers):
            cluster.start_worker(f"worker-{number}")
        yield cluster
    finally:
        cluster.stop()
