"""One worker process: jobs come in through a pipe, signs of life and outcomes go out.

Run by `aupipe.extract.staff` as ``python -m aupipe.extract.worker <file descriptor>``. A codec that takes the process
down takes the videos in flight with it, and nothing else.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from aupipe.errors import AupipeError
from aupipe.extract.means import Crew, Means
from aupipe.extract.meter import Meter
from aupipe.extract.parts import Parts
from aupipe.extract.plan import Job
from aupipe.logs import log_to_stderr

LOOK_EVERY_S = 0.5
SHARED = 0.9  # of a GPU's memory, by all its worker processes: each needs some that torch does not count


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know before its first job."""

    parts: Parts
    store: str  # path
    device: str
    beside: int  # worker processes on the device, this one too
    versions: dict[str, str]
    log_level: int
    crew: Crew
    means: Means


@dataclass(frozen=True)
class Stop:
    """The run cannot go on: the disk is full, weights are missing, or aupipe is wrong."""

    message: str
    exit_code: int


# What a worker says: "ready", an int (frames decoded since it last spoke), an ItemRecord (published), an Outcome (a job
# has ended), a Measured (what its stages do), or a Stop.
READY = "ready"


class Voice:
    """The worker's side of the pipe, for all its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, word: Any) -> None:
        with self._lock:
            self._connection.send(word)


def serve(connection: Connection, voice: Voice) -> None:
    """Work until there is nothing more to do (None), or the pipe closes."""
    setup: Setup = connection.recv()
    log_to_stderr(setup.log_level)
    logging.getLogger("libav").setLevel(logging.CRITICAL)

    import cv2
    import torch

    from aupipe.extract.batchsize import BatchSizes
    from aupipe.extract.line import Line
    from aupipe.extract.loaded import Loaded
    from aupipe.extract.memory import kept_on
    from aupipe.store import open_store

    # One thread per call: torch's own threads fight each other for the cores as soon as anything else runs (ten times
    # slower was measured), and the stages have threads enough.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if setup.device.startswith("cuda"):
        torch.zeros(1, device=setup.device)  # a GPU that cannot be had is no video's fault
        if setup.beside > 1:  # each has its share: none can take back what another keeps
            torch.cuda.set_per_process_memory_fraction(SHARED / setup.beside, setup.device)
    store = open_store(setup.store)
    means = setup.means
    meter = Meter(trace=means.trace)
    loaded = Loaded(setup.parts, setup.device, nvdec=means.nvdec)
    line = Line(
        store,
        loaded,
        setup.versions,
        on_outcome=voice.say,
        on_error=lambda error: _give_up(voice, error),
        crew=setup.crew,
        sizes=BatchSizes.on(setup.device, means.batch_size),
        on_frames=voice.say,
        on_published=voice.say,
        meter=meter,
        compiled=means.compiled,
        beside=setup.beside,
        kept_on_device=kept_on(setup.device, setup.beside),
    )
    voice.say(READY)
    jobs: queue.Queue[Job | None] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, jobs), name="listen", daemon=True).start()
    while True:
        try:
            job = jobs.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            line.look()
            voice.say(meter.snapshot())
            continue
        if job is None:
            break
        with loaded.stream():
            loaded.prepare(job)
        line.submit(job)
    line.close()
    voice.say(meter.snapshot())
    store.close()  # which compacts the catalogue when the journals have grown long


def _listen(connection: Connection, jobs: queue.Queue[Job | None]) -> None:
    """Hand on what comes through the pipe. When its other side is gone, this process ends at once."""
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)  # nobody is there to work for; what was being written was never published


def _give_up(voice: Voice, error: BaseException) -> None:
    """Say why the run cannot go on, and end, whatever the other threads do."""
    voice.say(stop_of(error))
    os._exit(1)


def stop_of(error: BaseException) -> Stop:
    """What is said of an error that is nobody's recording's fault."""
    if isinstance(error, AupipeError):
        return Stop(str(error), error.exit_code)
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return Stop(f"{error.strerror or error}{where}", 1)
    return Stop(f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}", 1)


def main() -> None:
    """Entry point of the process."""
    connection = Connection(int(sys.argv[1]))
    voice = Voice(connection)
    try:
        serve(connection, voice)
    except Exception as error:
        voice.say(stop_of(error))


if __name__ == "__main__":
    main()
