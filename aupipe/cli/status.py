"""status and inspect: the state of a plan, and the content of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.options import (
    config_options,
    damage_lines,
    existing_store,
    failure_lines,
    json_option,
    media_notes,
    require_config,
    resolve,
)
from aupipe.cli.output import echo, echo_json
from aupipe.cli.selection import select
from aupipe.cli.watch import describe_runs, extractions, watch
from aupipe.dataset import open_dataset
from aupipe.dataset_model import nearest_recording
from aupipe.errors import UsageError

if TYPE_CHECKING:
    from aupipe.extract.planning.plan import Item, Plan
    from aupipe.store import ItemRecord, Store

SHOWN_RUNS = 20  # the newest, with --json


@click.command()
@config_options
@click.option("--failed", is_flag=True, help="List the failed items, with the reason.")
@click.option("--damaged", is_flag=True, help="List the recordings with damaged media, and the damage.")
@click.option("--notes", is_flag=True, help="List what is odd in media and no damage, such as silent sound.")
@click.option("--watch", "watched", is_flag=True, help="Show the extractions that are running, until all have ended.")
@json_option
def status(
    config_file: Path | None,
    store: Path | None,
    failed: bool,
    damaged: bool,
    notes: bool,
    watched: bool,
    as_json: bool,
) -> int:
    """Count what is stored, missing, stale or failed, per feature. May run during an extraction, on any machine.

    \b
    Examples:
      aupipe status --failed
      aupipe status --watch
    """
    from aupipe.extract.planning.plan import make_plan

    config = require_config(resolve(config_file, store))
    opened = existing_store(config)
    if watched:
        watch(opened, as_json)
        return 0
    recordings, features = select(config, lambda: open_dataset(config.dataset), [], [])
    plan = make_plan(recordings, features, opened)
    imported = _imported({recording.id for recording in recordings}, opened)
    if as_json:
        echo_json(_status_json(plan, opened, imported), indent=1)
    else:
        _show_status(plan, opened, imported, failed, damaged, notes)
    incomplete = any(item.state == "failed before" for item in plan.items)
    return 3 if incomplete else 0


def _by_feature(items: Iterable[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.spec.id, []).append(item)
    return found


def _damaged(plan: Plan, store: Store) -> dict[str, list[ItemRecord]]:
    """Feature id -> records of the plan's items that were made from damaged media."""
    done = {(item.key, item.spec.id) for item in plan.items if item.state == "done"}
    found: dict[str, list[ItemRecord]] = {}
    for record in store.damaged():
        if (record.recording, record.feature) in done:
            found.setdefault(record.feature, []).append(record)
    return found


def _notes(plan: Plan, store: Store) -> dict[str, list[str]]:
    """Video -> notes on its media, from one feature of each modality: the others' records say the same."""
    from aupipe.extract.planning.features import imported_features

    features = {item.spec.modality: item.spec.id for item in plan.items if item.state == "done"}
    ids = [*features.values(), *(spec.id for spec in imported_features(store.features()))]
    return media_notes(record for feature in ids for record in store.all_published(feature))


def _imported(recordings: set[str], store: Store) -> dict[str, tuple[int, int]]:
    """Imported feature -> of how many of the recordings it is stored, and of how many not."""
    from aupipe.extract.planning.features import imported_features

    ids = [spec.id for spec in imported_features(store.features())]
    found = {feature: {record.recording for record in store.all_published(feature)} for feature in ids}
    return {feature: (len(recordings & stored), len(recordings - stored)) for feature, stored in found.items()}


def _status_json(plan: Plan, store: Store, imported: dict[str, tuple[int, int]]) -> dict[str, Any]:
    records = _damaged(plan, store)
    features = {
        feature: {
            **Counter(item.state for item in items),
            "failures": [{"recording": i.key, "reason": i.reason} for i in items if i.state == "failed before"],
            "damaged": [{"recording": r.recording, "damage": r.damage} for r in records.get(feature, ())],
        }
        for feature, items in _by_feature(plan.items).items()
    }
    for name, (done, missing) in imported.items():
        features[name] = {"done": done, "missing": missing, "imported": True}
    runs = [account.to_json() for account in extractions(store)[-SHOWN_RUNS:]]
    about = {"store": str(store.path), "backend": store.backend, "features": features}
    return about | {"notes": _notes(plan, store), "runs": runs}


def _show_status(
    plan: Plan, store: Store, imported: dict[str, tuple[int, int]], failed: bool, damaged: bool, notes: bool
) -> None:
    records = _damaged(plan, store)
    echo(f"{store.path} ({store.backend})")
    echo(f"{'feature':32} {'done':>7} {'missing':>7} {'stale':>7} {'failed':>7} {'damaged':>7}")
    for feature, items in _by_feature(plan.items).items():
        states = Counter(item.state for item in items)
        stale = states["spec changed"] + states["source changed"] + states["other file"]
        row = f"{feature:32} {states['done']:>7} {states['new']:>7} {stale:>7} {states['failed before']:>7}"
        echo(f"{row} {len(records.get(feature, ())):>7}")
    for feature, (done, missing) in imported.items():
        echo(f"{feature:32} {done:>7} {missing:>7}   imported: aupipe import")
    failures = [item for item in plan.items if item.state == "failed before"]
    if failed:
        for line in failure_lines((item.key, item.spec.name, item.reason) for item in failures):
            echo(f"FAILED  {line}")
    elif failures:
        echo(f"{len(failures)} failed: aupipe status --failed")
    lines = damage_lines(store.damaged())  # also of features that are not configured: their rows are in the store
    if damaged:
        for line in lines:
            echo(f"damaged  {line}")
    elif lines:
        echo(f"{len(lines)} damaged, rows stored: aupipe status --damaged")
    noted = _notes(plan, store)
    if notes:
        for video, said in noted.items():
            for line in said:
                echo(f"note  {video}: {line}")
    elif noted:
        echo(f"{len(noted)} with notes on their media: aupipe status --notes")
    for line in describe_runs(store):
        echo(line)
    todo = sum(item.todo for item in plan.items)
    if todo:
        echo(f"next: aupipe extract ({todo} items to compute)")
    if failures:
        echo("retry: aupipe extract --retry-failed")
    others = [item for item in plan.items if item.state == "other file"]
    if others:
        echo(f"{len(others)} items were made from other files, e.g. {others[0].key}: {others[0].reason}")
    if not todo and not failures and not others:
        echo("complete")


