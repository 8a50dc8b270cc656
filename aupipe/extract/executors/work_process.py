"""One process of `aupipe.extract.executors.work`: ``python -m aupipe.extract.executors.work_process <descriptor>``."""

from __future__ import annotations

import logging
import pickle
import queue
import threading
import time
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

from aupipe.allocator import keep_freed_memory
from aupipe.child_process import parent_connection, receive
from aupipe.errors import AupipeError, explain
from aupipe.extract.executors.work import portable
from aupipe.logs import log_to_stderr, repeating_nothing

ALIVE_S = 5.0  # between signs of life, from a thread of its own: a process that is silent stands still

log = logging.getLogger(__name__)
_sending = threading.Lock()


def main() -> None:
    """Receive the work and then tasks, all pickled; answer each with (exception or None, pickled result)."""
    connection = parent_connection()
    threading.Thread(target=_tell_alive, args=(connection,), daemon=True).start()
    keep_freed_memory()
    try:
        level, work = connection.recv()
    except EOFError:  # the run is gone already
        return
    log_to_stderr(level or logging.WARNING)
    with repeating_nothing():
        _serve(connection, work)


def _serve(connection: Connection, work: bytes) -> None:
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=receive, args=(connection, tasks.put), daemon=True).start()
    open_work = cache(lambda: pickle.loads(work))  # imports what it needs, which may fail
    while True:
        content = tasks.get()
        task: Any = "a task"
        try:
            called = open_work()
            task = pickle.loads(content)
            answer: tuple[Exception | None, bytes] = (None, pickle.dumps(called(task)))
        except Exception as error:
            if not isinstance(error, AupipeError) and explain(error) is None:
                log.error("%s", task, exc_info=error)
            answer = (portable(error), b"")
        with _sending:
            connection.send(answer)


def _tell_alive(connection: Connection) -> None:
    while True:
        time.sleep(ALIVE_S)
        try:
            with _sending:
                connection.send(None)
        except OSError:
            return


if __name__ == "__main__":
    main()
