"""Repair a store: set damaged files aside, and make again what can be made from the rest."""

from __future__ import annotations

import os
from dataclasses import replace

from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.documents import STORE_FILE, store_document
from aupipe.store.local import LocalStore
from aupipe.store.log.journal import blank_lines, restore_last_newline
from aupipe.store.log.line import is_damaged
from aupipe.store.maintenance.inventory import items_on_disk, refuse_links
from aupipe.store.maintenance.verify import Damage, Report
from aupipe.store.processes import writer_name
from aupipe.store.records import ItemRecord
from aupipe.store.writer import now_utc


def repair_damage(store: LocalStore, report: Report) -> list[Damage]:
    """Move the damaged files of a report to ``quarantine/`` and mark their items to be extracted again.

    Nothing is deleted. What was done is added to the report. Returns what `check` would still find: what cannot be
    read, and specs, which the next publication of the feature writes. Raises DamageError, and changes nothing, where
    there is a link in the store.
    """
    refuse_links(store)
    journals = set()
    for damage in report.damage:
        if damage.kind == "item":
            _quarantine(store, damage.path, report)
            reason = f"quarantined: {damage.what}"
            store.acknowledge(
                ItemRecord(damage.recording, damage.feature, "deleted", reason=reason, time_utc=now_utc())
            )
            report.requeued.append((damage.recording, damage.feature))
        elif damage.kind in ("spec", "index"):  # the next writer, or collector, writes it again
            _quarantine(store, damage.path, report)
        elif damage.kind == "document":
            _quarantine(store, damage.path, report)
            fs.write_file(damage.path, [_document(store, damage)])
        elif damage.kind == "journal":
            journals.add(damage.path)
    for path in sorted(journals):
        _repair_journal(store, path, report)
    store.reload()
    kinds = {damage.kind for damage in report.damage}
    if kinds & {"journal", "lost journal", "index"}:  # a lost line may have been the only one of an item
        report.orphans = _acknowledge_orphans(store, report.orphans)
    if "lost journal" in kinds:
        lost = {os.path.basename(damage.path) for damage in report.damage if damage.kind == "lost journal"}
        store.compact(parts={name: part for name, part in store.index.parts().items() if name not in lost})
    return [damage for damage in report.damage if damage.kind in ("unreadable", "spec")]


def rebuild(store: LocalStore) -> int:
    """Complete the index from the items themselves, where journals or index files are lost.

    An item without a record is acknowledged when its bytes have the checksum in its own metadata; of several revisions
    the newest. Returns how many items were. Only the items are needed: recording, feature, source and versions are in
    their files.
    """
    refuse_links(store)
    store.reload()
    paths = items_on_disk(store)
    left = _acknowledge_orphans(store, paths)
    store.compact()
    return len(paths) - len(left)


def _acknowledge_orphans(store: LocalStore, paths: list[str]) -> list[str]:
    """Acknowledge items that are intact and have no record. Returns the paths of the others."""
    found = {path: store.item_at(path) for path in paths}
    newest_first = sorted(paths, key=lambda path: _seq(found[path]), reverse=True)
    taken = {path for path in newest_first if _acknowledge_orphan(store, path, found[path])}
    return [path for path in paths if path not in taken]


def _seq(item: ItemRecord | None) -> int:
    """The number of an item's publication; those of earlier versions have none."""
    seq, dash, _ = item.revision.partition("-") if item else ("", "", "")
    return int(seq) if dash else 0


def _acknowledge_orphan(store: LocalStore, path: str, item: ItemRecord | None) -> bool:
    if item is None or not item.revision or store.record(item.recording, item.feature) is not None:
        return False
    try:
        record = store.format.measure(path, item)
        array, metadata = store.format.checksums(path, record)
    except (OSError, ValueError, KeyError, TypeError, DamageError):
        return False
    if array != record.crc32c:
        return False
    store.acknowledge(replace(record, metadata_crc32c=metadata, time_utc=now_utc()))
    return True


def _document(store: LocalStore, damage: Damage) -> bytes:
    name = os.path.basename(damage.path)
    return store_document(store.backend) if name == STORE_FILE else dict(store.format.documents)[name]


def _quarantine(store: LocalStore, path: str, report: Report) -> None:
    """Move a file or folder, if it exists, to ``quarantine/``, under a name made from its path."""
    store.folder.checked(path)
    if not os.path.lexists(path):
        return
    target = _quarantine_path(store, os.path.relpath(path, store.root).replace(os.sep, "__"))
    fs.rename(path, target)
    report.quarantined.append(target)


def _quarantine_path(store: LocalStore, name: str) -> str:
    fs.make_folders(store.folder.quarantine)
    return os.path.join(store.folder.quarantine, f"{name}.{writer_name().rpartition('-')[2]}")


def _repair_journal(store: LocalStore, path: str, report: Report) -> None:
    """Copy the damaged lines to ``quarantine/`` and blank them in the journal, which a running writer keeps open."""
    if restore_last_newline(path):
        return
    target = _quarantine_path(store, os.path.basename(path))
    with open(path, "rb") as file:
        damaged = [line for line in file if is_damaged(line.rstrip(b"\n"))]
    fs.write_file(target, damaged)
    blank_lines([path], is_damaged)
    report.quarantined.append(target)
