"""The folder that `aupipe train` writes: its request, and a lock, so that two trainings do not write in turns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aupipe.errors import UsageError

NAME, REQUEST_FILE = ".lock", "train.json"  # the latter is kept there, so that the training can be resumed
log = logging.getLogger(__name__)


@contextmanager
def lock_folder(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Create ``folder`` and hold its lock; a killed process holds it no longer. An empty folder is removed again.

    Raises UsageError where another thread or process holds the lock, for longer than ``wait_s``.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{folder}: another training is running there: wait for it, or choose another folder"
        ) from None
    except OSError as error:
        log.info("%s: not locked: %s", path, error)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is released; filelock notices that a file it waited for is gone
        lock.release()
        with suppress(OSError):
            folder.rmdir()  # where nothing was written


def refuse_running(folder: Path, wait_s: float = 0.0) -> None:
    """Raises UsageError where another thread or process holds the lock of a folder, for longer than ``wait_s``."""
    with lock_folder(folder, wait_s):
        pass
