"""What the logs of runs say, as lines for `aupipe status`, and the same again and again with ``--watch``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from aupipe.cli.output import echo, echo_json, take_back

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.store.run_log import RunAccount

EVERY_S = 2.0  # between looks, on a terminal
LINE_EVERY_S = 60.0  # elsewhere


def describe_runs(store: Store) -> list[str]:
    """A line for each extraction that is running, else for the last one; what stopped without an end is said too."""
    return _lines(extractions(store))


def _lines(found: Sequence[RunAccount]) -> list[str]:
    running = [account for account in found if account.state == "running"]
    lines = []
    for account in running or found[-1:]:
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


def describe_run(account: RunAccount) -> str:
    """A run in one line: where, how far, how fast, how long yet; or how it ended."""
    about, now = account.about, account.end or account.progress
    who = f"{about['command']} on {about['host']} (pid {about['pid']}, {about.get('where', '')})"
    counted = f"{now.get('videos_ended', 0):,} of {about.get('videos', 0):,} videos"
    failed = f", {now['videos_failed']:,} failed" if now.get("videos_failed") else ""
    if account.state == "running":
        rate = f", {now['frames_per_s']:.0f} frames/s" if now.get("frames_per_s") else ""
        left = f", {duration_of(now['left_s'])} left" if now.get("left_s") is not None else ""
        busy: dict[str, float] = now.get("busy") or {}
        most = max(busy, key=lambda name: busy[name], default="")
        limit = f", {most} busy {busy[most]:.0%}" if most and busy[most] > 0 else ""
        machines: dict[str, int] = now.get("machines") or {}
        others = ", machines " + ", ".join(f"{count} {state}" for state, count in machines.items()) if machines else ""
        return f"running: {who}: {counted}{failed}{rate}{left}{limit}{others}"
    how = {"lost": "ended without a word (killed?)", "error": "ended with an error"}.get(account.state, account.state)
    took = f" in {duration_of(now['seconds'])}" if "seconds" in now else ""
    return f"last run: {who}, {about['utc']}: {how}, {counted}{failed}{took}"


def duration_of(seconds: float) -> str:
    """``50 s``, ``4 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def watch(store: Store, as_json: bool, sleep: Callable[[float], Any] = time.sleep) -> None:
    """Print what runs publish until none is running: in place on a terminal, else a line a minute for each run."""
    shown = 0
    on_terminal = sys.stdout.isatty() and not as_json
    while True:
        found = extractions(store)
        running = [account for account in found if account.state == "running"]
        if as_json:
            echo_json({"message_type": "runs", "runs": [account.to_json() for account in running or found[-1:]]})
        else:
            if on_terminal and shown:
                take_back(shown)
            lines = _lines(found) or ["no run has been logged in this store"]
            echo(*lines)
            shown = len(lines)
        if not running:
            return
        sleep(EVERY_S if on_terminal or as_json else LINE_EVERY_S)
