"""One worker process: jobs come in through a pipe, signs of life and outcomes go out.

Run by `aupipe.extract.run` as ``python -m aupipe.extract.worker <file descriptor>``. A codec that takes the process
down takes one video with it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from aupipe.errors import AupipeError
from aupipe.extract.plan import Job, Parts


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know before its first job."""

    parts: Parts
    store: str  # path
    device: str
    versions: dict[str, str]
    log_level: int


@dataclass(frozen=True)
class Stop:
    """The run cannot go on: the disk is full, weights are missing, or aupipe is wrong."""

    message: str
    exit_code: int


# What a worker says: "ready", an int (frames decoded since it last spoke), an ItemRecord (published), an Outcome (the
# job has ended), or a Stop.
READY = "ready"


def serve(connection: Connection) -> None:
    """Work until there is nothing more to do (None), or the pipe closes."""
    setup: Setup = connection.recv()
    logging.basicConfig(level=setup.log_level, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("libav").setLevel(logging.CRITICAL)

    import cv2
    import torch

    from aupipe.extract.job import Loaded
    from aupipe.extract.pipeline import run_job
    from aupipe.store import open_store

    # One thread per worker: torch's own threads fight each other for the cores as soon as anything else runs (ten times
    # slower was measured), and there is a worker per core.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    store = open_store(setup.store)
    loaded = Loaded(setup.parts, setup.device)
    connection.send(READY)
    jobs = _listen(connection)
    while (job := jobs()) is not None:
        connection.send(run_job(job, store, loaded, setup.versions, connection.send, connection.send))
        store.refresh()
    store.close()  # which compacts the catalogue when the journals have grown long


def _listen(connection: Connection) -> Any:
    """A function that waits for the next job. When the other side of the pipe is gone, this process ends at once."""
    import queue

    jobs: queue.Queue[Job | None] = queue.Queue()

    def listen() -> None:
        try:
            while True:
                jobs.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)  # nobody is there to work for; what was being written was never published

    threading.Thread(target=listen, name="listen", daemon=True).start()
    return jobs.get


def main() -> None:
    """Entry point of the process."""
    connection = Connection(int(sys.argv[1]))
    try:
        serve(connection)
    except AupipeError as error:
        connection.send(Stop(str(error), error.exit_code))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        connection.send(Stop(f"{error.strerror or error}{where}", 1))
    except Exception as error:
        connection.send(Stop(f"{type(error).__name__}: {error}\n{traceback.format_exc()}", 1))


if __name__ == "__main__":
    main()
