"""How many bytes a process may hold at once, whoever holds them: recordings in flight are bounded in bytes."""

from __future__ import annotations

import threading
from pathlib import Path

PREFETCH_BYTES = 512 << 20  # decoded frames on their way to the detector
KEPT_BYTES = 192 << 20  # crops that wait for the subject to be known, so that a video is decoded once
KEPT_ON_DEVICE_BYTES = 1 << 30  # the same on a device, at least
KEPT_SHARE = 8  # of its memory, all processes together: an eighth


def kept_on(device: str, processes: int = 1) -> int:
    """How many bytes of crops each of the processes on a torch device may keep there."""
    if not device.startswith("cuda"):
        return KEPT_ON_DEVICE_BYTES
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    return max(KEPT_ON_DEVICE_BYTES, total // KEPT_SHARE // processes)


def oom_kills() -> int:
    """How many processes of this control group the kernel has killed for want of memory; 0 where it cannot tell."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        for _, controllers, path in groups:
            root = {"": "/sys/fs/cgroup", "memory": "/sys/fs/cgroup/memory"}.get(controllers)
            name = "memory.events" if controllers == "" else "memory.oom_control"
            file = Path(f"{root}{path}", name)
            if root and file.is_file():
                for line in file.read_text().splitlines():
                    word, _, count = line.partition(" ")
                    if word == "oom_kill":
                        return int(count)
    except (OSError, ValueError):
        pass
    return 0


class Budget:
    """A number of bytes that threads take from and give back to."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.acquired_bytes = 0
        self._changed = threading.Condition()

    def acquire(self, count: int) -> None:
        """Wait until ``count`` bytes are free, and take them; more than the limit is given when all are free."""
        with self._changed:
            self._changed.wait_for(lambda: not self.acquired_bytes or self.acquired_bytes + count <= self.limit_bytes)
            self.acquired_bytes += count

    def try_acquire(self, count: int) -> bool:
        """Take ``count`` bytes if they are free; never waits."""
        with self._changed:
            if self.acquired_bytes + count > self.limit_bytes:
                return False
            self.acquired_bytes += count
            return True

    def release(self, count: int) -> None:
        """Give back ``count`` bytes."""
        with self._changed:
            self.acquired_bytes -= count
            self._changed.notify_all()
