"""status: the state of a plan, of the store beside it, and of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    open_or_create,
    require_config,
    resolve,
)
from aupipe.cli.output import echo, echo_json
from aupipe.cli.selection import MODALITIES, select
from aupipe.cli.watch import describe_runs, extractions, watch
from aupipe.dataset import open_dataset
from aupipe.quantities import counted

if TYPE_CHECKING:
    from aupipe.extract.planning.plan import Item, Plan
    from aupipe.store import ItemRecord, Store
    from aupipe.types import Recording

SHOWN_RUNS = 20  # the newest, with --json


@click.command()
@config_options
@click.option("--failed", is_flag=True, help="List the failed items, with the reason.")
@click.option("--damaged", is_flag=True, help="List the recordings with damaged media, and the damage.")
@click.option("--notes", is_flag=True, help="List what is odd in media and no damage, such as silent sound.")
@click.option(
    "--watch",
    "watched",
    is_flag=True,
    help="Follow the extractions that are running until all have ended.",
)
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

    Exit code 3 where an item has failed, 10 where nothing has been extracted yet, else 0: items may be missing.

    \b
    Examples:
      aupipe status --failed
      aupipe status --watch
    """
    from aupipe.extract.planning.plan import make_plan

    config = require_config(resolve(config_file, store))
    opened = open_or_create(config, create=False)
    if watched:
        watch(existing_store(config), as_json)
        opened = existing_store(config)  # with what they have stored
    recordings, features = select(config, lambda: open_dataset(config.dataset), [], [])
    plan = make_plan(recordings, features, opened)
    imported = _imported({recording.id for recording in recordings}, opened)
    if as_json:
        echo_json(_status_json(plan, opened, config.store.path, recordings, imported), indent=None if watched else 1)
    else:
        _show_status(plan, opened, recordings, imported, failed, damaged, notes)
    if opened is None:
        existing_store(config)
    incomplete = any(item.state == "failed before" for item in plan.items)
    return 3 if incomplete else 0


