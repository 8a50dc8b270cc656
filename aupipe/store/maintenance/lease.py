"""One collector at a time: a file whose content says which process collects, and by growing that it still does."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from aupipe.errors import BusyError
from aupipe.store import fs
from aupipe.store.local import LocalStore
from aupipe.store.processes import is_of_this_machine, writer_has_ended, writer_name

LEASE_FILE = "gc.lease"
BEAT_S = 10.0
EXPIRY_S = 120.0  # watched for this long without a change, the lease of a process of another machine is taken over


class Lease:
    """The lease that this process holds.

    What a collector does is right also beside another one, so that a lease lost to a process that took this one for
    ended does no harm; it only saves work.
    """

    def __init__(self, path: str, fd: int, owner: bytes) -> None:
        self.path, self._fd, self._owner, self._beaten_s = path, fd, owner, time.monotonic()

    def beat(self) -> None:
        """Show that this process still collects. Raises BusyError where another one has taken over."""
        if time.monotonic() - self._beaten_s < BEAT_S:
            return
        if not self._is_mine():
            raise BusyError(f"{self.path}: another process has taken over: run `aupipe store gc` again")
        fs.write(self._fd, [b"."], self.path)
        fs.fsync(self._fd, self.path)
        self._beaten_s = time.monotonic()

    def release(self) -> None:
        """Remove the file, unless it is of another process by now."""
        if self._is_mine():
            fs.try_remove(self.path)

    def _is_mine(self) -> bool:
        return _read(self.path).startswith(self._owner)


@contextlib.contextmanager
def hold_lease(store: LocalStore, *, wait: bool = True) -> Iterator[Lease | None]:
    """Hold the lease of a store; None where another process does.

    ``wait``: watch the lease of a process that cannot be seen from here until it changes or has expired.
    """
    path, staged = os.path.join(store.root, LEASE_FILE), store.folder.staging_path()
    fd, owner = fs.create(staged), f"{writer_name()}\n".encode()
    try:
        fs.write(fd, [owner], staged)
        fs.fsync(fd, staged)
        mine = _acquire(store, staged, path, EXPIRY_S if wait else 0.0)
        fs.try_remove(staged)
        lease = Lease(path, fd, owner) if mine else None
        try:
            yield lease
        finally:
            if lease:
                lease.release()
    finally:
        os.close(fd)


def _acquire(store: LocalStore, staged: str, path: str, expiry_s: float) -> bool:
    first, start_s = b"", time.monotonic()
    while not fs.link(staged, path):
        seen = _read(path)
        if not seen:
            continue  # released meanwhile
        first = first or seen
        owner = seen.split(b"\n")[0].decode("ascii", "replace")
        expired = seen == first and time.monotonic() - start_s > expiry_s > 0
        if writer_has_ended(owner) or (expired and not is_of_this_machine(owner)):
            _take_away(store, path, seen)
        elif seen != first or not expiry_s or is_of_this_machine(owner):
            return False
        else:
            time.sleep(min(1.0, expiry_s))
    return True


def _take_away(store: LocalStore, path: str, seen: bytes) -> None:
    """Remove a lease that has expired: it is moved first, so that one process does; a newer one is put back."""
    moved = store.folder.staging_path()
    with contextlib.suppress(FileNotFoundError):
        fs.rename(path, moved)
        if _read(moved) != seen:
            fs.link(moved, path)
        fs.try_remove(moved)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
