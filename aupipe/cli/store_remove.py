"""store rm and store gc: remove old versions of features, and what nothing needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.completion import STORED_FEATURE
from aupipe.cli.options import config_options, duration, json_option, require_config, resolve
from aupipe.cli.output import echo, echo_json
from aupipe.cli.stored import feature_ids, find_named, folder_store
from aupipe.config import Config
from aupipe.dataset import open_dataset
from aupipe.errors import BusyError, UsageError
from aupipe.quantities import describe_bytes

if TYPE_CHECKING:
    from aupipe.store.local import LocalStore

KEEP = click.option(
    "--keep",
    multiple=True,
    metavar="FEATURE|FILE|RUN",
    help="Keep this feature too, what this other aupipe.toml names, or what the runs in this folder were trained on.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would go, and how many bytes; remove nothing.")
YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@click.command("rm")
@click.argument("features", nargs=-1, required=True, type=STORED_FEATURE)
@click.option("--force", is_flag=True, help="Also a feature that the configuration or a trained run names.")
@KEEP
@DRY_RUN
@YES
@config_options
@json_option
def remove(
    features: tuple[str, ...],
    force: bool,
    keep: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Remove FEATURES from the store: all their items, and their specs. This cannot be undone.

    A feature is a full id (hog@3f2a9c0d1e2b), or a name that one stored feature has. One that aupipe.toml or a run in
    runs/ still names is refused, and so is what such a feature is computed from. Beside a process of this machine that
    writes to the store, nothing is removed: exit code 15.

    \b
    Example:
      aupipe store rm hog@3f2a9c0d1e2b
    """
    from aupipe.store.maintenance.remove import feature_size, remove_feature

    config = resolve(config_file, store)
    opened = folder_store(config)
    chosen = [_one(opened, name) for name in dict.fromkeys(features)]
    if not force:
        try:
            named = find_named(config, opened, keep)
        except UsageError as error:
            raise UsageError(
                f"what is still named cannot be said ({error}): --force removes it all the same"
            ) from error
        if still := next((feature for feature in chosen if feature in named), None):
            raise UsageError(f"{still} is named by {named[still]}: --force removes it all the same")
    rows = []
    for feature in chosen:
        items, nbytes = feature_size(opened, feature)
        rows.append({"feature": feature, "items": items, "bytes": nbytes})
        if not as_json:
            echo(f"{feature:32} {items:>6} items {describe_bytes(nbytes):>15}")
    if not _confirmed(f"remove this from {opened.path} for good?", dry_run, yes, as_json):
        _report(rows, 0, dry_run, as_json)
        return
    freed = sum(remove_feature(opened, feature) for feature in chosen)
    _report(rows, freed, dry_run, as_json)


def _one(store: LocalStore, name: str) -> str:
    found = sorted(feature_ids(store, name))
    if len(found) > 1:
        raise UsageError(f"{len(found)} features are named {name!r}: name one by its id: {', '.join(found)}")
    return found[0]


def _confirmed(question: str, dry_run: bool, yes: bool, as_json: bool) -> bool:
    """Whether to go on; asks where neither ``--dry-run`` nor ``--yes`` was given."""
    if dry_run:
        return False
    if as_json and not yes:
        raise UsageError("--json asks no question: give --yes, or --dry-run")
    return yes or click.confirm(question, err=True)


def _report(rows: list[dict[str, object]], freed: int, dry_run: bool, as_json: bool) -> None:
    if as_json:
        echo_json("removal", {"dry_run": dry_run, "features": rows, "bytes_freed": freed})
    elif dry_run:
        echo("nothing was removed (--dry-run)")
    else:
        echo(f"{describe_bytes(freed)} freed" if freed else "nothing removed")


