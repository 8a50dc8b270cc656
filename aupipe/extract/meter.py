"""What each stage did: frames, busy time, processor time; how far videos are; and a trace where one is wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

QUIET_S = 1.0  # steps that take less are not told of
STAGES = ("load", "decode", "detect", "align", "encode", "write", "sound")  # in the order they come
# What a video goes through, each time from its beginning to its end: frames, times and faces; inputs to the visual
# encoders; sound and words.
PHASES = ("scan", "encode", "sound")


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

    def __sub__(self, before: StageTotals) -> StageTotals:
        """What has been done since; ``at_once`` stays."""
        return StageTotals(
            self.frames - before.frames, self.busy_s - before.busy_s, self.cpu_s - before.cpu_s, self.at_once
        )


@dataclass
class Step:
    """One piece of work of one stage; ``frames`` may be set while it runs."""

    frames: int = 0
    stage: str = ""
    video: str = ""  # "" for work on several at once
    media_s: float = 0.0  # length of the media it goes through, where it goes through all
    progress: Callable[[], int] = lambda: 0  # anything that changes while the step gets on
    seen: int = 0  # what `progress` gave last
    since_s: float = field(default_factory=lambda: time.monotonic())  # when that was another


@dataclass
class PhaseTotals:
    """Seconds of media that a phase has gone through, all videos together, and the seconds that took them."""

    media_s: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: PhaseTotals) -> PhaseTotals:
        return PhaseTotals(self.media_s + other.media_s, self.seconds + other.seconds)


@dataclass(frozen=True)
class PhasePosition:
    """How far one phase of a video under way is, in seconds of media; ``length_s`` is what its header says, or 0."""

    video: str
    phase: str
    done_s: float
    length_s: float


@dataclass
class _Phase:
    """A phase of a video; ``position`` gives (done_s, length_s)."""

    position: Callable[[], tuple[float, float]]
    began_s: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # once it has ended

    def totals(self) -> PhaseTotals:
        return PhaseTotals(self.position()[0], self.seconds or time.monotonic() - self.began_s)


@dataclass(frozen=True)
class QuietStep:
    """A step that runs and has not got on for ``quiet_s`` seconds."""

    stage: str
    video: str  # "" for work on several at once
    frames: int
    media_s: float
    quiet_s: float


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
    filled: dict[str, float] = field(default_factory=dict)  # queue -> share of its capacity in use, when last sampled
    events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: dict[str, int] = field(default_factory=dict)
    _steps: dict[int, Step] = field(default_factory=dict)  # by thread: steps do not nest
    _phases: dict[str, dict[str, _Phase]] = field(default_factory=dict)  # of the videos under way
    _phase_totals: dict[str, PhaseTotals] = field(default_factory=dict)  # of those that have ended
    _local: threading.local = field(default_factory=threading.local)

    @contextmanager
    def video(self, video_id: str, media_s: float = 0.0) -> Iterator[None]:
        """The steps of the calling thread are, inside, of this video; ``media_s``: how long it is, where known."""
        before = self._of_thread()
        self._local.video = video_id, media_s
        try:
            yield
        finally:
            self._local.video = before

    @contextmanager
    def job(self, video_id: str) -> Iterator[None]:
        """The phases of a video that begin inside are told of until it is left."""
        try:
            yield
        finally:
            with self._lock:
                for name, phase in self._phases.pop(video_id, {}).items():
                    self._phase_totals[name] = self._phase_totals.get(name, PhaseTotals()) + phase.totals()

    @contextmanager
    def phase(self, video_id: str, name: str, position: Callable[[], tuple[float, float]]) -> Iterator[None]:
        """Count what happens inside as one of `PHASES` of a video; ``position`` says how far it is of how much.

        Any thread may call ``position``, at any time: seconds of media, both.
        """
        phase = _Phase(position)
        with self._lock:
            self._phases.setdefault(video_id, {})[name] = phase
        try:
            yield
        finally:
            reached = position()
            with self._lock:
                phase.position = lambda: reached
                phase.seconds = time.monotonic() - phase.began_s

    def _of_thread(self) -> tuple[str, float]:
        return getattr(self._local, "video", ("", 0.0))

    @contextmanager
    def timed(self, stage: str, frames: int = 0, progress: Callable[[], int] = lambda: 0) -> Iterator[Step]:
        """Count what happens inside as one step of ``stage``. Steps do not nest.

        ``progress`` gives a number that changes while the step gets on: a step may take long, and must not stand still.
        """
        step = Step(frames, stage, *self._of_thread(), progress)
        thread = threading.get_ident()
        with self._lock:
            self._steps[thread] = step
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
                self._steps.pop(thread, None)
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
                self._quiet(time.monotonic()),
                self._sum_phases(),
                tuple(
                    PhasePosition(video, name, *phase.position())
                    for video, phases in self._phases.items()
                    for name, phase in phases.items()
                ),
            )

    def _sum_phases(self) -> dict[str, PhaseTotals]:
        sums = dict(self._phase_totals)
        for phases in self._phases.values():
            for name, phase in phases.items():
                sums[name] = sums.get(name, PhaseTotals()) + phase.totals()
        return sums

    def _quiet(self, now_s: float) -> tuple[QuietStep, ...]:
        """The running steps that have not got on for a while."""
        found = []
        for step in self._steps.values():
            if (progress := step.progress()) != step.seen:
                step.seen, step.since_s = progress, now_s
            elif now_s - step.since_s >= QUIET_S:
                found.append(QuietStep(step.stage, step.video, step.frames, step.media_s, now_s - step.since_s))
        return tuple(found)


@dataclass(frozen=True)
class Measured:
    """A snapshot of a process: its stages, the fill of its queues, its processor time since it began to work."""

    stages: dict[str, StageTotals]
    filled: dict[str, float]
    cpu_s: float
    events: tuple[Event, ...] = ()
    quiet: tuple[QuietStep, ...] = ()
    phases: dict[str, PhaseTotals] = field(default_factory=dict)
    under_way: tuple[PhasePosition, ...] = ()


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
