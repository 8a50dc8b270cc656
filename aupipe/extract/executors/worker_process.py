"""One worker process as its executor sees it: the process, its pipe, the jobs it holds, and when it last advanced."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

from aupipe.child_process import start_child
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
    """A process that was started, and what it has told."""

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
    process, connection = start_child("aupipe.extract.executors.worker", config.environment)
    with suppress(OSError):  # one that has died already is noticed in `poll`
        connection.send(replace(config, device=slot.device, threads=slot.threads, jobs=slot.jobs))
    return WorkerProcess(number, process, connection, slot)
