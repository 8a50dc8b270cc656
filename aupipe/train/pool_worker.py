"""One worker process of `aupipe.train.pool`: ``python -m aupipe.train.pool_worker <file descriptor>``."""

from __future__ import annotations

import logging
import os
import queue
import threading
from multiprocessing.connection import Connection
from typing import Any

from aupipe.allocator import keep_freed_memory
from aupipe.child_process import parent_connection
from aupipe.errors import AupipeError, explain
from aupipe.logs import log_to_stderr, repeating_nothing
from aupipe.train.pool import portable

log = logging.getLogger(__name__)


def main() -> None:
    """Receive the work and then tasks, and answer each with (exception or None, result)."""
    connection = parent_connection()
    keep_freed_memory()
    try:
        level, work = connection.recv()
    except EOFError:  # the run is gone already
        return
    log_to_stderr(level or logging.WARNING)
    with repeating_nothing():
        _serve(connection, work)


def _serve(connection: Connection, work: Any) -> None:
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    while True:
        task = tasks.get()
        try:
            answer: tuple[Exception | None, Any] = (None, work(task))
        except Exception as error:
            if not isinstance(error, AupipeError) and explain(error) is None:
                log.error("%s", task, exc_info=error)
            answer = (portable(error), None)
        connection.send(answer)


def _receive(connection: Connection, tasks: queue.SimpleQueue[Any]) -> None:
    """Hand on what comes through the pipe. When its other side is gone, this process ends at once."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main()
