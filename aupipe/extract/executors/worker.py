"""One worker process: jobs come in through a pipe, signs of life and outcomes go out.

Run by `aupipe.extract.executors.local` as ``python -m aupipe.extract.executors.worker <file descriptor>``. A codec that
takes the process down takes the videos in flight with it, and nothing else.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from aupipe.errors import is_exhausted
from aupipe.extract.executors.messages import READY, Exhausted, WorkerConfig, fatal_of
from aupipe.extract.meter import Meter
from aupipe.extract.planning.plan import Job
from aupipe.logs import log_to_stderr

SIGN_OF_LIFE_S = 0.5
SHARED = 0.9  # of a GPU's memory, by all its worker processes: each needs some that torch does not count

log = logging.getLogger(__name__)


class MessageSender:
    """The worker's side of the pipe, for all its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.is_ready = False  # until then the machine is too small, whatever the videos

    def send(self, message: Any) -> None:
        with self._lock:
            self._connection.send(message)

    def give_up(self, error: BaseException) -> NoReturn:
        """Say why the run cannot go on, and end the process, whatever its other threads do."""
        fatal = fatal_of(error)
        if not fatal.foreseen:
            log.info("%s", fatal.message, exc_info=error)
        self.send(Exhausted(fatal.message) if self.is_ready and is_exhausted(error) else fatal)
        os._exit(1)


def serve(connection: Connection, sender: MessageSender) -> None:
    """Work until there is nothing more to do (None), or the pipe closes."""
    config: WorkerConfig = connection.recv()
    log_to_stderr(config.log_level)
    logging.getLogger("libav").setLevel(logging.CRITICAL)

    import cv2
    import torch

    from aupipe.extract.engine.batch_size import BatchSizes
    from aupipe.extract.engine.engine import Line
    from aupipe.extract.engine.models import ModelCache
    from aupipe.extract.memory import kept_on
    from aupipe.extract.versions import library_versions
    from aupipe.store import open_store

    # One thread per call: torch's own threads fight each other for the cores as soon as anything else runs (ten times
    # slower was measured), and the stages have threads enough.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if config.device.startswith("cuda"):
        torch.zeros(1, device=config.device)  # a GPU that cannot be used is no video's fault
        if config.processes > 1:  # each has its share: none can take back what another keeps
            torch.cuda.set_per_process_memory_fraction(SHARED / config.processes, config.device)
    store = open_store(config.store)
    means = config.means
    meter = Meter(trace=means.trace)
    loaded = ModelCache(config.parts, config.device, nvdec=means.nvdec)
    line = Line(
        store,
        loaded,
        library_versions(),
        on_result=sender.send,
        on_error=sender.give_up,
        crew=config.crew,
        sizes=BatchSizes.on(config.device, means.batch_size),
        on_frames=sender.send,
        on_published=sender.send,
        meter=meter,
        compiled=means.compiled,
        beside=config.processes,
        kept_on_device=kept_on(config.device, config.processes),
    )
    sender.send(READY)
    sender.is_ready = True
    jobs: queue.Queue[Job | None] = queue.Queue()
    threading.Thread(target=_receive, args=(connection, jobs), name="receive", daemon=True).start()
    threading.Thread(target=_send_signs_of_life, args=(sender, line, meter), name="signs", daemon=True).start()
    while (job := jobs.get()) is not None:
        with loaded.stream(), meter.timed("load"):
            loaded.prepare(job)
        line.submit(job)
    line.close()
    sender.send(meter.snapshot())
    store.close()  # which compacts the catalogue when the journals have grown long


def _receive(connection: Connection, jobs: queue.Queue[Job | None]) -> None:
    """Hand on what comes through the pipe. When its other side is gone, this process ends at once."""
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)  # nobody is there to work for; what was being written was never published


def _send_signs_of_life(sender: MessageSender, line: Any, meter: Meter) -> None:
    """Tell twice a second what the stages do, from a thread of its own: only a process that stands still is silent."""
    pause = threading.Event()
    while not pause.wait(SIGN_OF_LIFE_S):
        line.look()
        try:
            sender.send(meter.snapshot())
        except OSError:
            return


def main() -> None:
    """Entry point of the process."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):  # a batch system sends them to every process of
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # a job; a worker ends when its run does
    connection = Connection(int(sys.argv[1]))
    sender = MessageSender(connection)
    try:
        serve(connection, sender)
    except Exception as error:
        sender.give_up(error)


if __name__ == "__main__":
    main()
