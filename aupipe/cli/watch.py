"""What the logs of runs say, as lines for `aupipe status`, and the same again and again with ``--watch``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from aupipe.cli.live import LiveLines, is_terminal
from aupipe.cli.output import echo, echo_json
from aupipe.quantities import counted, duration_of

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.store.run_log import RunAccount

EVERY_S = 2.0  # between looks, on a terminal
LINE_EVERY_S = 60.0  # elsewhere


def describe_runs(found: Sequence[RunAccount]) -> list[str]:
    """A line for each extraction that is running, else for the last one; what stopped without an end is said too."""
    running = [account for account in found if account.state == "running"]
    lines = []
    for account in running or last_ended(found):
        lines.append(describe_run(account))
        if account.state == "running":
            lines += [f"    {line}" for line in troubles(account)]
    return lines


def troubles(account: RunAccount) -> list[str]:
    """The last video that failed and the last machine that takes no part, each in a line."""
    failed = account.failure.get("failed", ())[:1]
    lines = [f"last failure: {one['recording']}: {one['reason']}" for one in failed]
    if account.refusal:
        why = f": {account.refusal['reason']}" if account.refusal.get("reason") else ""
        lines.append(f"machine {account.refusal['state']}: {account.refusal['host']}{why}")
    return lines


def extractions(store: Store) -> list[RunAccount]:
    """The accounts of the store's extractions, oldest first."""
    from aupipe.store.run_log import accounts

    return accounts(store.path, "extract")


def last_ended(found: Sequence[RunAccount]) -> list[RunAccount]:
    """The run of which the last line is the latest; none without a run."""
    return [max(found, key=lambda account: (account.end or account.progress or account.about)["utc"])] if found else []


def describe_run(account: RunAccount) -> str:
    """A run in one line: where, how far, how fast, how long yet; or how it ended."""
    about, now = account.about, {**account.progress, **account.end}
    who = f"{about['command']} on {about['host']} (pid {about['pid']}, {about.get('where', '')})"
    ended = f"{now.get('videos_ended', 0):,} of {counted(about.get('videos', 0), 'video')}"
    failed = f"{now['videos_failed']:,} failed" if now.get("videos_failed") else ""
    if account.state == "running":
        return f"running: {who}: {', '.join(filter(None, [ended, failed, *_how_it_goes(now)]))}"
    how = {"lost": "ended without a word (killed?)", "error": "ended with an error"}.get(account.state, account.state)
    took = f" in {duration_of(now['seconds'])}" if "seconds" in now else ""
    return f"last run: {who}, {about['utc']}: {how}, {', '.join(filter(None, [ended, failed]))}{took}"


def _how_it_goes(now: Mapping[str, Any]) -> list[str]:
    """Of a line of progress: media, rate, time left, the busiest stage, the machines."""
    parts = []
    if now.get("media_total_s"):
        share = now["media_s"] / now["media_total_s"]
        parts.append(f"{share:.0%} of {duration_of(now['media_total_s'])} of media")
    if now.get("frames_per_s"):
        parts.append(f"{now['frames_per_s']:.0f} frames/s")
    if now.get("left_s") is not None:
        parts.append(f"{'more than ' * now.get('left_is_least', False)}{duration_of(now['left_s'])} left")
    busy: dict[str, float] = now.get("busy") or {}
    most = max(busy, key=lambda name: busy[name], default="")
    if most and busy[most] > 0:
        parts.append(f"{most} busy {busy[most]:.0%}")
    machines: dict[str, int] = now.get("machines") or {}
    if machines:
        parts.append("machines " + ", ".join(f"{count} {state}" for state, count in machines.items()))
    return parts


def watch(store: Store, as_json: bool) -> None:
    """Print what runs publish until none is running: in place on a terminal, else a line a minute for each run.

    Raises SystemExit at Ctrl-C: the runs go on.
    """
    live = LiveLines(err=False) if is_terminal(err=False) and not as_json else None
    running, next_s = _running(store), time.monotonic()
    if not running and not as_json:
        echo("no extraction is running")
    try:
        while running:
            lines = describe_runs(running)
            if as_json:
                echo_json({"message_type": "runs", "runs": [account.to_json() for account in running]})
            elif live is not None:
                live.draw([part for line in lines for part in wrap(line, live.size()[0], subsequent_indent="    ")])
            elif time.monotonic() >= next_s:
                echo(*lines)
                next_s = time.monotonic() + LINE_EVERY_S
            time.sleep(EVERY_S)
            running = _running(store)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if live is not None:
            live.clear()


def _running(store: Store) -> list[RunAccount]:
    return [account for account in extractions(store) if account.state == "running"]
