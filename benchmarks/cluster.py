"""How well many machines are used: the placement of `aupipe extract --scheduler`, in an exact simulation.

    python benchmarks/cluster.py            # 64 and 1,000 machines, 20,000 and 1,000,000 jobs: some minutes
    python benchmarks/cluster.py --quick    # 20,000 jobs only

The run's own rules (`aupipe.extract.executors.cluster.machines`), largest jobs first, against a clock of the
simulation. The figures are the work done divided by what the machines could have done until the last job ended; how
much of that the longest job allows; the one as a share of the other, which is the rules' own part; and the same as the
first for static shards of the jobs. It fails where that part is below 0.95.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.executors import Attempt
from aupipe.extract.executors.cluster import machines as placement
from aupipe.extract.executors.cluster.messages import Hello
from aupipe.extract.planning.plan import Job

SLOTS = 8  # worker processes' decoders of one machine
LEAST, MOST = SLOTS + 2, SLOTS + 64
BYTES_PER_S = 1_000_000  # of video, on one decoder of a machine of usual speed
WANTED = 0.95
NO_LOSS: dict[int, float] = {}
VIDEO = Job("", [])  # which video a job is of does not matter here


@dataclass
class Simulated:
    """A machine: ``speed`` relative to the usual, how many jobs run on it, and those that wait there."""

    known: placement.Machine
    speed: float
    lost_s: float  # when it goes away
    running: int = 0
    waiting: deque[int] = field(default_factory=deque)


def lengths(count: int, long_share: float = 0.0) -> NDArray[np.float64]:
    """Seconds of work of each job, longest first; a share of them is a hundred times longer."""
    random = np.random.default_rng(0)
    found = random.lognormal(2.0, 0.8, count)
    found[: round(count * long_share)] *= 100
    return np.sort(found)[::-1]


def simulate(
    work_s: Sequence[float], speeds: Sequence[float], lost_s: Mapping[int, float] = NO_LOSS
) -> tuple[float, float]:
    """The share of the machines' time that was used, and that of the best possible end that the longest job allows.

    ``work_s``: seconds of each job, longest first. ``lost_s``: when machines go away, by their index in ``speeds``.
    """
    clock = SimpleNamespace(now_s=0.0)
    with patch.object(placement, "time", SimpleNamespace(monotonic=lambda: clock.now_s)):
        end_s = _run(clock, work_s, speeds, lost_s)
    offered = sum(SLOTS * speed * min(end_s, lost_s.get(number, np.inf)) for number, speed in enumerate(speeds))
    total, at_once = sum(work_s), SLOTS * sum(speeds)
    best_s = max(total / at_once, max(work_s) / max(speeds))
    return total / offered, total / (at_once * best_s)


def _run(
    clock: SimpleNamespace, work_s: Sequence[float], speeds: Sequence[float], lost_s: Mapping[int, float]
) -> float:
    """Run all jobs; the second at which the last one ends."""
    found = placement.Machines(patience_s=600.0)
    machines: dict[str, Simulated] = {}
    for number, speed in enumerate(speeds):
        found.join(Hello(f"tcp://{number}", f"m{number}", (), 1, LEAST, MOST))
        known = found.get(f"tcp://{number}")
        assert known is not None
        machines[known.address] = Simulated(known, speed, lost_s.get(number, np.inf))
    events: list[tuple[float, int, str]] = [(at_s, -1, f"tcp://{number}") for number, at_s in lost_s.items()]
    heapq.heapify(events)
    returned, upcoming = deque[int](), 0  # jobs of lost machines; the first job that was never given out

    def start(machine: Simulated) -> None:
        while machine.waiting and machine.running < SLOTS:
            number = machine.waiting.popleft()
            machine.running += 1
            heapq.heappush(events, (clock.now_s + work_s[number] / machine.speed, number, machine.known.address))

    ended, end_s = 0, 0.0
    while ended < len(work_s):
        while returned or upcoming < len(work_s):
            number = returned[0] if returned else upcoming
            attempt = Attempt(VIDEO, size_bytes=round(work_s[number] * BYTES_PER_S))
            if not found.has_slot(attempt.size_bytes):
                break
            machine = machines[found.choose(attempt, set()).address]
            if returned:
                returned.popleft()
            else:
                upcoming += 1
            machine.known.give(number, attempt)
            machine.waiting.append(number)
            start(machine)
        clock.now_s, number, address = heapq.heappop(events)
        machine = machines[address]
        if number < 0:  # the machine is lost: its jobs go back
            returned.extendleft(sorted(machine.known.held, reverse=True))
            found.remove(address)
        elif clock.now_s < machine.lost_s:
            found.take(address, number, ended=True)
            machine.running -= 1
            ended, end_s = ended + 1, clock.now_s
            start(machine)
    return end_s


def static(work_s: Sequence[float], speeds: Sequence[float]) -> float:
    """The same share where job k is machine k modulo their number's, as an array of shards does."""
    ends = []
    for number, speed in enumerate(speeds):
        free = [0.0] * SLOTS
        for each in work_s[number :: len(speeds)]:
            heapq.heapreplace(free, free[0] + each / speed)
        ends.append(max(free))
    return sum(work_s) / (SLOTS * sum(speeds) * max(ends))


