"""How well many machines are used: the placement of `aupipe extract --scheduler`, in an exact simulation.

    python benchmarks/cluster.py

The run's own rules (`aupipe.extract.executors.cluster.machines`), largest jobs first, against a clock of the
simulation. The figure is the work done divided by what the machines could have done until the last job ended; beside
it, what the longest job allows, and static shards of the same jobs.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.executors import Attempt
from aupipe.extract.executors.cluster import machines as placement
from aupipe.extract.executors.cluster.messages import Hello
from aupipe.extract.planning.plan import Job

SLOTS = 8  # worker processes' decoders of one machine
LEAST, MOST = SLOTS + 2, SLOTS + 64
BYTES_PER_S = 1_000_000  # of video, on one decoder of a machine of usual speed


@dataclass
class Simulated:
    """A machine: ``speed`` relative to the usual, jobs that run on it and jobs that wait there."""

    known: placement.Machine
    speed: float
    running: int = 0
    waiting: deque[int] = field(default_factory=deque)
    lost_s: float = np.inf  # when it goes away


def lengths(count: int, long_share: float = 0.0) -> NDArray[np.float64]:
    """Seconds of work of each job, longest first; a share of them is a hundred times longer."""
    random = np.random.default_rng(0)
    found = random.lognormal(2.0, 0.8, count)
    found[: round(count * long_share)] *= 100
    return np.sort(found)[::-1]


def simulate(work_s: Sequence[float], speeds: Sequence[float], lost_s: dict[int, float]) -> tuple[float, float]:
    """The share of the machines' time that was used, and that of the best possible end that the longest job allows."""
    clock = SimpleNamespace(now_s=0.0)
    placement.time = SimpleNamespace(monotonic=lambda: clock.now_s)  # type: ignore[assignment]
    found = placement.Machines(patience_s=600.0)
    machines: dict[str, Simulated] = {}
    for number, speed in enumerate(speeds):
        found.join(Hello(f"tcp://{number}", f"m{number}", (), 1, LEAST, MOST))
        known = found.get(f"tcp://{number}")
        assert known is not None
        machines[known.address] = Simulated(known, speed, lost_s=lost_s.get(number, np.inf))
    attempts = {k: Attempt(Job(str(k), []), size_bytes=round(s * BYTES_PER_S)) for k, s in enumerate(work_s)}
    jobs = deque(attempts)
    events: list[tuple[float, int, str]] = [(at_s, -1, f"tcp://{number}") for number, at_s in lost_s.items()]
    heapq.heapify(events)

    def start(machine: Simulated) -> None:
        while machine.waiting and machine.running < SLOTS:
            number = machine.waiting.popleft()
            machine.running += 1
            heapq.heappush(events, (clock.now_s + work_s[number] / machine.speed, number, machine.known.address))

    ended, end_s = 0, 0.0
    while ended < len(work_s):
        while jobs:
            try:
                machine = machines[found.choose(attempts[jobs[0]], set()).address]
            except ValueError:  # nobody can take it now
                break
            number = jobs.popleft()
            machine.known.give(number, attempts[number])
            machine.waiting.append(number)
            start(machine)
        clock.now_s, number, address = heapq.heappop(events)
        machine = machines[address]
        if number < 0:  # the machine is lost: its jobs go back
            jobs.extendleft(sorted(machine.known.held, reverse=True))
            found.remove(address)
        elif clock.now_s <= machine.lost_s:
            machine.known.take(number, ended=True)
            machine.running -= 1
            ended, end_s = ended + 1, clock.now_s
            start(machine)
    offered = sum(SLOTS * speed * min(end_s, lost_s.get(number, np.inf)) for number, speed in enumerate(speeds))
    total = sum(work_s)
    best_s = max(total / (SLOTS * sum(speeds)), max(work_s) / max(speeds))
    return total / offered, total / (SLOTS * sum(speeds) * best_s)


def static(work_s: Sequence[float], speeds: Sequence[float]) -> float:
    """The same share where job k is machine k modulo their number's, as an array of shards does."""
    ends = []
    for number, speed in enumerate(speeds):
        free = [0.0] * SLOTS
        for each in work_s[number :: len(speeds)]:
            heapq.heapreplace(free, free[0] + each / speed)
        ends.append(max(free))
    return sum(work_s) / (SLOTS * sum(speeds) * max(ends))


def show_simulations() -> None:
    """Print the table."""
    equal, slow = [1.0] * 64, [0.5] * 6 + [1.0] * 58
    cases = [
        ("20,000 jobs, 64 machines", lengths(20_000), equal, {}),
        ("the same, 6 of them at half speed", lengths(20_000), slow, {}),
        ("the same, 1 % of jobs 100 x longer", lengths(20_000, 0.01), equal, {}),
        ("the same, 4 machines lost on the way", lengths(20_000), equal, {k: 60.0 + 30 * k for k in range(4)}),
        ("20,000 jobs, 1,000 machines", lengths(20_000), [1.0] * 1000, {}),
    ]
    print(f"{'':40} {'used':>6} {'the longest job allows':>24} {'static shards':>14}")
    for name, work_s, speeds, lost_s in cases:
        used, allowed = simulate(work_s.tolist(), speeds, lost_s)
        shards = f"{static(work_s.tolist(), speeds):14.3f}" if not lost_s else f"{'-':>14}"
        print(f"{name:40} {used:6.3f} {allowed:24.3f} {shards}", flush=True)


if __name__ == "__main__":
    show_simulations()
