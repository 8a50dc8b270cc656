"""Names of the processes that write to a store, and whether such a process still runs."""

from __future__ import annotations

import os
import uuid
from functools import lru_cache

import google_crc32c


@lru_cache(maxsize=1)
def _machine() -> str:
    """8 hex for this machine since its last boot and this process namespace, within which a pid is one process."""
    parts = [os.uname().nodename]
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass
    return f"{google_crc32c.value(' '.join(parts).encode()):08x}"


def writer_name() -> str:
    """``<machine>-<pid>-<8 random hex>``: a new name for a file, from which others can tell which process made it."""
    return f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def writer_runs(name: str) -> int:
    """The pid of another process of this machine that `writer_name` named and that runs now, else 0."""
    if not is_of_this_machine(name) or writer_has_ended(name):
        return 0
    pid = int(name.split("-")[1])
    return pid if pid != os.getpid() else 0


def is_of_this_machine(name: str) -> bool:
    """Whether the process that `writer_name` named is one of this machine, which can see whether it runs."""
    machine, _, rest = name.partition("-")
    return machine == _machine() and rest.partition("-")[0].isdigit()


def writer_has_ended(name: str) -> bool:
    """True when the process that `writer_name` named is known to have ended.

    False when it runs, and when that cannot be known, as for a process of another machine.
    """
    if not is_of_this_machine(name):
        return False
    pid = int(name.split("-")[1])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and its parent has not asked yet; in a container without an init, none ever does."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return False