Case = tuple[str, int, float, list[float], dict[int, float]]  # name, jobs, share of very long ones, speeds, losses


def cases(quick: bool) -> list[Case]:
    """What is simulated."""
    few, slow = [1.0] * 64, [0.5] * 6 + [1.0] * 58
    many, many_slow = [1.0] * 1000, [0.5] * 100 + [1.0] * 900
    small: list[Case] = [
        ("20,000 jobs, 64 machines", 20_000, 0.0, few, {}),
        ("the same, 6 of them at half speed", 20_000, 0.0, slow, {}),
        ("the same, 1 % of jobs 100 x longer", 20_000, 0.01, few, {}),
        ("the same, 4 machines lost on the way", 20_000, 0.0, few, {k: 60.0 + 30 * k for k in range(4)}),
        ("20,000 jobs, 1,000 machines", 20_000, 0.0, many, {}),
    ]
    large: list[Case] = [
        ("1,000,000 jobs, 64 machines", 1_000_000, 0.0, few, {}),
        ("the same, 1 % of jobs 100 x longer", 1_000_000, 0.01, few, {}),
        ("1,000,000 jobs, 1,000 machines", 1_000_000, 0.0, many, {}),
        ("the same, 100 of them at half speed", 1_000_000, 0.0, many_slow, {}),
        ("the same, 50 machines lost on the way", 1_000_000, 0.0, many, {k: 100.0 + 10 * k for k in range(50)}),
    ]
    return small if quick else small + large


def show_simulations(quick: bool = False) -> float:
    """Print the table; returns the smallest share of what the longest job allows."""
    print(f"{'':40} {'used':>6} {'the longest job allows':>24} {'of that':>8} {'static shards':>14} {'took':>7}")
    lowest = 1.0
    for name, jobs, long_share, speeds, lost_s in cases(quick):
        began_s = time.monotonic()
        work_s = lengths(jobs, long_share).tolist()
        used, allowed = simulate(work_s, speeds, lost_s)
        shards = f"{static(work_s, speeds):14.3f}" if not lost_s else f"{'never end':>14}"
        took = f"{time.monotonic() - began_s:5.0f} s"
        print(f"{name:40} {used:6.3f} {allowed:24.3f} {used / allowed:8.3f} {shards} {took}", flush=True)
        lowest = min(lowest, used / allowed)
    return lowest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 jobs only")
    if (part := show_simulations(parser.parse_args().quick)) < WANTED:
        raise SystemExit(f"{part:.3f} of what the longest job allows, not {WANTED}")
