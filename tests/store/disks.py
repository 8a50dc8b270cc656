"""Disks to put in place of `aupipe.store.fs.disk`: one that fails, one that records, one that pauses."""

import errno
import os
import signal
import time

from aupipe.store import fs

ERRORS = {name: getattr(errno, name.upper()) for name in ("eio", "enospc", "edquot", "erofs", "estale")}
POINTS = ("mkdir", "write", "fsync", "rename", "link", "remove")
OPERATIONS = {
    "create": "write",
    "write": "write",
    "overwrite": "write",
    "fsync": "fsync",
    "mkdir": "mkdir",
    "rename": "rename",
    "link": "link",
    "unlink": "remove",
    "rmdir": "remove",
}
CALLS = list(OPERATIONS)


class WatchedDisk(fs.Disk):
    """A disk that calls `before` with the name and the arguments of every operation."""

    def before(self, call, *arguments):
        """Called before each operation."""


def _watched(call):
    def method(self, *arguments):
        self.before(call, *arguments)
        return getattr(fs.Disk, call)(self, *arguments)

    return method


for _call in CALLS:
    setattr(WatchedDisk, _call, _watched(_call))


class FaultyDisk(WatchedDisk):
    """Its n-th operation of a kind fails: ``<point>:<n>:<kill|eio|enospc|edquot|erofs>``; point ``any`` counts all.

    A failing write leaves half of its bytes in the file, as a full disk does.
    """

    def __init__(self, fault):
        self.count = 0
        self.point, number, self.kind = fault.split(":")
        self.number = int(number)

    def before(self, call, *arguments):
        if self.point not in (OPERATIONS[call], "any"):
            return
        self.count += 1
        if self.count != self.number:
            return
        if call == "write":
            whole = b"".join(arguments[1])
            os.write(arguments[0], whole[: len(whole) // 2])
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        path = next(argument for argument in reversed(arguments) if isinstance(argument, str))
        raise OSError(ERRORS[self.kind], os.strerror(ERRORS[self.kind]) + " (injected)", path)


class RecordingDisk(WatchedDisk):
    """Lists every operation with its paths."""

    def __init__(self):
        self.seen = []

    def before(self, call, *arguments):
        paths = [argument for argument in arguments if isinstance(argument, str)]
        self.seen.append((call, *paths))


class PausingDisk(WatchedDisk):
    """Waits before the n-th operation."""

    def __init__(self, number, seconds):
        self.count, self.number, self.seconds = 0, number, seconds

    def before(self, call, *arguments):
        self.count += 1
        if self.count == self.number:
            time.sleep(self.seconds)
