"""What `aupipe extract --dry-run` prints: totals, sizes, the time it takes, and with -v each item and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aupipe.cli.options import is_verbose
from aupipe.cli.output import echo, echo_json
from aupipe.quantities import counted, describe_bytes, duration_of

if TYPE_CHECKING:
    from aupipe.extract.executors.plan_estimate import PlanEstimate
    from aupipe.extract.planning.plan import Item, Plan
    from aupipe.store import Store
    from aupipe.types import Recording

SHOWN = 5  # videos whose length is not known, or without sound


def show_plan(plan: Plan, recordings: Iterable[Recording], store: Store | None, device: str, as_json: bool) -> None:
    """Print what a run would do and what it takes. ``device``: cpu or cuda where the command line says."""
    from aupipe.extract.executors.plan_estimate import estimate

    found, states = estimate(plan, store, device), _recording_states(plan, recordings)
    if as_json:
        echo_json("plan", _to_json(plan, found, states), indent=1)
        return
    sizes = _row_bytes(plan)
    for feature, counts in _by_feature(plan).items():
        size = sizes.get(feature.rpartition("@")[0])
        texts = [f"{count:,} {state}" for state, count in counts.most_common()]
        echo(f"{feature:32}  " + ", ".join([*texts, *([f"{size:,.0f} bytes a frame"] if size else [])]))
    if is_verbose():
        for item in plan.items:
            if item.state != "done":
                echo(f"  {item.state:15} {item.spec.name:12} {item.key}" + f"  {item.reason}" * bool(item.reason))
    named = {"to do": states["to do"], "done": states["done"], "failed before": states["failed before"]}
    more = {"of other files": states["other file"]} if states["other file"] else {}
    echo("recordings: " + ", ".join(f"{count:,} {state}" for state, count in (named | more).items()))
    for line in _lines(plan, found):
        echo(line)
    hint = "" if is_verbose() or not (plan.jobs or states["failed before"]) else "; -v lists the items, and why"
    echo(f"nothing was done (--dry-run){hint}")


def _lines(plan: Plan, found: PlanEstimate) -> list[str]:
    if not plan.jobs:
        return []
    known = len(plan.jobs) - len(found.unreadable)
    lines = [f"media: {duration_of(found.media_s)} in {counted(known, 'video')}, by their headers"] if known else []
    if found.unreadable:
        lines.append(f"length not known: {_named(found.unreadable)}, left out below")
    if found.silent:
        lines.append(_silent_line(plan, found.silent))
    without = f", and the rows of {', '.join(found.unsized)}, of a size not known before" * bool(found.unsized)
    lines.append(f"store: grows by about {describe_bytes(found.size_bytes)}{without}")
    if found.seconds is not None and (run := found.earlier) is not None:
        by = f"as in the run of {run.utc} here ({run.where}, {duration_of(run.media_s)} of media)"
        lines.append(f"time: about {duration_of(found.seconds)}, {by}")
    else:
        lines.append("time: no earlier run of all these features on this machine to measure by")
    return lines


def _silent_line(plan: Plan, silent: Sequence[str]) -> str:
    """Videos without sound, by their headers, and what comes of the features of sound that are to be made of them."""
    chosen = set(silent)
    items = (item for job in plan.jobs if job.video_id in chosen for item in job.items)
    names = ", ".join(dict.fromkeys(item.spec.name for item in items if item.spec.modality == "audio"))
    if plan.parts.mask_missing_audio:
        return f"no sound: {_named(silent)}: all rows of {names} will be invalid there (on_missing_audio: mask)"
    return f"no sound: {_named(silent)}: {names} will fail there; --on-missing-audio mask stores invalid rows instead"


def _named(videos: Sequence[str]) -> str:
    shown = ", ".join(videos[:SHOWN]) + ", ..." * (len(videos) > SHOWN)
    return f"{counted(len(videos), 'video')} ({shown})"


def _to_json(plan: Plan, found: PlanEstimate, states: Counter[str]) -> dict[str, Any]:
    """One object, the same as the lines."""
    sizes = _row_bytes(plan)
    run = found.earlier
    measured_by = {"utc": run.utc, "where": run.where, "media_s": run.media_s} if run and found.seconds else None
    return {
        "recordings": {
            name.replace(" ", "_"): states[name] for name in ("to do", "done", "failed before", "other file")
        },
        "videos": len(plan.jobs),
        "media_s": round(found.media_s, 3),
        "frames": found.frames,
        "length_not_known": list(found.unreadable),
        "without_sound": list(found.silent),
        "bytes": found.size_bytes,
        "size_not_known": list(found.unsized),
        "seconds": None if found.seconds is None else round(found.seconds, 1),
        "measured_by": measured_by,
        "features": {
            feature: {**counts, "bytes_per_frame": sizes.get(feature.rpartition("@")[0])}
            for feature, counts in _by_feature(plan).items()
        },
        "items": [_item_json(item) for item in plan.items],
    }


def _item_json(item: Item) -> dict[str, str]:
    row = {"recording": item.key, "feature": item.spec.id, "state": item.state}
    return row | ({"reason": item.reason} if item.reason else {})


def _by_feature(plan: Plan) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for item in plan.items:
        found.setdefault(item.spec.id, Counter())[item.state] += 1
    return found


def _row_bytes(plan: Plan) -> dict[str, float]:
    """Feature name -> bytes of a stored row, where its encoder states them before it is loaded."""
    from aupipe.extract.executors.plan_estimate import declared_row_bytes

    sizes = {config.name: declared_row_bytes(encoder) for config, encoder in plan.parts.encoders}
    return {name: size for name, size in sizes.items() if size is not None}


def _recording_states(plan: Plan, recordings: Iterable[Recording]) -> Counter[str]:
    """How many recordings are in which state: that of their item that needs most."""
    states: dict[str, set[str]] = {}
    for item in plan.items:
        states.setdefault(item.key, set()).add("to do" if item.todo else item.state)
    found = Counter[str]()
    for one in recordings:
        own = states.get(one.id, set()) | states.get(one.video_id, set())
        found[next((name for name in ("to do", "other file", "failed before") if name in own), "done")] += 1
    return found