def _by_feature(items: Iterable[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.spec.id, []).append(item)
    return found


def _damaged(plan: Plan, store: Store | None) -> dict[str, list[ItemRecord]]:
    """Feature id -> records of the plan's items that were made from damaged media."""
    done = {(item.key, item.spec.id) for item in plan.items if item.state == "done"}
    found: dict[str, list[ItemRecord]] = {}
    for record in store.damaged() if store else ():
        if (record.recording, record.feature) in done:
            found.setdefault(record.feature, []).append(record)
    return found


def _notes(plan: Plan, store: Store | None) -> dict[str, list[str]]:
    """Video -> notes on its media, from one feature of each modality: the others' records say the same."""
    from aupipe.extract.planning.features import imported_features

    if store is None:
        return {}
    features = {item.spec.modality: item.spec.id for item in plan.items if item.state == "done"}
    ids = [*features.values(), *(spec.id for spec in imported_features(store.features()))]
    return media_notes(record for feature in ids for record in store.all_published(feature))


def _imported(recordings: set[str], store: Store | None) -> dict[str, tuple[int, int]]:
    """Imported feature -> of how many of the recordings it is stored, and of how many not."""
    from aupipe.extract.planning.features import imported_features

    if store is None:
        return {}
    ids = [spec.id for spec in imported_features(store.features())]
    found = {feature: {record.recording for record in store.all_published(feature)} for feature in ids}
    return {feature: (len(recordings & stored), len(recordings - stored)) for feature, stored in found.items()}


def _others(
    plan: Plan, store: Store | None, recordings: Sequence[Recording], imported: Mapping[str, Any]
) -> dict[str, dict[str, int]]:
    """Features of the store that the configuration does not name, such as those of a recipe: counts of their items.

    ``missing``: of the recordings of the data set. Whether sources have changed is not looked at. Imported ones are
    left out.
    """
    if store is None:
        return {}
    known = {item.spec.id for item in plan.items} | set(imported)
    found = {}
    for spec in store.features():
        if spec.id in known or spec.modality not in MODALITIES:
            continue
        records = list(store.records(spec.id))
        states = Counter(record.state for record in records)
        keys = {recording.key_for(spec.modality) for recording in recordings}
        missing = len(keys - {record.recording for record in records})
        damaged = sum(bool(record.damage) for record in records if record.state == "done")
        found[spec.id] = {"done": states["done"], "missing": missing, "failed": states["failed"], "damaged": damaged}
    return found


def _status_json(
    plan: Plan,
    store: Store | None,
    path: Path,
    recordings: Sequence[Recording],
    imported: Mapping[str, tuple[int, int]],
) -> dict[str, Any]:
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
    runs = [account.to_json() for account in extractions(store)[-SHOWN_RUNS:]] if store else []
    about: dict[str, Any] = {"store": str(path), "backend": store.backend if store else None, "features": features}
    others = _others(plan, store, recordings, imported)
    return about | {"other_features": others, "notes": _notes(plan, store), "runs": runs}


def _show_status(
    plan: Plan,
    store: Store | None,
    recordings: Sequence[Recording],
    imported: Mapping[str, tuple[int, int]],
    failed: bool,
    damaged: bool,
    notes: bool,
) -> None:
    records = _damaged(plan, store)
    if store is not None:
        echo(f"{store.path} ({store.backend})")
    echo(f"{'feature':32} {'done':>7} {'missing':>7} {'stale':>7} {'failed':>7} {'damaged':>7}")
    for feature, items in _by_feature(plan.items).items():
        states = Counter(item.state for item in items)
        stale = states["spec changed"] + states["source changed"] + states["other file"]
        row = f"{feature:32} {states['done']:>7} {states['new']:>7} {stale:>7} {states['failed before']:>7}"
        echo(f"{row} {len(records.get(feature, ())):>7}")
    for feature, (done, missing) in imported.items():
        echo(f"{feature:32} {done:>7} {missing:>7}   imported: aupipe import")
    if others := _others(plan, store, recordings, imported):
        echo("in the store, and not in aupipe.toml (of a recipe, or of other settings):")
    for feature, of in others.items():
        echo(f"{feature:32} {of['done']:>7} {of['missing']:>7} {'-':>7} {of['failed']:>7} {of['damaged']:>7}")
    failures = [item for item in plan.items if item.state == "failed before"]
    if failed:
        for line in failure_lines((item.key, item.spec.name, item.reason) for item in failures):
            echo(f"FAILED  {line}")
    elif failures:
        echo(f"{counted(len(failures), 'item')} failed: aupipe status --failed")
    # Also of features that are not configured: their rows are in the store.
    lines = damage_lines(store.damaged()) if store else []
    if damaged:
        for line in lines:
            echo(f"damaged  {line}")
    elif lines:
        echo(f"{counted(len(lines), 'recording')} damaged, rows stored: aupipe status --damaged")
    noted = _notes(plan, store)
    if notes:
        for video, said in noted.items():
            for line in said:
                echo(f"note  {video}: {line}")
    elif noted:
        echo(f"{counted(len(noted), 'video')} with notes on the media: aupipe status --notes")
    found = extractions(store) if store else []
    echo(*describe_runs(found))
    working = any(account.state == "running" for account in found)
    todo = sum(item.todo for item in plan.items)
    if todo and not working:
        echo(f"next: aupipe extract ({counted(todo, 'item')} to compute)")
    if failures and not working:
        echo("retry: aupipe extract --retry-failed")
    replaced = [item for item in plan.items if item.state == "other file"]
    if replaced:
        echo(f"made from other files: {counted(len(replaced), 'item')}, e.g. {replaced[0].key}: {replaced[0].reason}")
    if not todo and not failures and not replaced:
        echo("complete")