@click.command()
@click.argument("recording", required=False)
@config_options
@json_option
def inspect(recording: str | None, config_file: Path | None, store: Path | None, as_json: bool) -> int:
    """Show the content of the store: shapes, types, sizes and numbers of valid frames.

    With RECORDING, the features of that recording, with the range of their values.

    \b
    Example:
      aupipe inspect clips/a.mp4
    """
    config = resolve(config_file, store)
    opened = existing_store(config)
    content = describe_recording(opened, recording) if recording else describe_store(opened)
    if as_json:
        echo_json(content["rows"], indent=1)
        return 0
    echo(content["title"])
    for line in content["lines"]:
        echo(line)
    return 0


def describe_store(store: Store) -> dict[str, Any]:
    """One row per feature: its encoder, number of recordings, shape and size."""
    from aupipe.extract.planning.features import column_names

    rows: list[dict[str, Any]] = []
    for spec in store.features():
        records = [record for record in store.records(spec.id) if record.state == "done"]
        failed = sum(record.state == "failed" for record in store.records(spec.id))
        damaged = sum(bool(record.damage) for record in records)
        rows.append(
            {
                "feature": spec.id,
                "modality": spec.modality,
                "kind": spec.kind,
                "params": dict(spec.params),
                "weights": spec.weights.name if spec.weights else None,
                "licence": spec.weights.licence if spec.weights else None,
                "recordings": len(records),
                "failed": failed,
                "damaged": damaged,
                "row_shape": list(records[0].shape[1:]) if records else None,
                "columns": list(column_names(spec)),
                "dtype": spec.dtype,
                "frames": sum(record.frames for record in records),
                "valid_frames": sum(record.valid_frames for record in records),
                "bytes": sum(record.nbytes for record in records),
            }
        )
    lines = [f"{'feature':32} {'kind':10} {'row':>12} {'type':8} {'items':>6} {'frames':>10} {'valid':>6} {'MB':>9}"]
    for row in rows:
        shape = "-" if row["row_shape"] is None else "x".join(map(str, row["row_shape"])) or "1"
        share = f"{row['valid_frames'] / row['frames']:.0%}" if row["frames"] else "-"
        lines.append(
            f"{row['feature']:32} {row['kind']:10} {shape:>12} {row['dtype']:8} {row['recordings']:>6} "
            f"{row['frames']:>10,} {share:>6} {row['bytes'] / 1e6:>9.1f}"
            + (f"  {row['damaged']} from damaged media: aupipe status --damaged" if row["damaged"] else "")
        )
    return {"title": f"{store.path} ({store.backend})", "rows": rows, "lines": lines}


def describe_recording(store: Store, recording: str) -> dict[str, Any]:
    """One row per feature of a recording, with the minimum, mean and maximum of its valid values."""
    import numpy as np

    rows = []
    for record in store.records():
        if record.recording != recording:
            continue
        row: dict[str, Any] = {
            "feature": record.feature,
            "state": record.state,
            "shape": list(record.shape),
            "dtype": record.dtype,
            "valid_frames": record.valid_frames,
            "seconds": round(record.seconds, 3),
            "published_utc": record.time_utc,
        }
        if record.state == "done":
            data = np.asarray(store.read(recording, record.feature), dtype=np.float64)
            if record.valid_frames:
                row |= {"min": float(np.nanmin(data)), "mean": float(np.nanmean(data)), "max": float(np.nanmax(data))}
        else:
            row["reason"] = record.reason
        if record.damage:
            row["damage"] = record.damage
        if record.media:
            row["media"] = dict(record.media)
        rows.append(row)
    if not rows:
        names = {record.recording for record in store.records()}
        raise UsageError(f"no item of {recording!r} in {store.path}.{nearest_recording(recording, names)}")
    rows.sort(key=lambda row: row["feature"])
    lines = [f"{'feature':32} {'shape':>18} {'type':8} {'valid':>7} {'min':>10} {'mean':>10} {'max':>10}"]
    for row in rows:
        if row["state"] != "done":
            lines.append(f"{row['feature']:32} {row['state']}: {row['reason']}")
            continue
        numbers = " ".join(f"{row[key]:>10.4g}" if key in row else f"{'-':>10}" for key in ("min", "mean", "max"))
        shape = "x".join(map(str, row["shape"]))
        lines.append(f"{row['feature']:32} {shape:>18} {row['dtype']:8} {row['valid_frames']:>7} {numbers}")
    damage = max((row.get("damage", "") for row in rows), key=len)
    lines += [f"damaged  {damage}"] * bool(damage)
    said = media_notes(record for record in store.records() if record.recording == recording)
    lines += [f"note  {line}" for notes in said.values() for line in notes]
    return {"title": f"{recording} in {store.path}", "rows": rows, "lines": lines}
