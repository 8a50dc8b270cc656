"""store ls, info, verify, gc, migrate, export, purge: commands for the feature store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from aupipe.cli.inspect import describe_store
from aupipe.cli.options import (
    config_options,
    duration,
    existing_store,
    json_option,
    readable_by_option,
    resolve,
    share,
    split_list,
)
from aupipe.cli.output import echo, echo_json
from aupipe.cli.overwrite import overwrite_option
from aupipe.dataset_model import nearest_recording
from aupipe.errors import BusyError, DamageError, UsageError
from aupipe.logs import printable
from aupipe.quantities import counted
from aupipe.registry import nearest

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.store.local import LocalStore

SHOWN = 10  # orphans: a killed writer leaves one at most, a lost journal all of its items


@click.group()
def store() -> None:
    """List, check, copy, export and erase the content of a feature store."""


def _folder_store(config_file: Path | None, store: Path | None) -> LocalStore:
    return cast("LocalStore", existing_store(resolve(config_file, store)))


@store.command("ls")
@click.argument("feature", required=False)
@config_options
@json_option
def list_items(feature: str | None, config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """List the items of every feature, or of FEATURE.

    FEATURE is a name or a full id. Columns: feature, shape, type, valid frames, recording.

    \b
    Example:
      aupipe store ls hog
    """
    from aupipe.store.record_json import record_row

    opened = _folder_store(config_file, store)
    ids = _feature_ids(opened, feature)
    for record in opened.records():
        if record.feature not in ids:
            continue
        if as_json:
            echo_json(record_row(record))
        elif record.state == "done":
            shape = "x".join(map(str, record.shape))
            numbers = f"{shape:>16} {record.dtype:8} {record.valid_frames:>8}"
            damage = f"  damaged: {record.damage}" if record.damage else ""
            echo(f"{record.feature:32} {numbers} {record.recording}{damage}")
        else:
            failure = f"{record.recording}  {record.reason}"
            echo(f"{record.feature:32} {record.state.upper():>16} {'':17} {failure}")


def _feature_ids(store: Store, feature: str | None) -> set[str]:
    known = {spec.id: spec.name for spec in store.features()}
    if feature is None:
        return set(known)
    found = {feature_id for feature_id, name in known.items() if feature in (feature_id, name)}
    if not found:
        close = nearest(feature, {*known, *known.values()})
        raise UsageError(f"no feature {feature!r} in {store.path}.{close} Stored: {', '.join(known) or 'nothing'}")
    return found


@store.command()
@config_options
@json_option
def info(config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Show every feature: its encoder, weights, number of recordings and size.

    \b
    Example:
      aupipe store info
    """
    content = describe_store(_folder_store(config_file, store))
    if as_json:
        echo_json(content["rows"], indent=1)
        return
    echo(content["title"])
    for line in content["lines"]:
        echo(line)
    for row in content["rows"]:
        if row["weights"]:
            echo(f"{row['feature']:32} weights {row['weights']}, licence {row['licence']}")


