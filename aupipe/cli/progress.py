"""Progress of a run on stderr: a bar on a terminal, else one line per video."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aupipe.cli.output import echo
from aupipe.files import write_file
from aupipe.logs import printable

if TYPE_CHECKING:
    from aupipe.extract.engine.results import JobResult
    from aupipe.extract.executors import ExecutorEvent
    from aupipe.extract.executors.totals import RunTotals

LINE_EVERY_S = 60.0  # between lines within long videos, without a terminal


class Progress:
    """Shows what a run has done. Called by the thread that runs the plan, after the totals were brought up to date."""

    def __init__(self, totals: RunTotals, quiet: bool = False) -> None:
        self.totals, self.quiet = totals, quiet
        self.videos = len(totals.size_bytes)
        self.last_line = time.monotonic()
        self.events: list[dict[str, object]] = []
        self.bar = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self.bar = tqdm(total=self.videos, unit="video", dynamic_ncols=True, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_event(self, event: ExecutorEvent) -> None:
        """Called with every event of the executor."""
        from aupipe.extract.engine.events import FramesDecoded
        from aupipe.extract.executors import StagesMeasured
        from aupipe.extract.meter import trace_events

        if isinstance(event, FramesDecoded):
            if self.bar is not None:
                self.bar.set_postfix_str(f"{self.totals.frames_per_s:.0f} frames/s{self._queues()}")
            elif not self.quiet and time.monotonic() - self.last_line > LINE_EVERY_S:
                counted = f"{self.totals.frames:,} frames decoded in {self.totals.seconds:.0f} s"
                self._line(f"[{self.totals.ended}/{self.videos}] {counted}{self._queues()}")
        elif isinstance(event, StagesMeasured):
            self.events += trace_events(event.process, event.measured.events)

    def _queues(self) -> str:
        """The queues that are at least half full: the stage that reads from a full queue limits the run."""
        filled: dict[str, float] = {}
        for measured in self.totals.measured.values():
            for name, share in measured.filled.items():
                filled[name] = max(filled.get(name, 0.0), share)
        return "".join(f", {name} queue {share:.0%}" for name, share in filled.items() if share >= 0.5)

    def on_result(self, result: JobResult) -> None:
        """Called once per video, when it ends."""
        if self.bar is not None:
            self.bar.update()
        faces = ", ".join(
            f"face in {count:,}" if len(result.faces) == 1 else f"{name}: face in {count:,}"
            for name, count in result.faces.items()
        )
        parts = [f"{result.frames:,} frames"] + [faces] * bool(faces) + [f"{result.seconds:.1f} s"]
        text = ", ".join(parts) if result.published else "FAILED"
        self._line(f"[{self.totals.ended:>{len(str(self.videos))}}/{self.videos}] {result.video_id}  {text}")
        for note in result.notes:
            self._line(f"    {note}")
        names_of: dict[str, list[str]] = {}
        for failure in result.failed:
            names_of.setdefault(failure.reason, []).append(failure.feature.partition("@")[0])
        for reason, names in names_of.items():
            self._line(f"    FAILED {', '.join(names)}: {reason}")

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
