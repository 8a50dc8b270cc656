"""The results of running a plan, as they are printed, and the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aupipe.cli.options import damage_lines, failure_lines
from aupipe.cli.output import echo, echo_error, echo_json
from aupipe.cli.signals import draining, exit_code_of_warning, last_words
from aupipe.cli.watch import extractions
from aupipe.quantities import counted, duration_of

if TYPE_CHECKING:
    from aupipe.extract.engine.results import JobResult
    from aupipe.extract.executors import Executor, ExecutorEvent
    from aupipe.extract.executors.claims import FileClaims
    from aupipe.extract.planning.plan import Item, Plan
    from aupipe.store import Store
    from aupipe.store.local import LocalStore

STOPPED = (130, 143)  # exit codes of `run_plan`
SHOWN = 10  # failed or damaged recordings
DRAINING = (
    "aupipe: finishing the videos under way, and those that a worker process holds; once more: stop now (what is "
    "published stays stored)"
)


def counts(plan: Plan) -> dict[str, int]:
    """The numbers of items of a plan that are not run, for a summary."""
    return {"already_done": plan.counts["done"], "failed_before": plan.counts["failed before"]}


def report_nothing_to_do(plan: Plan, as_json: bool, retry: str) -> int:
    """Print that no job is left, what failed before and the command that tries it again; returns the exit code."""
    failed = [item for item in plan.items if item.state == "failed before"]
    if as_json:
        echo_json("summary", {"done": 0, **counts(plan), "failed": 0, "inputs": 0})
    else:
        before = f", {len(failed)} failed before:" if failed else ""
        echo(f"nothing to do: {counted(plan.counts['done'], 'item')} stored{before}", *_failed_before(failed, retry))
    return 3 if failed else 0


def _failed_before(failed: list[Item], retry: str) -> list[str]:
    if not failed:
        return []
    lines = failure_lines((item.key, item.spec.name, item.reason) for item in failed)
    shown = [f"  {line}" for line in lines[:SHOWN]]
    more = [f"  ... and {len(lines) - SHOWN} more: aupipe status --failed"] if len(lines) > SHOWN else []
    return [*shown, *more, f"retry: {retry}"]


def run_plan(
    plan: Plan,
    store: Store,
    executor: Executor,
    where: str,
    fail_fast: bool = False,
    as_json: bool = False,
    profile: Path | None = None,
    overwrite: bool = False,
    claims: FileClaims | None = None,
    configuration: str = "",
    retry: str = "aupipe extract --retry-failed",
    damage_hint: str = "list all: aupipe status --damaged; fail damaged videos: --on-damage fail",
) -> int:
    """Run a plan and print its results; ``where`` says on what, in words, ``configuration`` is a digest for the log.

    ``retry``: the command that tries again what failed. ``damage_hint``: what to do about damaged media, if anything.

    The exit code is 3 where an item of the plan was not published, else 0; 130 or 143 after Ctrl-C or the warning of a
    batch system, when the videos under way have been finished.
    """
    from contextlib import closing

    from aupipe.cli.progress import Progress
    from aupipe.extract.executors.driver import NO_CLAIMS
    from aupipe.extract.executors.driver import extract as run
    from aupipe.extract.executors.extraction_log import ExtractionLog, open_extraction_log
    from aupipe.extract.executors.media_progress import job_media
    from aupipe.extract.executors.plan_estimate import earlier_run
    from aupipe.extract.executors.totals import RunTotals
    from aupipe.store.maintenance.gc import collect

    if claims is None and (others := [one for one in extractions(store) if one.state == "running"]):
        who = f"{others[-1].about['host']}, pid {others[-1].about['pid']}"
        echo_error(f"another extraction is running in this store ({who}): --share in both divides the videos")

    # Removes what killed runs left unfinished. A link in the store is one error here, not one per recording.
    collect(cast("LocalStore", store), full=False, wait=False)

    failures = []
    damaged = []
    published = set()
    wanted = [item for item in plan.items if item.todo]
    earlier = earlier_run(store, {item.spec.id for item in wanted}, where)
    totals = RunTotals(job_media(plan), earlier.costs if earlier else {})
    with (
        open_extraction_log(plan, store, where, configuration) as log_file,
        Progress(totals, quiet=as_json) as progress,
        draining(DRAINING) as halted,
    ):
        log = ExtractionLog(log_file, totals)

        def on_event(event: ExecutorEvent) -> None:
            for listener in (totals.add_event, progress.on_event, log.on_event):
                listener(event)

        # Closing the generator ends the workers on an interrupt, without waiting for the garbage collector.
        running = run(plan, store, executor, halted=halted, on_event=on_event, claims=claims or NO_CLAIMS)
        try:
            with closing(running) as results:
                for result in results:
                    for listener in (totals.add_result, progress.on_result, log.on_result):
                        listener(result)
                    if claims is not None:
                        claims.note_ended(result.video_id)
                    failures += result.failed
                    damaged += [record for record in result.published if record.damage]
                    published |= {(record.recording, record.feature) for record in result.published}
                    if as_json:
                        _echo_json_result(result)
                    if fail_fast and result.failed:
                        break
        finally:
            log.finish(items_published=len(published), items_failed=len(failures), halted=halted())
        seconds, frames, media_s = totals.seconds, totals.frames, totals.media.ended_s
        stages, limit, cpu_s = totals.stages(), totals.limit(), totals.cpu_s()
        if profile is not None:
            progress.write_trace(profile, overwrite)
    store.refresh()  # the worker processes have published, not this one
    done = [item for item in wanted if (item.key, item.spec.id) in published]
    tried = {(record.recording, record.feature) for record in failures} - published
    failed = sum((item.key, item.spec.id) in tried for item in wanted)
    by_others = 0
    if claims is not None:
        left = [item for item in wanted if (item.key, item.spec.id) not in published]
        by_others, failed_there = _by_others(store, left, tried)
        failed += failed_there
    not_reached = len(wanted) - len(done) - failed - by_others
    inputs = published - {(item.key, item.spec.id) for item in wanted}  # what these are made from: it never fails alone
    missing = failed + (0 if claims is not None else not_reached)  # what other runs work on is no failure of this one
    before = plan.counts["failed before"]
    damages = damage_lines(damaged)
    summary = {
        "done": len(done),
        **counts(plan),
        "failed": failed,
        "inputs": len(inputs),
        **({"by_other_runs": by_others} if claims is not None else {}),
        **({"not_reached": not_reached} if not_reached else {}),
        "damaged": len(damages),
        "seconds": round(seconds, 3),
        "frames": frames,
        "media_s": round(media_s, 3),
    }
    if as_json:
        cost = {"cpu_s": round(cpu_s, 3), "stages": stages}
        echo_json("summary", {**summary, **cost})
        return (not_reached and exit_code_of_warning()) or (3 if missing or before else 0)
    rate = _rate(frames, media_s, seconds, where)
    damage = f"   damaged {len(damages)}" * bool(damages)
    echo(f"done {len(done)}   already done {plan.counts['done']}   failed {failed + before}{damage}   {rate}")
    if limit:
        echo(limit)
    for line in failure_lines(
        (record.recording, record.feature.partition("@")[0], record.reason) for record in failures
    ):
        echo(f"FAILED  {line}")
    for line in damages[:SHOWN]:
        echo(f"damaged  {line}")
    if damages:
        more = f"{len(damages) - SHOWN} more. " if len(damages) > SHOWN else ""
        if more or damage_hint:
            echo(more + damage_hint)
    if before:
        echo(f"not tried, failed in earlier runs: {counted(before, 'item')} (aupipe status --failed)")
    if by_others:
        echo(f"made by other runs: {counted(by_others, 'item')}")
    if not_reached:
        why = ": other runs work on them; if one of those is stopped, give the same command again"
        echo(f"not reached: {counted(not_reached, 'item')}{why * (claims is not None)}")
    if failed or before:
        echo(f"retry: {retry}")
    if not_reached and (code := exit_code_of_warning()):
        echo(last_words(code), err=True)
        return code
    return 3 if missing or before else 0


def _rate(frames: int, media_s: float, seconds: float, where: str) -> str:
    """What was decoded, how fast and on what; sound alone has no frames."""
    media = f"{duration_of(media_s)} of media"
    speed = f"{media_s / max(seconds, 1e-9):.2g}x real time, {where}"
    if not frames:
        return f"{media} in {seconds:.1f} s ({speed})"
    speed = f"{frames / max(seconds, 1e-9):.0f} frames/s, {speed}"
    return f"{counted(frames, 'frame')} decoded, {media} in {seconds:.1f} s ({speed})"


def _by_others(store: Store, wanted: Sequence[Item], tried: Set[tuple[str, str]]) -> tuple[int, int]:
    """How many items that this run has not published other runs have, and how many have failed there."""
    states = Counter[str]()
    for item in wanted:
        record = store.record(item.key, item.spec.id) if (item.key, item.spec.id) not in tried else None
        if record is not None and item.state in ("new", "spec changed") and not item.reason:
            states[record.state] += 1
    return states["done"], states["failed"]


def _echo_json_result(result: JobResult) -> None:
    for record in (*result.published, *result.failed):
        row: dict[str, Any] = {
            "recording": record.recording,
            "feature": record.feature,
            "state": record.state,
            "frames": record.frames,
            "valid_frames": record.valid_frames,
        }
        more = {"reason": record.reason, "damage": record.damage, "media": dict(record.media)}
        echo_json("item", row | {name: value for name, value in more.items() if value})
