"""What a run knows of one machine: its jobs, how fast it is, and whether it is to get more."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from aupipe.extract.executors import Attempt
from aupipe.extract.executors.cluster.messages import Hello

AHEAD_S = 30.0  # of work that a machine holds beyond the jobs its processes need


@dataclass
class Machine:
    """A machine that takes part."""

    hello: Hello
    held: dict[int, Attempt] = field(default_factory=dict)  # jobs by number
    ended: int = 0  # jobs
    ended_bytes: int = 0
    deaths: int = 0  # of worker processes since a job ended
    busy_s: float = 0.0  # with any job, until `since_s`
    since_s: float = 0.0

    @property
    def address(self) -> str:
        return self.hello.address

    @property
    def held_bytes(self) -> int:
        return sum(attempt.size_bytes for attempt in self.held.values())

    @property
    def is_doubtful(self) -> bool:
        """Its worker processes have died and no job has ended on it: the machine may be the reason."""
        return self.deaths > 0 and not self.ended

    def bytes_per_s(self) -> float:
        """Of the videos it has ended; 0 before the first."""
        busy_s = self.busy_s + (time.monotonic() - self.since_s if self.held else 0.0)
        return self.ended_bytes / busy_s if busy_s > 0 else 0.0

    def has_slot(self, size_bytes: int, alone: bool) -> bool:
        """Whether it can have one more job: as many as its processes need, more only while they are little work."""
        if alone:
            return sum(attempt.alone for attempt in self.held.values()) < self.hello.slots
        if len(self.held) < self.hello.least:
            return True
        return len(self.held) < self.hello.most and self.held_bytes + size_bytes <= AHEAD_S * self.bytes_per_s()

    def give(self, number: int, attempt: Attempt) -> None:
        """Note that it has a job."""
        if not self.held:
            self.since_s = time.monotonic()
        self.held[number] = attempt

    def take(self, number: int, ended: bool = False) -> Attempt | None:
        """Note that it no longer has a job; None where it had not."""
        attempt = self.held.pop(number, None)
        if attempt is None:
            return None
        if not self.held:
            self.busy_s += time.monotonic() - self.since_s
        if ended:
            self.ended += 1
            self.ended_bytes += attempt.size_bytes
            self.deaths = 0
        return attempt
