"""What a run has done so far, added up from the events of its executor and the results of its videos."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aupipe.extract.engine.events import FramesDecoded
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import ExecutorEvent, StagesMeasured
from aupipe.extract.executors.machine_usage import MachineUsage
from aupipe.extract.executors.media_progress import JobMedia, MediaProgress, MediaState
from aupipe.extract.meter import PHASES, STAGES, Measured, PhaseTotals, StageTotals
from aupipe.store import ItemRecord

BUSY = 0.85  # a stage that is busy for this share of the time limits the run
MARK_EVERY_S, RECENT_S = 2.0, 20.0  # what a stage does now is what it did in the last seconds

Totals = TypeVar("Totals", StageTotals, PhaseTotals)
StageTable = dict[str, dict[str, Any]]


@dataclass
class RunTotals:
    """Counts of one run. ``jobs``: what it has to do, by video id; ``costs``: as `MediaProgress` has them."""

    jobs: Mapping[str, JobMedia]
    costs: Mapping[str, float] = field(default_factory=dict)
    frames: int = 0  # a frame that is decoded twice counts twice
    ended: int = 0  # videos, whatever came of them
    failed: int = 0  # of those, with an item that failed
    last_failure: ItemRecord | None = None
    measured: dict[int, Measured] = field(default_factory=dict)  # by worker process, the newest
    usage: dict[tuple[str, str], MachineUsage] = field(default_factory=dict)  # by host and device, the newest
    media: MediaProgress = field(init=False)
    _began_s: float = field(default_factory=time.monotonic)
    _first_s: float | None = None  # when the first video was opened
    _marks: deque[tuple[float, dict[str, StageTotals]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.media = MediaProgress(self.jobs, self.costs)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began_s

    @property
    def working_s(self) -> float:
        """Since the first video was opened; before that the worker processes start."""
        return 0.0 if self._first_s is None else self.seconds - self._first_s

    @property
    def frames_per_s(self) -> float:
        return self.frames / max(self.seconds, 1e-9)

    def add_event(self, event: ExecutorEvent) -> None:
        """Take in an event of the executor."""
        match event:
            case FramesDecoded(count):
                self.frames += count
                self._note_work(0.0)
            case MachineUsage():
                self.usage[event.host, event.device] = event
            case StagesMeasured(process, measured):
                self.measured[process] = measured
                if measured.phases:
                    self._note_work(0.0)
                if not self._marks or self.seconds - self._marks[-1][0] > MARK_EVERY_S:
                    self._marks.append((self.seconds, self._sums()))
                    while len(self._marks) > 2 and self.seconds - self._marks[1][0] > RECENT_S:
                        self._marks.popleft()

    def _note_work(self, since_s: float) -> None:
        if self._first_s is None:
            self._first_s = self.seconds - since_s

    def add_result(self, result: JobResult) -> None:
        """Take in what came of a video."""
        self._note_work(result.seconds)
        self.ended += 1
        self.failed += bool(result.failed)
        self.last_failure = result.failed[0] if result.failed else self.last_failure
        self.media.end(result.video_id, result.media_s)

    def media_state(self) -> MediaState:
        """How much of the media is done, and how long the rest takes."""
        positions = (one for measured in self.measured.values() for one in measured.under_way)
        return self.media.state(positions, self.phases(), self.working_s)

    def phases(self) -> dict[str, PhaseTotals]:
        """Media that went through each phase, and what that took, over all worker processes."""
        return _added(PHASES, [measured.phases for measured in self.measured.values()], PhaseTotals())

    def cpu_s(self) -> float:
        """CPU time of all worker processes in seconds, including their start."""
        return sum(measured.cpu_s for measured in self.measured.values())

    def _sums(self) -> dict[str, StageTotals]:
        """Totals of each stage over all worker processes, in the order in which a frame passes them."""
        return _added(STAGES, [measured.stages for measured in self.measured.values()], StageTotals())

    def stages(self) -> StageTable:
        """What each stage has done since the run began."""
        return {stage: _described(total, self.seconds) for stage, total in self._sums().items()}

    def recent_stages(self) -> StageTable:
        """What each stage has done in the last seconds; since the run began while that is not long ago."""
        if not self._marks:
            return {}
        since_s, before = self._marks[0]
        if self.seconds - since_s < MARK_EVERY_S:
            return self.stages()
        return {
            stage: _described(total - before.get(stage, StageTotals()), self.seconds - since_s)
            for stage, total in self._sums().items()
        }

    def limit(self) -> str:
        """The load of each stage and the busiest one, as text; empty where nothing was measured."""
        stages = self.stages()
        if not stages:
            return ""
        busiest = busiest_of(stages)
        rates = ", ".join(describe_stage(stage, content) for stage, content in stages.items())
        summary = f"{busiest} was the limit" if stages[busiest]["busy"] >= BUSY else f"{busiest} was busiest"
        return f"stages busy: {rates}; {summary}"


def busiest_of(stages: StageTable) -> str:
    """The stage that is busy for the largest share of the time; '' of none."""
    return max(stages, key=lambda stage: stages[stage]["busy"], default="")


def describe_stage(stage: str, content: Mapping[str, Any]) -> str:
    """``detect 88% (19/s)``: how busy, and the frames a second it would do if it never waited."""
    return f"{stage} {content['busy']:.0%}" + (f" ({content['frames_per_s']:.0f}/s)" if content["frames"] else "")


def _added(names: Sequence[str], parts: Sequence[Mapping[str, Totals]], none: Totals) -> dict[str, Totals]:
    """The sum over all parts for each name that any of them has, in the order of ``names``; ``none``: of nothing."""
    known = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(totals, none) for name, totals in known.items() if totals}


def _described(total: StageTotals, seconds: float) -> dict[str, Any]:
    return {
        "frames": total.frames,
        "busy_s": round(total.busy_s, 3),
        "cpu_s": round(total.cpu_s, 3),
        "busy": round(total.busy_s / max(seconds * total.at_once, 1e-9), 3),
        "frames_per_s": round(total.frames / max(total.busy_s, 1e-9) * total.at_once, 1),
    }