@click.command()
@click.option(
    "--grace",
    "grace_s",
    default="1h",
    show_default=True,
    callback=duration,
    metavar="TIME",
    help="Keep what was needed until so recently: 90s, 30m, 1h, 2d.",
)
@click.option("--unused", is_flag=True, help="Also features that neither aupipe.toml nor a run in runs/ names.")
@click.option("--vanished", is_flag=True, help="Also items of recordings that the data set no longer has.")
@click.option(
    "--quarantine",
    "quarantine_s",
    callback=duration,
    metavar="TIME",
    help="Also what `store verify --repair` moved to quarantine/ at least so long ago: 30d.",
)
@KEEP
@DRY_RUN
@YES
@config_options
@json_option
def gc(
    grace_s: float,
    unused: bool,
    vanished: bool,
    quarantine_s: float | None,
    keep: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> int:
    """Remove replaced and deleted items and what killed runs left, and merge the journals into one index.

    Other commands may read and write meanwhile, but for another `store gc`: exit code 15. Journals are removed by the
    second run after they were merged.

    --unused, --vanished and --quarantine remove more, for good, after a question. Features of `extract --recipe` that
    aupipe.toml does not name are unused: keep them by --keep. No run may write to the store then: exit code 15.

    \b
    Examples:
      aupipe store gc
      aupipe store gc --dry-run --unused --vanished --quarantine 30d
    """
    from aupipe.store.maintenance.gc import collect, preview
    from aupipe.store.maintenance.remove import old_quarantine, remove_feature, remove_items, remove_quarantined

    config = resolve(config_file, store)
    opened = folder_store(config)
    if unused or vanished:
        require_config(config)
    rows: list[dict[str, object]] = []
    features = _unused(config, opened, keep) if unused else []
    rows += [_feature_row(opened, feature) for feature in features]
    items = _vanished(config, opened, set(features)) if vanished else {}
    rows += [_recording_row(opened, recording, found) for recording, found in items.items()]
    quarantined = old_quarantine(opened, quarantine_s) if quarantine_s is not None else {}
    rows += [{"what": "quarantine", "path": path, "bytes": nbytes} for path, nbytes in quarantined.items()]
    for row in rows if not as_json else ():
        name = row.get("feature") or row.get("recording") or row["path"]
        many = f"{row['items']:>6} items" if "items" in row else " " * 12
        echo(f"{row['what']:>10}  {many} {describe_bytes(int(str(row['bytes']))):>15}  {name}")
    nbytes = sum(int(str(row["bytes"])) for row in rows)
    question = f"remove these {describe_bytes(nbytes)} from {opened.path} for good?"
    go = bool(rows) and _confirmed(question, dry_run, yes, as_json)
    if rows and not go and not dry_run:  # "no" is an answer to all of it
        echo("nothing was removed")
        return 0
    if go:
        for feature in features:
            remove_feature(opened, feature)
        remove_items(opened, [key for found in items.values() for key in found])
        remove_quarantined(opened, quarantined)
    found = preview(opened, grace_s) if dry_run else collect(opened, grace_s)
    if found.busy:
        raise BusyError(f"{opened.path}: another process is running `aupipe store gc`: wait until it has ended")
    if as_json:
        removed = rows if go or dry_run else []
        echo_json("collection", {**asdict(found), "dry_run": dry_run, "removed": removed}, indent=1)
        return 0
    if go:
        echo(f"removed {describe_bytes(nbytes)} for good")
    collected = f"{found.items} replaced items ({describe_bytes(found.nbytes)}), {found.unfinished} unfinished files"
    if dry_run:
        listed = f"the {describe_bytes(nbytes)} above, and " if rows else ""
        echo(f"would remove {listed}{collected}; nothing was removed (--dry-run)")
        return 0
    echo(f"removed {collected}, {found.journals} merged journals")
    if found.index:
        echo(f"index written: {found.index}")
    return 0


def _unused(config: Config, store: LocalStore, keep: Iterable[str]) -> list[str]:
    """The ids of the features that nothing names."""
    named = find_named(config, store, keep)
    return [spec.id for spec in store.features() if spec.id not in named]


def _vanished(config: Config, store: LocalStore, but: set[str]) -> dict[str, list[tuple[str, str]]]:
    """Recording that the data set no longer has -> its items on record, but those of features that go anyway."""
    recordings = open_dataset(config.dataset).recordings
    known = {one.id for one in recordings} | {one.video_id for one in recordings}
    if not known:
        raise UsageError("--vanished: the data set has no recordings, so all would go: is a disk not mounted?")
    found: dict[str, list[tuple[str, str]]] = {}
    for record in store.records():
        if record.recording not in known and record.feature not in but:
            found.setdefault(record.recording, []).append((record.recording, record.feature))
    return found


def _feature_row(store: LocalStore, feature: str) -> dict[str, object]:
    from aupipe.store.maintenance.remove import feature_size

    items, nbytes = feature_size(store, feature)
    return {"what": "feature", "feature": feature, "items": items, "bytes": nbytes}


def _recording_row(store: LocalStore, recording: str, items: list[tuple[str, str]]) -> dict[str, object]:
    from aupipe.store.maintenance.remove import items_size

    return {"what": "recording", "recording": recording, "items": len(items), "bytes": items_size(store, items)}