@store.command()
@click.option("--quick", is_flag=True, help="Compare sizes only.")
@click.option("--sample", callback=share, metavar="P", help="Check a random share of the items: 5% or 0.05.")
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged items to quarantine/ and compute them again in the next extract. Deletes nothing.",
)
@click.option("--rebuild", is_flag=True, help="First complete the index from the items.")
@config_options
@json_option
def verify(
    quick: bool,
    sample: float,
    repair: bool,
    rebuild: bool,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> int:
    """Compare the checksum of every item with the published one. Exit code 13 where one is damaged or missing.

    \b
    Example:
      aupipe store verify --sample 5%
    """
    from aupipe.store.maintenance.repair import rebuild as rebuild_index
    from aupipe.store.maintenance.repair import repair_damage
    from aupipe.store.maintenance.verify import check

    opened = _folder_store(config_file, store)
    if rebuild:
        echo(f"index rebuilt, {counted(rebuild_index(opened), 'item')} adopted", err=True)
    report = check(opened, quick=quick, sample=sample)
    if repair:
        repair_damage(opened, report)
    if as_json:
        echo_json(asdict(report), indent=1)
        return DamageError.exit_code if report.damage else 0
    for damage in report.damage:
        echo(f"DAMAGED  {damage}")
    for path in report.quarantined:
        echo(f"moved to {path}")
    for path in report.orphans[:SHOWN]:
        echo(f"orphan (in no journal): {path}")
    if len(report.orphans) > SHOWN:
        echo(f"... and {len(report.orphans) - SHOWN} more orphans: was a journal lost?")
    if report.orphans and not rebuild:
        echo("adopt the complete orphans: aupipe store verify --rebuild")
    how = "sizes compared" if quick else f"checksums of {report.summed} compared"
    echo(f"{counted(report.items, 'item')}, {how}: {len(report.damage) or 'no'} damage")
    if report.superseded or report.unfinished:
        unfinished = counted(report.unfinished, "unfinished file")
        echo(f"{counted(report.superseded, 'replaced item')}, {unfinished}: removed by aupipe store gc")
    if report.requeued:
        echo(f"to be computed again: {counted(len(report.requeued), 'item')} (aupipe extract)")
    elif report.damage:
        echo("repair: aupipe store verify --repair, then aupipe extract")
    return DamageError.exit_code if report.damage else 0


@store.command()
@click.option(
    "--grace",
    "grace_s",
    default="1h",
    show_default=True,
    callback=duration,
    metavar="TIME",
    help="Keep what was needed until so recently: 90s, 30m, 1h, 2d.",
)
@config_options
@json_option
def gc(grace_s: float, config_file: Path | None, store: Path | None, as_json: bool) -> int:
    """Remove replaced and deleted items and what killed runs left, and merge the journals into one index.

    Other commands may read and write meanwhile, but for another `store gc`: exit code 15. Journals are removed by the
    second run after they were merged.

    \b
    Example:
      aupipe store gc
    """
    from aupipe.store.maintenance.gc import collect

    opened = _folder_store(config_file, store)
    found = collect(opened, grace_s)
    if found.busy:
        raise BusyError(f"{opened.path}: another process is running `aupipe store gc`: wait until it has ended")
    if as_json:
        echo_json(asdict(found), indent=1)
        return 0
    echo(
        f"removed {found.items} replaced items ({found.nbytes / 1e6:,.1f} MB), {found.unfinished} unfinished files, "
        f"{found.journals} merged journals"
    )
    if found.index:
        echo(f"index written: {found.index}")
    return 0


@store.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--backend", required=True, help="zarr or hdf5.")
@config_options
def migrate(target: Path, backend: str, config_file: Path | None, store: Path | None) -> None:
    """Copy the store to TARGET in another backend, bit for bit. A stopped copy continues when it is run again.

    \b
    Example:
      aupipe store migrate features-hdf5 --backend hdf5
    """
    from aupipe.store.maintenance.migrate import migrate as copy

    opened = _folder_store(config_file, store)
    if target.resolve() == Path(opened.path).resolve():
        raise UsageError(f"{target} is the store itself: name another folder")
    records = list(copy(opened, target, backend))
    done = [record.nbytes for record in records if record.state == "done"]
    failures = f", and {counted(len(records) - len(done), 'failure')}" if len(done) < len(records) else ""
    echo(f"{counted(len(done), 'item')}, {sum(done) / 1e6:,.1f} MB{failures} copied to {target} ({backend})")
    echo(f'to use it: path = "{target}", backend = "{backend}" in [store]')


@store.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--format", "form", default="npz", show_default=True, help="npz, hdf5 (one file) or parquet.")
@click.option("--feature", "features", multiple=True, help="Only these features; several separated by commas.")
@click.option("--recording", "recordings", multiple=True, help="Only these recordings.")
@overwrite_option("a TARGET that is one file")
@readable_by_option("TARGET")
@config_options
def export(
    target: Path,
    form: str,
    features: tuple[str, ...],
    recordings: tuple[str, ...],
    overwrite: bool,
    readable_by: str | None,
    config_file: Path | None,
    store: Path | None,
) -> None:
    """Write features to TARGET for other tools. An existing folder is never written to.

    \b
    Example:
      aupipe store export out --format npz --feature hog
    """
    from aupipe.store.maintenance.export import export as write

    config = resolve(config_file, store, **{"store.readable_by": readable_by})
    opened = existing_store(config)
    for name in split_list(features):
        _feature_ids(opened, name)
    chosen = {"features": split_list(features), "recordings": recordings}
    files = write(opened, target, form, **chosen, overwrite=overwrite, readable_by=config.store.readable_by)
    echo(f"wrote {counted(len(files), 'file')}: {target}")


@store.command()
@click.argument("recordings", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@config_options
def purge(recordings: tuple[str, ...], yes: bool, config_file: Path | None, store: Path | None) -> None:
    """Erase all data of RECORDINGS from the store. This cannot be undone.

    Erases items, journal lines, index entries and quarantine. Name the track to erase one person of a shared video, the
    video to erase its shared audio and clock. Beside a process of this machine that writes to the store, nothing is
    erased: exit code 15.

    \b
    Example:
      aupipe store purge clips/a.mp4
    """
    from aupipe.store.maintenance.purge import purge as erase

    opened = _folder_store(config_file, store)
    known = {record.recording for record in opened.records()}
    for recording in recordings:
        if recording not in known:
            raise UsageError(f"no item of {recording!r} in {opened.path}.{nearest_recording(recording, known)}")
    if not yes and not click.confirm(
        printable(f"erase {', '.join(recordings)} from {opened.path} for good?"), err=True
    ):
        echo("nothing erased")
        return
    for recording in recordings:
        echo(f"erased {recording}: {counted(erase(opened, recording), 'item')}")
