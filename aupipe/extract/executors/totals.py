"""What a run has done so far, added up from the events of its executor and the results of its videos."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aupipe.extract.engine.events import FramesDecoded
from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import ExecutorEvent, StagesMeasured
from aupipe.extract.meter import STAGES, Measured, StageTotals

BUSY = 0.85  # a stage that is busy for this share of the time limits the run


@dataclass
class RunTotals:
    """Counts of one run. ``size_bytes``: video id -> size of its file, a measure of what is left."""

    size_bytes: Mapping[str, int]
    frames: int = 0  # a frame that is decoded twice counts twice
    ended: int = 0  # videos, whatever came of them
    failed: int = 0  # of those, with an item that failed
    measured: dict[int, Measured] = field(default_factory=dict)  # by worker process, the newest
    _ended_frames: int = 0
    _ended_bytes: int = 0
    _began_s: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began_s

    @property
    def frames_per_s(self) -> float:
        return self.frames / max(self.seconds, 1e-9)

    def add_event(self, event: ExecutorEvent) -> None:
        """Take in an event of the executor."""
        if isinstance(event, FramesDecoded):
            self.frames += event.count
        elif isinstance(event, StagesMeasured):
            self.measured[event.process] = event.measured

    def add_result(self, result: JobResult) -> None:
        """Take in what came of a video."""
        self.ended += 1
        self.failed += bool(result.failed)
        self._ended_frames += result.frames
        self._ended_bytes += self.size_bytes.get(result.video_id, 0)

    def left_s(self) -> float | None:
        """How long the rest will take at the rate so far; None while nothing is known of it.

        By frames, where the videos that have ended say how many a byte holds: then a long video counts while it is
        under way. Else by the bytes of the videos that have ended.
        """
        total = sum(self.size_bytes.values())
        if not self._ended_bytes or not total:
            return None
        done = self._ended_bytes / total
        if self._ended_frames and self.frames:
            done = max(done, min(self.frames / (self._ended_frames / self._ended_bytes * total), 0.999))
        return self.seconds * (1 - done) / done

    def cpu_s(self) -> float:
        """CPU time of all worker processes in seconds, including their start."""
        return sum(measured.cpu_s for measured in self.measured.values())

    def stages(self) -> dict[str, dict[str, Any]]:
        """Totals of each stage over all worker processes, in the order in which a frame passes them."""
        table = {}
        for stage in STAGES:
            totals = [measured.stages[stage] for measured in self.measured.values() if stage in measured.stages]
            if not totals:
                continue
            total = sum(totals, StageTotals())
            table[stage] = {
                "frames": total.frames,
                "busy_s": round(total.busy_s, 3),
                "cpu_s": round(total.cpu_s, 3),
                "busy": round(total.busy_s / max(self.seconds * total.at_once, 1e-9), 3),
                "frames_per_s": round(total.frames / max(total.busy_s, 1e-9) * total.at_once, 1),
            }
        return table

    def limit(self) -> str:
        """The load of each stage and the busiest one, as text; empty where nothing was measured."""
        stages = self.stages()
        if not stages:
            return ""
        busiest = max(stages, key=lambda stage: stages[stage]["busy"])
        rates = ", ".join(
            f"{stage} {content['busy']:.0%}" + (f" ({content['frames_per_s']:.0f}/s)" if content["frames"] else "")
            for stage, content in stages.items()
        )
        summary = f"{busiest} was the limit" if stages[busiest]["busy"] >= BUSY else f"{busiest} was busiest"
        return f"stages busy: {rates}; {summary}"
