"""Progress of a run on stderr: a block of lines that is drawn again on a terminal, else a line a minute."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aupipe.cli.live import LiveLines, bar_line, is_terminal
from aupipe.cli.output import echo
from aupipe.files import write_file
from aupipe.quantities import counted, describe_bytes, duration_of

if TYPE_CHECKING:
    from aupipe.extract.engine.results import JobResult
    from aupipe.extract.executors import ExecutorEvent
    from aupipe.extract.executors.machine_usage import MachineUsage
    from aupipe.extract.executors.media_progress import MediaState
    from aupipe.extract.executors.totals import RunTotals

LINE_EVERY_S = 60.0  # without a terminal
DRAW_EVERY_S = 0.5  # on one
REST = 20  # after a drawing, this many times as long as it took: of a run on many machines it takes a while
NARROW = 60  # columns, below which lines are shortened


class Progress:
    """Shows what a run has done. Called by the thread that runs the plan, after the totals were brought up to date."""

    def __init__(self, totals: RunTotals, quiet: bool = False) -> None:
        self.totals, self.quiet = totals, quiet
        self.events: list[dict[str, object]] = []
        self.live = LiveLines(err=True) if is_terminal(err=True) and not quiet else None
        self._lines: list[str] = []
        self._due_s = time.monotonic() + self._every_s

    @property
    def _every_s(self) -> float:
        return LINE_EVERY_S if self.live is None else DRAW_EVERY_S

    def __enter__(self) -> Self:
        if self.live is not None:
            self._show()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.clear()

    def on_event(self, event: ExecutorEvent) -> None:
        """Called with every event of the executor."""
        from aupipe.extract.executors import StagesMeasured
        from aupipe.extract.meter import trace_events

        if isinstance(event, StagesMeasured):
            self.events += trace_events(event.process, event.measured.events)
        if time.monotonic() > self._due_s:
            self._show()

    def on_result(self, result: JobResult) -> None:
        """Called once per video, when it ends."""
        faces = ", ".join(
            f"face in {count:,}" if len(result.faces) == 1 else f"{name}: face in {count:,}"
            for name, count in result.faces.items()
        )
        parts = [counted(result.frames, "frame")] + [faces] * bool(faces) + [f"{result.seconds:.1f} s"]
        text = ", ".join(parts) if result.published else "FAILED"
        videos = len(self.totals.jobs)
        self._print(f"[{self.totals.ended:>{len(str(videos))}}/{videos}] {result.video_id}  {text}")
        for note in result.notes:
            self._print(f"    {note}")
        names_of: dict[str, list[str]] = {}
        for failure in result.failed:
            names_of.setdefault(failure.reason, []).append(failure.feature.partition("@")[0])
        for reason, names in names_of.items():
            self._print(f"    FAILED {', '.join(names)}: {reason}")
        if self.live is not None and time.monotonic() > self._due_s:
            self._show()
        elif self.live is not None:  # the lines were cleared for the ones above
            self.live.draw(self._lines)

    def write_trace(self, path: Path, overwrite: bool = False) -> None:
        """Write the steps of all stages in Chrome's trace format. Raises UsageError for a file that exists."""
        write_file(path, json.dumps({"traceEvents": self.events, "displayTimeUnit": "ms"}), overwrite)

    def _print(self, text: str) -> None:
        if self.live is not None:
            self.live.print(text)
        elif not self.quiet:
            echo(text, err=True)

    def _show(self) -> None:
        began_s = time.monotonic()
        if self.live is not None:
            self._lines = block(self.totals, self.live.size()[0])
            self.live.draw(self._lines)
        elif not self.quiet:
            echo(line(self.totals), err=True)
        ended_s = time.monotonic()
        self._due_s = max(began_s + self._every_s, ended_s + REST * (ended_s - began_s))


def block(totals: RunTotals, columns: int) -> list[str]:
    """What a terminal of so many columns shows of a run."""
    state = totals.media_state()
    lines = [bar_line(state.share, _how_far(state, columns), columns)]
    lines.append(_fitting(_counts(totals, state), columns))
    lines.append(_stages(totals, columns))
    lines.append(_fitting(describe_usage(list(totals.usage.values())), columns))
    lines.append(_under_way(state, columns))
    if totals.last_failure is not None:
        lines.append(f"last failure: {totals.last_failure.recording}: {totals.last_failure.reason}")
    return [line for line in lines if line]


