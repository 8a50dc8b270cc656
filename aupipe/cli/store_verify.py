"""store verify: compare what was published with what is on disk, here or on the machines of a Dask scheduler."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.options import config_options, existing_store, json_option, resolve, share
from aupipe.cli.output import echo, echo_error, echo_json
from aupipe.cli.work import Place, machine_options, run_on_scheduler
from aupipe.errors import DamageError
from aupipe.quantities import counted

if TYPE_CHECKING:
    from aupipe.store.local import LocalStore
    from aupipe.store.maintenance.verify import Checked, Damage, ItemChunk

SHOWN = 10  # orphans: a killed writer leaves one at most, a lost journal all of its items
CHUNK = 128  # items of one piece of work
AGAIN = "then run the same command again"


@click.command()
@click.option("--quick", is_flag=True, help="Compare sizes only.")
@click.option("--sample", callback=share, metavar="P", help="Check a random share of the items: 5% or 0.05.")
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged items to quarantine/ and compute them again in the next extract. Deletes nothing.",
)
@click.option("--rebuild", is_flag=True, help="First complete the index from the items.")
@machine_options
@config_options
@json_option
def verify(
    quick: bool,
    sample: float,
    repair: bool,
    rebuild: bool,
    place: Place,
    config_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> int:
    """Compare the checksum of every item with the published one. Exit code 13 where one is damaged or missing.

    With --repair it is 0 where all damage that was found is repaired: the next verify would find none of it.

    With --scheduler, the items are divided among the machines of a Dask scheduler, and the report is the same.

    \b
    Examples:
      aupipe store verify --sample 5%
      aupipe store verify --scheduler scheduler.json
    """
    from aupipe.store.maintenance.repair import rebuild as rebuild_index
    from aupipe.store.maintenance.repair import repair_damage
    from aupipe.store.maintenance.verify import check

    opened = existing_store(resolve(config_file, store))
    if rebuild:
        echo(f"index rebuilt, {counted(rebuild_index(opened), 'item')} adopted", err=True)
    run = partial(_on_scheduler, place, opened) if place.scheduler is not None else None
    report = check(opened, quick=quick, sample=sample, run=run)
    remaining = repair_damage(opened, report) if repair else report.damage
    if as_json:
        echo_json("verification", asdict(report) | {"remaining": list(map(asdict, remaining))}, indent=1)
        return DamageError.exit_code if remaining else 0
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
    if repair and report.damage:
        echo(f"repaired: {len(report.damage) - len(remaining)} of {len(report.damage)}", *map(_remedy, remaining))
    elif report.damage:
        echo("repair: aupipe store verify --repair, then aupipe extract")
    return DamageError.exit_code if remaining else 0


def _remedy(damage: Damage) -> str:
    """What to do about damage that could not be repaired."""
    if damage.kind == "spec":
        return f"not yet repaired: {damage.path}: `aupipe extract` writes it with the next item of the feature"
    return f"not repaired: {damage}: look at the disk, then run this command again"


def _on_scheduler(place: Place, store: LocalStore, items: Sequence[Checked]) -> list[Damage]:
    """The damage of items, found on the machines of a scheduler. An item whose check kills twice is named."""
    from aupipe.store.maintenance.verify import Damage, ItemChunk

    chunks = [ItemChunk(first, tuple(items[first : first + CHUNK])) for first in range(0, len(items), CHUNK)]
    found, dead = _check_chunks(place, store, chunks)
    again = [ItemChunk(chunk.first + n, (item,)) for chunk, _ in dead for n, item in enumerate(chunk.items)]
    more, killers = _check_chunks(place, store, again) if again else ({}, [])
    for chunk, reason in killers:
        record = chunk.items[0][0]
        what = f"its check could not be finished ({reason}, twice)"
        path = store.item_path(record)
        more[chunk.first] = [Damage("unreadable", what, path, record.recording, record.feature)]
    return [damage for _, each in sorted((found | more).items()) for damage in each]


def _check_chunks(
    place: Place, store: LocalStore, chunks: Sequence[ItemChunk]
) -> tuple[dict[int, list[Damage]], list[tuple[ItemChunk, str]]]:
    """By the number of its first item: the damage of each chunk; and the chunks whose process died twice, with how."""
    from aupipe.extract.executors.work import Died
    from aupipe.store.maintenance.verify import ChunkChecker

    found: dict[int, list[Damage]] = {}
    dead: list[tuple[ItemChunk, str]] = []
    checker = ChunkChecker(os.path.abspath(store.root))
    asked: dict[str, Any] = {
        "store": store.path,
        "again": AGAIN,
        "tell": echo_error,
    }
    with closing(run_on_scheduler(place, checker, chunks, **asked)) as results:
        for chunk, damage in results:
            if isinstance(damage, Died):
                dead.append((chunk, damage.reason))
            else:
                found[chunk.first] = damage
    return found, dead
