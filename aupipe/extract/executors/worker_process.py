"""One worker process as its executor sees it: the process, its pipe, the jobs it holds, and when it last advanced."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import aupipe
from aupipe.extract.engine.options import ThreadCounts
from aupipe.extract.executors import Attempt
from aupipe.extract.executors.messages import WorkerConfig
from aupipe.extract.meter import Measured

QUEUED_BYTES = 64 << 20  # of videos in one process, when it holds more of them than it decodes: all are tried again


@dataclass(frozen=True)
class Slot:
    """A place for one process: its device, its threads, and how many jobs it holds at most."""

    device: str
    threads: ThreadCounts = field(default_factory=ThreadCounts)
    jobs: int = 1


@dataclass
class WorkerProcess:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    slot: Slot
    attempts: dict[str, Attempt] = field(default_factory=dict)  # by video
    hung: int = 0  # jobs that were given up and still occupy it
    ready: bool = False
    frames: int = 0  # by all its stages, when it last told
    measured: Measured | None = None
    heard_s: float = field(default_factory=time.monotonic)
    moved_s: float = field(default_factory=time.monotonic)

    def has_slot(self, size_bytes: int, alone: bool) -> bool:
        """Whether it can have one more job: none of its jobs hangs, none has to be alone, and it does not hold so much
        that its death would cost hours of work."""
        held = self.attempts.values()
        if self.hung or any(attempt.alone for attempt in held) or (alone and held):
            return False
        if len(held) <= self.slot.threads.decoders:  # one waits for the next free decoder
            return len(held) < self.slot.jobs
        total_bytes = size_bytes + sum(attempt.size_bytes for attempt in held)
        return len(held) < self.slot.jobs and total_bytes <= QUEUED_BYTES


def start_worker(config: WorkerConfig, slot: Slot, number: int) -> WorkerProcess:
    """Start a worker process in a slot, and send it its configuration."""
    ours, theirs = Pipe()
    package = str(Path(aupipe.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "aupipe.extract.executors.worker", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=2,  # stderr: results alone go to stdout, whatever a library prints
        start_new_session=True,  # Ctrl-C is for the run; it ends the workers through their pipes
        env=os.environ | config.environment | {"PYTHONPATH": path},
    )
    theirs.close()
    with suppress(OSError):  # one that has died already is noticed in `poll`
        ours.send(replace(config, device=slot.device, threads=slot.threads, jobs=slot.jobs))
    return WorkerProcess(number, process, ours, slot)
