"""The log of an extraction: its progress, its machines, and what happened to single videos."""

from __future__ import annotations

import platform
from typing import Any

from aupipe.extract.engine.results import JobResult
from aupipe.extract.executors import ExecutorEvent, JobHangs, MachineChanged, WorkerDied
from aupipe.extract.executors.driver import size_of
from aupipe.extract.executors.totals import RunTotals
from aupipe.extract.planning.plan import Plan
from aupipe.extract.versions import library_versions
from aupipe.store import Store
from aupipe.store.run_log import RunLog, short

FIRST_EVERY_S, LAST_EVERY_S = 2.0, 60.0  # between lines of progress: those of a week are 6 MB
SHARE = 0.002  # of the time that has passed, in between: 7 s after an hour, a minute after 8


class ExtractionLog:
    """Writes a run's events and results into its log. Called by the thread that runs the plan."""

    def __init__(self, log: RunLog, totals: RunTotals) -> None:
        self.log, self.totals = log, totals
        self._next_s = 0.0
        self._machines: dict[str, int] = {}  # state -> how many times a machine got into it

    def on_event(self, event: ExecutorEvent) -> None:
        """Called with every event of the executor."""
        match event:
            case MachineChanged(host, state, reason, slots):
                self._machines[state] = self._machines.get(state, 0) + 1
                self.log.write("machine", host=host, state=state, reason=short(reason), worker_processes=slots)
            case WorkerDied(attempts, reason):
                for attempt in attempts:
                    self.log.write("video", video=attempt.job.video_id, died=short(reason))
            case JobHangs(attempt, reason):
                self.log.write("video", video=attempt.job.video_id, hangs=short(reason))
        if self.totals.seconds >= self._next_s:
            self.log.write("progress", **self.progress())
            self._next_s = self.totals.seconds + min(LAST_EVERY_S, max(FIRST_EVERY_S, SHARE * self.totals.seconds))

    def on_result(self, result: JobResult) -> None:
        """Called once per video, when it ends: one line where something is to be said of it."""
        notes = [short(note) for note in result.notes]
        failed = [
            {"recording": record.recording, "feature": record.feature, "reason": short(record.reason)}
            for record in result.failed
        ]
        if notes or failed:
            about = {"notes": notes} if notes else {}
            self.log.write("video", video=result.video_id, **about, **({"failed": failed} if failed else {}))

    def progress(self) -> dict[str, Any]:
        """The content of a line of progress."""
        totals, state = self.totals, self.totals.media_state()
        return {
            "seconds": round(totals.seconds, 1),
            "videos_ended": totals.ended,
            "videos_failed": totals.failed,
            "frames": totals.frames,
            "frames_per_s": round(totals.frames_per_s, 1),
            "media_s": round(state.done_s, 1),
            "media_total_s": None if state.total_s is None else round(state.total_s, 1),
            "left_s": None if state.left_s is None else round(state.left_s),
            **({"left_is_least": True} if state.is_least else {}),
            "busy": {stage: content["busy"] for stage, content in totals.recent_stages().items()},
            **({"machines": dict(self._machines)} if self._machines else {}),
        }

    def finish(self, **counts: Any) -> None:
        """What the last line is to hold."""
        totals = self.totals
        self.log.end |= {
            "videos_ended": totals.ended,
            "videos_failed": totals.failed,
            "frames": totals.frames,
            "media_s": round(totals.media.ended_s, 3),
            "working_s": round(totals.working_s, 3),
            "phases": {
                name: {"media_s": round(one.media_s, 3), "seconds": round(one.seconds, 3)}
                for name, one in totals.phases().items()
            },
            "cpu_s": round(totals.cpu_s(), 3),
            "stages": totals.stages(),
            **counts,
        }


def open_extraction_log(plan: Plan, store: Store, where: str, configuration: str = "") -> RunLog:
    """The log of a run over a plan, in its store. ``where``: its devices in words; ``configuration``: a digest."""
    return RunLog.in_store(
        store.path,
        command="extract",
        where=where,
        configuration=configuration,
        features=sorted({item.spec.id for item in plan.items if item.todo}),
        videos=len(plan.jobs),
        items=sum(item.todo for item in plan.items),
        size_bytes=sum(map(size_of, plan.jobs)),
        **about_this_process(),
    )


def about_this_process() -> dict[str, Any]:
    """The versions that a log states."""
    return {"python": platform.python_version(), "system": platform.platform(), "versions": library_versions()}
