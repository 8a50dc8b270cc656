"""A plan being run: progress, then what came of it and the exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aupipe.cli.options import damage_lines, failure_lines
from aupipe.cli.output import echo, echo_json

if TYPE_CHECKING:
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.planning.plan import Plan
    from aupipe.store import Store
    from aupipe.store.local import LocalStore

SHOWN = 10  # damaged recordings


def counts(plan: Plan) -> dict[str, int]:
    """What a summary says of the items that are not run."""
    return {"already_done": plan.counts["done"], "failed_before": plan.counts["failed before"]}


def run_plan(
    plan: Plan,
    store: Store,
    devices: list[str],
    means: ExecutionOptions | None = None,
    fail_fast: bool = False,
    as_json: bool = False,
    profile: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Run the plan, say what came of it, and give the exit code: plan minus published, not the absence of errors."""
    from contextlib import closing

    from aupipe.cli.progress import Progress
    from aupipe.extract.engine.options import ExecutionOptions
    from aupipe.extract.executors.driver import extract as run
    from aupipe.extract.executors.local import local_executor
    from aupipe.store.maintenance.gc import sweep
    from aupipe.store.maintenance.inventory import refuse_links

    refuse_links(cast("LocalStore", store))  # said once, and not of every recording
    sweep(cast("LocalStore", store))  # what killed runs left half written

    failures = []
    damaged = []
    published = set()
    with Progress(len(plan.jobs), quiet=as_json) as progress:
        # Closed, so that an interrupt ends the workers here and not whenever the generator is collected.
        means = replace(means or ExecutionOptions(), trace=profile is not None)
        executor = local_executor(plan.parts, store.path, devices, means)
        running = run(plan, store, executor, on_event=progress.on_event)
        with closing(running) as outcomes:
            for outcome in outcomes:
                progress.on_result(outcome)
                failures += outcome.failed
                damaged += [record for record in outcome.published if record.damage]
                published |= {(record.recording, record.feature) for record in outcome.published}
                if as_json:
                    _json_outcome(outcome)
                if fail_fast and outcome.failed:
                    break
        seconds, frames = progress.seconds, progress.frames
        stages, limit, cpu_s = progress.stages(), progress.limit(), progress.cpu_s()
        if profile is not None:
            progress.write_trace(profile, overwrite)
    store.refresh()  # the workers have published, not this process
    wanted = [item for item in plan.items if item.todo]
    done = [item for item in wanted if (item.key, item.spec.id) in published]
    missing = len(wanted) - len(done)
    before = plan.counts["failed before"]
    harm = damage_lines(damaged)
    summary = {
        "done": len(done),
        **counts(plan),
        "failed": missing,
        "damaged": len(harm),
        "seconds": round(seconds, 3),
        "frames": frames,
    }
    if as_json:
        cost = {"cpu_s": round(cpu_s, 3), "stages": stages}
        echo_json({"message_type": "summary", **summary, **cost})
        return 3 if missing or before else 0
    speed = f"{frames / max(seconds, 1e-9):.0f} frames/s, {', '.join(devices)}"
    rate = f"{frames:,} frames decoded in {seconds:.1f} s ({speed})"
    broken = f"   damaged {len(harm)}" * bool(harm)
    echo(f"done {len(done)}   already done {plan.counts['done']}   failed {missing + before}{broken}   {rate}")
    if limit:
        echo(limit)
    for line in failure_lines(
        (record.recording, record.feature.partition("@")[0], record.reason) for record in failures
    ):
        echo(f"FAILED  {line}")
    for line in harm[:SHOWN]:
        echo(f"damaged  {line}")
    if harm:
        more = f"{len(harm) - SHOWN} more, and " if len(harm) > SHOWN else ""
        echo(f"{more}all that are stored: aupipe status --damaged; to refuse them: --on-damage fail")
    if before:
        echo(f"{before} items failed in earlier runs and were left alone: aupipe status --failed")
    if missing > len(failures):
        echo(f"{missing - len(failures)} items were not reached")
    if missing or before:
        echo("retry: aupipe extract --retry-failed")
    return 3 if missing or before else 0


def _json_outcome(outcome: Any) -> None:
    for record in (*outcome.published, *outcome.failed):
        row = {
            "message_type": "item",
            "recording": record.recording,
            "feature": record.feature,
            "state": record.state,
            "frames": record.frames,
            "valid_frames": record.valid_frames,
        }
        more = {"reason": record.reason, "damage": record.damage, "media": dict(record.media)}
        echo_json(row | {name: value for name, value in more.items() if value})
