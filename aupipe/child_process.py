"""Worker processes of a command: how they are started, and what each does first. They talk through a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any


def start_child(module: str, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start ``python -m module`` with these variables beside those of this process, and our end of its pipe.

    The child imports the aupipe of this process. Its module begins with `parent_connection`.
    """
    ours, theirs = Pipe()
    package = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=2,  # stderr: results alone go to stdout, whatever a library prints
        start_new_session=True,  # Ctrl-C is for the run; it ends the workers through their pipes
        env={**os.environ, **environment, "PYTHONPATH": path},
    )
    theirs.close()
    return process, ours


def receive(connection: Connection, put: Callable[[Any], None]) -> None:
    """In a child: hand on what comes through the pipe. When its other side is gone, this process ends at once."""
    try:
        while True:
            put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)  # the run is gone; what was being written was never published


def parent_connection() -> Connection:
    """In a child: the pipe to the process that started it. Signals are left to that one from now on.

    A batch system sends them to every process of a job; a worker ends when its run does.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    return Connection(int(sys.argv[1]))
