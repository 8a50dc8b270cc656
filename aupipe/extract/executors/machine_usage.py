"""How much of a machine is in use: processor, memory, disk of the store, GPU. Measured where the work is done."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class MachineUsage:
    """Shares from 0 to 1 of a machine that are in use, by whomever. ``device``: of the process that has measured it.

    ``gpu`` is None on the CPU, and where NVIDIA's management library cannot be asked (package ``nvidia-ml-py``).
    """

    host: str
    device: str
    cpu: float
    memory: float
    disk: float
    disk_free_bytes: int
    gpu: float | None = None
    gpu_memory: float | None = None


class UsageMeter:
    """Measures the machine of this process; the processor since the last time."""

    def __init__(self, device: str, store: str | os.PathLike[str]) -> None:
        import psutil

        self.device, self.store = device, store
        psutil.cpu_percent()  # the first answer means nothing

    def measure(self) -> MachineUsage:
        """What is in use now. Raises OSError where the store's file system does not answer."""
        import psutil

        disk = psutil.disk_usage(os.fspath(self.store))
        busy, memory = self._gpu()
        return MachineUsage(
            os.uname().nodename,
            self.device,
            psutil.cpu_percent() / 100,
            psutil.virtual_memory().percent / 100,
            disk.percent / 100,
            disk.free,
            busy,
            memory,
        )

    def _gpu(self) -> tuple[float | None, float | None]:
        if not self.device.startswith("cuda"):
            return None, None
        import torch

        busy = memory = None
        with suppress(Exception):  # whatever is wrong with it, the run goes on
            free, total = torch.cuda.mem_get_info(self.device)
            memory = 1 - free / total
            busy = torch.cuda.utilization(self.device) / 100
        return busy, memory
