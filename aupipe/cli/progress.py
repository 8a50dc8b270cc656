"""Progress of a run on stderr: a bar on a terminal, else one line per video; and the load of each stage."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aupipe.cli.output import echo
from aupipe.files import write_file
from aupipe.logs import printable

if TYPE_CHECKING:
    from aupipe.extract.engine.results import JobResult
    from aupipe.extract.executors import ExecutorEvent
    from aupipe.extract.meter import Measured

LINE_EVERY_S = 60.0  # between lines within long videos, without a terminal
BUSY = 0.85  # a stage that is busy for this share of the time limits the run


class Progress:
    """Counts videos, frames and stage times of one run. Called by the thread that runs the plan."""

    def __init__(self, videos: int, quiet: bool = False) -> None:
        self.videos, self.quiet = videos, quiet
        self.done = self.frames = 0
        self.began = self.last_line = time.monotonic()
        self.measured: dict[int, Measured] = {}  # by worker, the newest
        self.events: list[dict[str, object]] = []
        self.bar = None
        self.lock = threading.Lock()
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self.bar = tqdm(total=videos, unit="video", dynamic_ncols=True, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def on_event(self, event: ExecutorEvent) -> None:
        """Called with every event of the executor."""
        from aupipe.extract.engine.events import FramesDecoded
        from aupipe.extract.executors import StagesMeasured

        if isinstance(event, FramesDecoded):
            self.on_frames(event.count)
        elif isinstance(event, StagesMeasured):
            self.on_measured(event.process, event.measured)

    def on_frames(self, count: int) -> None:
        """Called for every chunk of frames; a frame that is decoded twice counts twice."""
        with self.lock:
            self.frames += count
            if self.bar is not None:
                self.bar.set_postfix_str(f"{self.frames / max(self.seconds, 1e-9):.0f} frames/s{self._queues()}")
            elif not self.quiet and time.monotonic() - self.last_line > LINE_EVERY_S:
                text = f"[{self.done}/{self.videos}] {self.frames:,} frames decoded in {self.seconds:.0f} s"
                self._line(text + self._queues())

    def on_measured(self, worker: int, measured: Measured) -> None:
        """Called twice a second with the totals of a worker's stages."""
        from aupipe.extract.meter import trace_events

        with self.lock:
            self.measured[worker] = measured
            self.events += trace_events(worker, measured.events)

    def _queues(self) -> str:
        """The queues that are at least half full: the stage that reads from a full queue limits the run."""
        filled: dict[str, float] = {}
        for measured in self.measured.values():
            for name, share in measured.filled.items():
                filled[name] = max(filled.get(name, 0.0), share)
        return "".join(f", {name} queue {share:.0%}" for name, share in filled.items() if share >= 0.5)

    def on_result(self, result: JobResult) -> None:
        """Called once per video, when it ends."""
        with self.lock:
            self.done += 1
            if self.bar is not None:
                self.bar.update()
            faces = ", ".join(
                f"face in {count:,}" if len(result.faces) == 1 else f"{name}: face in {count:,}"
                for name, count in result.faces.items()
            )
            parts = [f"{result.frames:,} frames"] + [faces] * bool(faces) + [f"{result.seconds:.1f} s"]
            text = ", ".join(parts) if result.published else "FAILED"
            self._line(f"[{self.done:>{len(str(self.videos))}}/{self.videos}] {result.video_id}  {text}")
            for note in result.notes:
                self._line(f"    {note}")
            names_of: dict[str, list[str]] = {}
            for failure in result.failed:
                names_of.setdefault(failure.reason, []).append(failure.feature.partition("@")[0])
            for reason, names in names_of.items():
                self._line(f"    FAILED {', '.join(names)}: {reason}")

    def stages(self) -> dict[str, dict[str, Any]]:
        """Totals of each stage over all workers, in the order in which a frame passes them."""
        from aupipe.extract.meter import STAGES, StageTotals

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

    def cpu_s(self) -> float:
        """CPU time of all workers in seconds, including their start."""
        return sum(measured.cpu_s for measured in self.measured.values())

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

    def write_trace(self, path: Path, overwrite: bool = False) -> None:
        """Write the steps of all stages in Chrome's trace format. Raises UsageError for a file that exists."""
        write_file(path, json.dumps({"traceEvents": self.events, "displayTimeUnit": "ms"}), overwrite)

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.write(printable(text), file=sys.stderr)
        else:
            echo(text, err=True)
