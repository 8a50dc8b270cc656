"""store ls, info, migrate, export, purge: commands for the feature store; verify, rm and gc have their own modules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aupipe.cli.completion import RECORDING, STORED_FEATURE, STORED_FEATURES
from aupipe.cli.inspect import describe_store
from aupipe.cli.options import (
    config_options,
    existing_store,
    json_option,
    readable_by_option,
    resolve,
    split_list,
)
from aupipe.cli.output import echo, echo_json
from aupipe.cli.overwrite import overwrite_option
from aupipe.cli.store_remove import gc, remove
from aupipe.cli.store_verify import verify
from aupipe.cli.stored import feature_ids, find_named, folder_store
from aupipe.config import Config
from aupipe.dataset_model import nearest_recording
from aupipe.errors import AupipeError, UsageError
from aupipe.logs import printable
from aupipe.quantities import counted, describe_bytes

if TYPE_CHECKING:
    from aupipe.store.local import LocalStore


@click.group()
def store() -> None:
    """List, check, copy, export and erase the content of a feature store."""


for command in (remove, gc, verify):
    store.add_command(command)


@store.command("ls")
@click.argument("feature", required=False, type=STORED_FEATURE)
@click.option("--orphans", is_flag=True, help="Also items on disk that no journal names, and features nothing names.")
@config_options
@json_option
def list_items(feature: str | None, orphans: bool, config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """List the items of every feature, or of FEATURE.

    FEATURE is a name or a full id. Columns: feature, shape, type, valid frames, recording. With --orphans, orphans come
    last, and features that neither aupipe.toml nor a run names are said on stderr; that reads every folder of the store
    and lists the data set.

    \b
    Example:
      aupipe store ls hog
    """
    from aupipe.store.record_json import record_row

    config = resolve(config_file, store)
    opened = folder_store(config)
    ids = feature_ids(opened, feature)
    states = Counter[str]()
    for record in opened.records():
        if record.feature not in ids:
            continue
        states[record.state] += 1
        if as_json:
            echo_json("item", record_row(record))
        elif record.state == "done":
            shape = "x".join(map(str, record.shape))
            numbers = f"{shape:>16} {record.dtype:8} {record.valid_frames:>8}"
            damage = f"  damaged: {record.damage}" if record.damage else ""
            echo(f"{record.feature:32} {numbers} {record.recording}{damage}")
        else:
            failure = f"{record.recording}  {record.reason}"
            echo(f"{record.feature:32} {record.state.upper():>16} {'':17} {failure}")
    if orphans:
        states["orphan"] = _show_orphans(opened, ids, as_json)
        _say_unnamed(config, opened, ids)
    if as_json:
        echo_json("summary", {"store": str(opened.path), "features": len(ids), **states})


def _show_orphans(store: LocalStore, ids: set[str], as_json: bool) -> int:
    """List items on disk that no journal line is of, and return their number.

    `store verify --rebuild` adopts those that are whole.
    """
    from aupipe.store.maintenance.inventory import find_unpublished, size_on_disk

    found = 0
    for path in find_unpublished(store)[0]:
        feature = Path(path).relative_to(store.root).parts[0]
        found += feature in ids
        item = store.item_at(path) if feature in ids else None
        recording = item.recording if item is not None else ""
        if feature in ids and as_json:
            echo_json("item", {"recording": recording, "feature": feature, "state": "orphan", "path": path})
        elif feature in ids:
            size = describe_bytes(size_on_disk(path))
            echo(f"{feature:32} {'ORPHAN':>16} {size:>17} {recording or '(unreadable)'}  {path}")
    return found


def _say_unnamed(config: Config, store: LocalStore, ids: set[str]) -> None:
    """Say on stderr which features nothing names, where that can be said."""
    if config.file is None:
        return
    try:
        named = find_named(config, store)
    except AupipeError:  # no data set here, or a run that cannot be read
        return
    for feature in sorted(ids - named.keys()):
        echo(f"aupipe: nothing names {feature}: `aupipe store rm {feature}` removes it", err=True)


@store.command()
@config_options
@json_option
def info(config_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Show every feature: its encoder, weights, number of recordings and size.

    \b
    Example:
      aupipe store info
    """
    opened = folder_store(resolve(config_file, store))
    content = describe_store(opened)
    if as_json:
        about = {"store": str(opened.path), "backend": opened.backend, "features": content["rows"]}
        echo_json("store", about, indent=1)
        return
    echo(content["title"])
    for line in content["lines"]:
        echo(line)
    for row in content["rows"]:
        if row["weights"]:
            echo(f"{row['feature']:32} weights {row['weights']}, licence {row['licence']}")


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

    opened = folder_store(resolve(config_file, store))
    if target.resolve() == Path(opened.path).resolve():
        raise UsageError(f"{target} is the store itself: name another folder")
    records = list(copy(opened, target, backend))
    done = [record.nbytes for record in records if record.state == "done"]
    failures = f", and {counted(len(records) - len(done), 'failure')}" if len(done) < len(records) else ""
    echo(f"{counted(len(done), 'item')}, {describe_bytes(sum(done))}{failures} copied to {target} ({backend})")
    echo(f'to use it: path = "{target}", backend = "{backend}" in [store]')


@store.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", default="npz", show_default=True, help="npz, hdf5 (one file), csv, parquet or webdataset."
)
@click.option(
    "--feature",
    "features",
    multiple=True,
    type=STORED_FEATURES,
    help="Only these features; several separated by commas.",
)
@click.option("--recording", "recordings", multiple=True, type=RECORDING, help="Only these recordings.")
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
        feature_ids(opened, name)
    chosen = {"features": split_list(features), "recordings": recordings}
    files = write(opened, target, form, **chosen, overwrite=overwrite, readable_by=config.store.readable_by)
    echo(f"wrote {counted(len(files), 'file')}: {target}")


@store.command()
@click.argument("recordings", nargs=-1, required=True, type=RECORDING)
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

    opened = folder_store(resolve(config_file, store))
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