def line(totals: RunTotals) -> str:
    """The same in one line, for files."""
    from aupipe.extract.executors.totals import busiest_of, describe_stage

    state, stages = totals.media_state(), totals.recent_stages()
    parts = [f"{state.share:.0%} of {duration_of(state.total_s)} of media"] if state.total_s else []
    parts += _counts(totals, state)
    parts += [_left(state)] if state.left_s is not None else []
    parts += ["busiest: " + describe_stage(busiest_of(stages), stages[busiest_of(stages)])] if stages else []
    parts += describe_usage(list(totals.usage.values()))
    return f"[{totals.ended}/{len(totals.jobs)}] {', '.join(parts)}"


def _how_far(state: MediaState, columns: int) -> str:
    if state.total_s is None:
        return "starting"
    left = _left(state) if state.left_s is not None else ""
    if columns < NARROW:
        return left or duration_of(state.total_s)
    return ", ".join(filter(None, [f"{duration_of(state.done_s)} of {duration_of(state.total_s)} of media", left]))


def _left(state: MediaState) -> str:
    assert state.left_s is not None
    return f"{'more than ' * state.is_least}{duration_of(state.left_s)} left"


def _counts(totals: RunTotals, state: MediaState) -> list[str]:
    parts = [f"{totals.ended:,} of {counted(len(totals.jobs), 'video')}"]
    parts += [f"{totals.failed:,} failed"] if totals.failed else []
    parts += [f"{state.done_s / totals.working_s:.2g}x real time"] if state.done_s and totals.working_s else []
    parts += [f"{totals.frames_per_s:.0f} frames/s"] if totals.frames else []
    return [*parts, f"{duration_of(totals.seconds)} so far"]


def _stages(totals: RunTotals, columns: int) -> str:
    """The load of the stages, the busiest one in brackets; where they do not fit, the least busy ones are left out."""
    from aupipe.extract.executors.totals import busiest_of, describe_stage

    stages = totals.recent_stages()
    busiest = busiest_of(stages)
    while stages:
        texts = [describe_stage(stage, content) for stage, content in stages.items()]
        marked = [f"[{text}]" if stage == busiest else text for stage, text in zip(stages, texts, strict=True)]
        if len(text := "busy: " + "  ".join(marked)) <= columns or len(stages) == 1:
            return text
        del stages[min(stages, key=lambda stage: stages[stage]["busy"])]
    return ""


def describe_usage(machines: Sequence[MachineUsage]) -> list[str]:
    """How much is in use: of one machine, or the mean of several."""
    if not machines:
        return []
    hosts = {one.host: one for one in machines}
    parts = [f"cpu {fmean(one.cpu for one in hosts.values()):.0%}" + f" of {len(hosts)} machines" * (len(hosts) > 1)]
    parts.append(f"memory {max(one.memory for one in hosts.values()):.0%}")
    for name, shares in (
        ("gpu", [one.gpu for one in machines if one.gpu is not None]),
        ("gpu memory", [one.gpu_memory for one in machines if one.gpu_memory is not None]),
    ):
        parts += [f"{name} {fmean(shares):.0%}"] if shares else []
    fullest = max(machines, key=lambda one: one.disk)
    return [*parts, f"disk {fullest.disk:.0%} full", f"{describe_bytes(fullest.disk_free_bytes)} free"]


def _under_way(state: MediaState, columns: int) -> str:
    texts = [f"{video} {share:.0%}" for video, share in state.under_way]
    return _fitting(texts, columns, "now: ", ", and {} more")


def _fitting(parts: Sequence[str], columns: int, before: str = "", more: str = "") -> str:
    """As many parts as fit, at least one; ``more`` says how many do not."""
    text = shown = ""
    for count, part in enumerate(parts, 1):
        shown += f", {part}" if shown else before + part
        if text and len(shown) > columns:
            break
        whole = shown + (more.format(len(parts) - count) if count < len(parts) else "")
        if not text or len(whole) <= columns:
            text = whole
    return text
