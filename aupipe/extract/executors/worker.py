"""One worker process: jobs come in through a pipe, signs of life and outcomes go out.

Run by `aupipe.extract.executors.local` as ``python -m aupipe.extract.executors.worker <file descriptor>``. A codec that
takes the process down takes the videos in flight with it, and nothing else.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NoReturn

from aupipe.child_process import parent_connection, receive
from aupipe.errors import is_exhausted
from aupipe.extract.executors.machine_usage import UsageMeter
from aupipe.extract.executors.messages import Exhausted, Message, Ready, WorkerConfig, fatal_of
from aupipe.extract.meter import Meter
from aupipe.extract.planning.plan import Job
from aupipe.logs import log_to_stderr

REPORT_S = 0.5
USAGE_S = 2.0
SHARED = 0.9  # of a GPU's memory, by all its worker processes: each needs some that torch does not count

if TYPE_CHECKING:
    from aupipe.extract.engine.engine import Engine

log = logging.getLogger(__name__)


class MessageSender:
    """The worker's side of the pipe, for all its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.is_ready = False  # until then the machine is too small, whatever the videos

    def send(self, message: Message) -> None:
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
    from aupipe.extract.engine.device import Device
    from aupipe.extract.engine.engine import Engine
    from aupipe.extract.memory import kept_on
    from aupipe.store import open_store

    torch.set_num_threads(1)  # as PROCESS_ENVIRONMENT says of OpenMP
    cv2.setNumThreads(1)
    if config.device.startswith("cuda"):
        torch.zeros(1, device=config.device)  # a GPU that cannot be used is the reason of no video
        if config.processes > 1:  # each has its share: none can take back what another keeps
            torch.cuda.set_per_process_memory_fraction(SHARED / config.processes, config.device)
    store, options = open_store(config.store), config.options
    engine = Engine(
        store,
        config.features,
        Device(config.device, nvdec=options.nvdec),
        config.threads,
        on_event=sender.send,
        sizes=BatchSizes.on(config.device, options.batch_size),
        meter=Meter(trace=options.trace),
        compiled=options.compiled,
        sharing=config.processes,
        kept_on_device_bytes=kept_on(config.device, config.processes),
    )
    sender.send(Ready())
    sender.is_ready = True
    jobs: queue.Queue[Job | None] = queue.Queue()
    threading.Thread(target=receive, args=(connection, jobs.put), name="receive", daemon=True).start()
    threading.Thread(target=_report_stages, args=(sender, engine), name="report", daemon=True).start()
    threading.Thread(target=_report_usage, args=(sender, config), name="usage", daemon=True).start()
    threads = [
        threading.Thread(target=_process_jobs, args=(engine, jobs, sender), name=f"job-{number}", daemon=True)
        for number in range(config.jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    sender.send(engine.meter.snapshot())
    store.close()


def _process_jobs(engine: Engine, jobs: queue.Queue[Job | None], sender: MessageSender) -> None:
    """Process jobs until None comes."""
    try:
        while (job := jobs.get()) is not None:
            result = engine.process(job)
            sender.send(replace(result, published=[]))  # those records have been sent
    except BaseException as error:
        sender.give_up(error)
    jobs.put(None)  # for the next thread


def _report_stages(sender: MessageSender, engine: Engine) -> None:
    """Report twice a second what the stages do, from a thread of its own: a process that is silent stands still."""
    pause = threading.Event()
    while not pause.wait(REPORT_S):
        engine.sample_queues()
        try:
            sender.send(engine.meter.snapshot())
        except OSError:
            return


def _report_usage(sender: MessageSender, config: WorkerConfig) -> None:
    """Report how much of the machine is in use. A thread of its own: a file system that hangs silences nothing else."""
    usage, pause = UsageMeter(config.device, config.store), threading.Event()
    while not pause.wait(USAGE_S):
        try:
            sender.send(usage.measure())
        except OSError:  # of the disk, or of a pipe whose other side is gone
            return


def main() -> None:
    """Entry point of the process."""
    connection = parent_connection()
    sender = MessageSender(connection)
    try:
        serve(connection, sender)
    except Exception as error:
        sender.give_up(error)


if __name__ == "__main__":
    main()
