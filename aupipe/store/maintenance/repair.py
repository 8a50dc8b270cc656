"""Repair a store: set damaged files aside, and make again what can be made from the rest."""

from __future__ import annotations

import os
from dataclasses import replace

from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.documents import STORE_FILE, store_document
from aupipe.store.local import LocalStore
from aupipe.store.log.journal import blank_lines, decode_line, restore_last_newline
from aupipe.store.log.snapshot import snapshot_paths
from aupipe.store.maintenance.inventory import items_on_disk, refuse_links
from aupipe.store.maintenance.verify import Damage, Report
from aupipe.store.processes import writer_name
from aupipe.store.record_json import parse_metadata
from aupipe.store.records import ItemRecord
from aupipe.store.writer import now_utc


def repair_damage(store: LocalStore, report: Report) -> None:
    """Move the damaged files of a report to ``quarantine/`` and mark their items to be extracted again.

    Nothing is deleted. What was done is added to the report. Raises DamageError, and changes nothing, where there is a
    link in the store.
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
        elif damage.kind in ("spec", "catalogue"):  # the next writer, or compaction, writes it again
            _quarantine(store, damage.path, report)
        elif damage.kind == "document":
            _quarantine(store, damage.path, report)
            fs.write_file(damage.path, [_document(store, damage)])
        elif damage.kind == "journal":
            journals.add(damage.path)
    for path in sorted(journals):
        _repair_journal(store, path, report)
    store.reload()
    if journals:  # a damaged line may have been the only one of an item
        report.orphans = [path for path in report.orphans if not _acknowledge_orphan(store, path)]
    if any(damage.kind == "lost journal" for damage in report.damage):
        rebuild(store)


def rebuild(store: LocalStore) -> int:
    """Make the index again from the journals and, where they are lost, from the items themselves.

    An item without a line in any journal is acknowledged when its bytes have the checksum in its own metadata. Returns
    how many were. Only the items are needed: recording, feature, source and versions are in their files.
    """
    refuse_links(store)
    for path in snapshot_paths(store.folder.snapshots):
        fs.remove(path)
    store.reload()
    count = sum(_acknowledge_orphan(store, path) for path in items_on_disk(store))
    store.compact()
    return count


def _acknowledge_orphan(store: LocalStore, path: str) -> bool:
    """Acknowledge an item that is at its path, is intact and has no record. Returns whether it was acknowledged."""
    try:
        record = parse_metadata(store.format.read_metadata(path))
        if store.record(record.recording, record.feature) is not None or store.item_path(record) != path:
            return False
        record = store.format.measure(path, record)
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
        damaged = [line for line in file if line.strip() and decode_line(line.rstrip(b"\n"), "") is None]
    fs.write_file(target, damaged)
    blank_lines([path], lambda line: decode_line(line, "") is None)
    report.quarantined.append(target)
