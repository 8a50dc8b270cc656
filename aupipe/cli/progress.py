"""How far it is: a bar on a terminal, a line per video elsewhere; always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from aupipe.extract.job import Outcome

LINE_EVERY_S = 60.0  # without a terminal, a sign of life within long videos


class Progress:
    """Counts videos and frames of one run. Frames are reported from worker threads."""

    def __init__(self, videos: int, quiet: bool = False) -> None:
        self.videos, self.quiet = videos, quiet
        self.done = self.frames = 0
        self.began = self.last_line = time.monotonic()
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

    def on_frames(self, count: int) -> None:
        """Called by workers for every chunk; a frame that is decoded twice counts twice, as it costs."""
        with self.lock:
            self.frames += count
            if self.bar is not None:
                self.bar.set_postfix_str(f"{self.frames / max(self.seconds, 1e-9):.0f} frames/s")
            elif not self.quiet and time.monotonic() - self.last_line > LINE_EVERY_S:
                self._line(f"[{self.done}/{self.videos}] {self.frames:,} frames decoded in {self.seconds:.0f} s")

    def on_outcome(self, outcome: Outcome) -> None:
        """Called once per video, as it ends."""
        with self.lock:
            self.done += 1
            if self.bar is not None:
                self.bar.update()
            faces = ", ".join(
                f"face in {count:,}" if len(outcome.faces) == 1 else f"{name}: face in {count:,}"
                for name, count in outcome.faces.items()
            )
            parts = [f"{outcome.frames:,} frames"] + [faces] * bool(faces) + [f"{outcome.seconds:.1f} s"]
            text = ", ".join(parts) if outcome.published else "FAILED"
            self._line(f"[{self.done:>{len(str(self.videos))}}/{self.videos}] {outcome.job.video_id}  {text}")
            for note in outcome.notes:
                self._line(f"    {note}")
            for failure in outcome.failed:
                self._line(f"    FAILED {failure.feature.partition('@')[0]}: {failure.reason}")

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)
