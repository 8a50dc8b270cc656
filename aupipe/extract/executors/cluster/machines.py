"""What a run knows of its machines: their jobs, how fast they are, which of them is to get more."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from aupipe.errors import AGAIN, AupipeError
from aupipe.extract.executors import Attempt, MachineChanged
from aupipe.extract.executors.cluster.messages import Hello, Refusal

REFUSERS_S = 30.0  # with machines that all refuse
AHEAD_S = 30.0  # of work that a machine holds beyond the jobs its processes need
REFILL = 2 / 3  # of what a machine may hold ahead: with more it gets no jobs, with less as many as it may hold

log = logging.getLogger(__name__)


@dataclass
class Machine:
    """A machine that takes part."""

    hello: Hello
    held: dict[int, Attempt] = field(default_factory=dict)  # jobs by number
    held_bytes: int = 0
    ended: int = 0  # jobs
    ended_bytes: int = 0
    deaths: int = 0  # of worker processes since a job ended
    busy_s: float = 0.0  # with any job, until `since_s`
    since_s: float = 0.0  # when it last got a job while it had none

    @property
    def address(self) -> str:
        return self.hello.address

    @property
    def is_doubtful(self) -> bool:
        """Its worker processes have died and no job has ended on it: the machine may be the reason."""
        return self.deaths > 0 and not self.ended

    def bytes_per_s(self) -> float:
        """Bytes of the videos that it has ended, for each second in which it had any job; 0 before the first."""
        busy_s = self.busy_s + (time.monotonic() - self.since_s if self.held else 0.0)
        return self.ended_bytes / busy_s if busy_s > 0 else 0.0

    def has_slot(self, size_bytes: int, alone: bool = False) -> bool:
        """Whether it can have one more job: as many as its processes need, more only while they are little work."""
        if alone:
            return sum(attempt.alone for attempt in self.held.values()) < self.hello.slots
        if len(self.held) < self.hello.least:
            return True
        return len(self.held) < self.hello.most and self.held_bytes + size_bytes <= AHEAD_S * self.bytes_per_s()

    @property
    def is_due(self) -> bool:
        """Whether it is to get jobs: those that its processes need at once, others several at a time, in one task."""
        if len(self.held) < self.hello.least:
            return True
        jobs = self.hello.least + REFILL * (self.hello.most - self.hello.least)
        return len(self.held) <= jobs and self.held_bytes <= REFILL * AHEAD_S * self.bytes_per_s()

    def give(self, number: int, attempt: Attempt) -> None:
        """Note that it has a job."""
        if not self.held:
            self.since_s = time.monotonic()
        self.held[number] = attempt
        self.held_bytes += attempt.size_bytes

    def take(self, number: int, ended: bool = False) -> Attempt | None:
        """Note that it no longer has a job; None where it had not."""
        attempt = self.held.pop(number, None)
        if attempt is None:
            return None
        self.held_bytes -= attempt.size_bytes
        if not self.held:
            self.busy_s += time.monotonic() - self.since_s
        if ended:
            self.ended += 1
            self.ended_bytes += attempt.size_bytes
            self.deaths = 0
        return attempt


class Machines:
    """The machines of a run: those that take part, which is what is iterated over, and those that refused."""

    def __init__(self, patience_s: float, again: str = AGAIN) -> None:
        self.patience_s = patience_s  # so long a run waits when no machine takes part
        self.again = again  # what to do then, in words
        self._joined: dict[str, Machine] = {}  # by address
        # Of those, all that are to get jobs: looking at every machine for each job is slow.
        self._open: dict[str, Machine] = {}
        self._refused: dict[str, Refusal] = {}  # by address
        self._crowded: set[str] = set()  # of those, what would share a GPU with a machine that takes part
        self._served_s = time.monotonic()  # when a machine was last there that takes part

    def __iter__(self) -> Iterator[Machine]:
        return iter(list(self._joined.values()))

    def get(self, address: str) -> Machine | None:
        """The machine with this address, where it takes part."""
        return self._joined.get(address)

    def join(self, hello: Hello) -> MachineChanged | None:
        """Take in a machine; it may say so several times, and the first time changes something.

        One whose GPU is another's takes part once that one is gone, whose successor it may be.
        """
        if hello.address in self._joined or hello.address in self._refused.keys() - self._crowded:
            return None
        shared = {gpu for machine in self for gpu in machine.hello.gpus}
        twice = [gpu for gpu in hello.gpus if gpu in shared]
        if twice and hello.address in self._crowded:
            return None
        if twice:
            reason = f"GPU {twice[0]} is that of another Dask worker: give each its own by CUDA_VISIBLE_DEVICES"
            self._crowded.add(hello.address)
            return self.refuse(Refusal(hello.address, hello.host, reason, 2))
        self._crowded.discard(hello.address)
        self._refused.pop(hello.address, None)
        self._joined[hello.address] = self._open[hello.address] = Machine(hello)
        log.info("%s (%s) takes part: %d worker processes", hello.host, hello.address, hello.slots)
        return MachineChanged(hello.host, "joined", slots=hello.slots)

    def refuse(self, refusal: Refusal) -> MachineChanged | None:
        """Note that a machine takes no part, or no longer; it may say so several times, and is named once."""
        is_known = refusal.address in self._refused
        self._refused[refusal.address] = refusal
        if is_known:
            return None
        log.warning("%s (%s) takes no part: %s", refusal.host, refusal.address, refusal.reason)
        return MachineChanged(refusal.host, "refused", refusal.reason)

    def remove(self, address: str) -> None:
        """Forget a machine."""
        self._joined.pop(address, None)
        self._open.pop(address, None)

    def clear(self) -> None:
        """Forget all."""
        self._joined.clear()
        self._open.clear()

    def take(self, address: str, number: int, ended: bool = False) -> Attempt | None:
        """Note that a machine no longer has a job; None where it had not."""
        machine = self._joined.get(address)
        if machine is None:
            return None
        attempt = machine.take(number, ended)
        if machine.is_due:
            self._open[address] = machine
        return attempt

    def has_slot(self, size_bytes: int, alone: bool = False) -> bool:
        """Whether any machine can have one more job of this size.

        A machine that cannot is not looked at again before one of its jobs is over and it is due: until then it is no
        less full, and its speed is only estimated lower.
        """
        if alone:
            return any(machine.has_slot(size_bytes, alone) for machine in self)
        while self._open:
            address, machine = next(iter(self._open.items()))
            if machine.has_slot(size_bytes):
                return True
            del self._open[address]
        return False

    def choose(self, attempt: Attempt, avoided: Set[str]) -> Machine:
        """The emptiest machine that can take a job; `has_slot` must have found one.

        A job that is tried alone goes, where there is a choice, to none of the machines that are doubtful or
        ``avoided`` (addresses), where it killed a process.
        """

        def order(machine: Machine) -> tuple[bool, bool, float]:
            unfit = attempt.alone and (machine.is_doubtful or machine.address in avoided)
            return unfit, machine.is_doubtful, len(machine.held) / max(1, machine.hello.slots)

        able = list(self if attempt.alone else self._open.values())
        # How fast a machine is changes with every look at the clock: it may have had a slot just before.
        fit = [machine for machine in able if machine.has_slot(attempt.size_bytes, attempt.alone)]
        return min(fit or able, key=order)

    def raise_if_none(self, present: Set[str]) -> None:
        """Raises AupipeError where no machine has taken part for too long; ``present``: addresses of Dask workers."""
        if self._joined:
            self._served_s = time.monotonic()
        for_s = time.monotonic() - self._served_s
        refusals = [refusal for address, refusal in self._refused.items() if address in present]
        if for_s > min(REFUSERS_S, self.patience_s) and refusals and len(refusals) == len(present):
            error = AupipeError(f"no machine takes part: {refusals[0].host}: {refusals[0].reason}")
            error.exit_code = refusals[0].exit_code
            raise error
        if for_s > self.patience_s:
            raise AupipeError(
                f"no Dask worker has taken part for {self.patience_s:.0f} s (--worker-timeout): start some, "
                f"{self.again}"
            )
