"""What each stage did: frames, busy time, processor time; and a trace of it where one is wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

STAGES = ("decode", "detect", "align", "encode", "write", "sound")  # in the order a frame goes through them


@dataclass
class StageTotals:
    """What a stage has done so far, all threads together; seconds."""

    frames: int = 0
    busy_s: float = 0.0
    cpu_s: float = 0.0
    at_once: int = 0  # most steps that ever ran beside each other

    def __add__(self, other: StageTotals) -> StageTotals:
        return StageTotals(
            self.frames + other.frames,
            self.busy_s + other.busy_s,
            self.cpu_s + other.cpu_s,
            self.at_once + other.at_once,
        )


@dataclass
class Step:
    """One piece of work of one stage; ``frames`` may be set while it runs."""

    frames: int = 0


@dataclass(frozen=True)
class Event:
    """One step in a trace. Times in seconds of the machine's monotonic clock, which all processes share."""

    stage: str
    thread: str
    begin_s: float
    seconds: float
    frames: int


@dataclass
class Meter:
    """Adds up steps, from any thread. ``trace``: remember each one."""

    trace: bool = False
    totals: dict[str, StageTotals] = field(default_factory=dict)
    filled: dict[str, float] = field(default_factory=dict)  # queue -> share of its room in use, when last looked at
    events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str, frames: int = 0) -> Iterator[Step]:
        """Count what happens inside as one step of ``stage``. Steps do not nest."""
        step = Step(frames)
        with self._lock:
            total = self.totals.setdefault(stage, StageTotals())
            self._running[stage] = self._running.get(stage, 0) + 1
            total.at_once = max(total.at_once, self._running[stage])
        began, cpu = time.perf_counter(), time.thread_time()
        try:
            yield step
        except Exception as error:
            if not hasattr(error, "stage"):
                error.stage = stage  # type: ignore[attr-defined]  # where it happened, for whoever reports it
            raise
        finally:
            cpu, busy = time.thread_time() - cpu, time.perf_counter() - began
            with self._lock:
                self._running[stage] -= 1
                total.frames += step.frames
                total.busy_s += busy
                total.cpu_s += cpu
                if self.trace:
                    self.events.append(Event(stage, threading.current_thread().name, began, busy, step.frames))

    def snapshot(self) -> Measured:
        """What was counted until now, and the events since the last snapshot."""
        with self._lock:
            events, self.events = self.events, []
            return Measured(
                {stage: replace(total) for stage, total in self.totals.items()},
                dict(self.filled),
                time.process_time(),
                tuple(events),
            )


@dataclass(frozen=True)
class Measured:
    """A snapshot of a process: its stages, the fill of its queues, its processor time since it began to work."""

    stages: dict[str, StageTotals]
    filled: dict[str, float]
    cpu_s: float
    events: tuple[Event, ...] = ()


def trace_events(worker: int, events: tuple[Event, ...]) -> list[dict[str, object]]:
    """Events as the Chrome trace format has them (``chrome://tracing``, Perfetto): one row per thread."""
    return [
        {
            "name": event.stage,
            "cat": "stage",
            "ph": "X",
            "pid": worker,
            "tid": event.thread,
            "ts": event.begin_s * 1e6,
            "dur": event.seconds * 1e6,
            "args": {"frames": event.frames},
        }
        for event in events
    ]
