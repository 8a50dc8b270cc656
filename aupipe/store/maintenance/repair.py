"""What is done about a store as a whole: compaction, repair, rebuilding its catalogue, and erasing a recording."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from aupipe.errors import AupipeError, DamageError
from aupipe.store import STORE_FILE, fs, store_document
from aupipe.store.keys import recording_key
from aupipe.store.links import refuse_linked_items, refuse_links
from aupipe.store.log.journal import blank_lines, decode_line, restore_last_newline, writer_name
from aupipe.store.log.snapshot import NAME, is_sound, snapshot_paths, write_snapshot
from aupipe.store.maintenance.verify import Damage, Report, feature_folders, items_on_disk, lost_journals, sweep
from aupipe.store.protocol import ItemRecord
from aupipe.store.writer import now_utc, parse_metadata

if TYPE_CHECKING:
    from aupipe.store.local import LocalStore


def compact(store: LocalStore) -> str:
    """Write what all journals say into a new base, so that the store opens quickly. Returns its path.

    Anybody may do this at any time, beside any number of writers: the journals stay, and each base says how far it has
    read them.
    """
    folder = os.path.join(store.root, "catalogue")
    store.own(os.path.join(folder, ""))
    older = snapshot_paths(folder)
    match = NAME.fullmatch(os.path.basename(older[0])) if older else None
    number = int(match[1]) + 1 if match else 1
    store.reload()  # somebody may have purged since we last looked
    lines = (line for entry in store._catalogue.entries() for line in entry.lines())
    staged = os.path.join(store.root, "tmp", writer_name())
    fs.make_folders(os.path.dirname(staged))
    path = write_snapshot(folder, staged, lines, store._catalogue.consumed(), number)
    for old in older:
        if is_sound(old):  # a damaged one is kept for `verify` to name
            fs.try_remove(old)
    store.reload()
    return path


def rebuild(store: LocalStore) -> int:
    """Make the catalogue anew from the journals and, where they are lost, from the items themselves.

    An item of which no journal says anything is adopted when its bytes are those its own metadata promise. Returns how
    many were adopted. Needs nothing but the items: their recording, feature, source and versions are in their files.
    """
    refuse_links(store)
    for path in snapshot_paths(os.path.join(store.root, "catalogue")):
        fs.remove(path)
    store.reload()
    adopted = sum(_adopt(store, path) for path in items_on_disk(store))
    compact(store)
    return adopted


def _adopt(store: LocalStore, path: str) -> bool:
    """Acknowledge an item that lies in its place, is whole, and of which nothing else is known."""
    try:
        record = parse_metadata(store.read_metadata(path))
        if store.record(record.recording, record.feature) is not None or store.item_path(record) != path:
            return False
        record = store.measure(path, record)
        if store.checksums(path, record)[0] != record.crc32c:
            return False
    except (OSError, ValueError, KeyError, TypeError, DamageError):
        return False
    record = replace(record, rest_crc32c=store.checksums(path, record)[1], time_utc=now_utc())
    store._acknowledge(record)
    return True


def repair_all(store: LocalStore, report: Report) -> None:
    """Move what is damaged into ``quarantine/``, requeue it, and make anew what can be made anew.

    Raises DamageError, and changes nothing, where there is a link in the store.
    """
    refuse_links(store)
    journals = set()
    for damage in report.damage:
        if damage.kind == "item":
            _quarantine(store, damage.path, report)
            reason = f"quarantined: {damage.what}"
            store._acknowledge(
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
    if journals:  # a lost line may have been all that spoke of an item
        store.reload()
        report.orphans = [path for path in report.orphans if not _adopt(store, path)]
    if any(damage.kind == "lost journal" for damage in report.damage):
        rebuild(store)


def _document(store: LocalStore, damage: Damage) -> bytes:
    name = os.path.basename(damage.path)
    return store_document(store.backend) if name == STORE_FILE else dict(store.folder_documents)[name]


def _quarantine(store: LocalStore, path: str, report: Report) -> None:
    """Move a path out of the way, under a name that tells what it was."""
    store.own(path)
    if not os.path.lexists(path):
        return
    name = os.path.relpath(path, store.root).replace(os.sep, "__")
    target = os.path.join(store.root, "quarantine", f"{name}.{writer_name().rpartition('-')[2]}")
    fs.make_folders(os.path.dirname(target))
    fs.rename(path, target)
    report.quarantined.append(target)


def _repair_journal(store: LocalStore, path: str, report: Report) -> None:
    """Keep the damaged lines in quarantine and blank them out where they are; a live writer is not disturbed."""
    if restore_last_newline(path):
        return
    name = os.path.join("quarantine", f"{os.path.basename(path)}.{writer_name().rpartition('-')[2]}")
    target = os.path.join(store.root, name)
    fs.make_folders(os.path.dirname(target))
    with open(path, "rb") as file:
        damaged = [line for line in file if line.strip() and decode_line(line.rstrip(b"\n"), "") is None]
    fs.write_file(target, damaged)
    blank_lines([path], lambda line: decode_line(line, "") is None)
    report.quarantined.append(target)


def purge(store: LocalStore, recording: str) -> int:
    """Erase a recording: its items in every edition, its journal lines, its rows of the catalogue, its quarantine.

    Returns how many items were removed. Nothing of it is left in any file of the store, its name included, except
    where the name is part of another's: purge ``video2_left`` and ``video2_right`` with ``video2``. Run it when nobody
    writes; raises AupipeError when somebody wrote of the recording meanwhile, DamageError when a journal was lost (what
    it said of other recordings would be forgotten with the catalogue) and, before anything is erased, when there is a
    link in the store: what lies behind it may be another store's.
    """
    refuse_links(store)
    refuse_linked_items([os.path.join(store.root, "journal")])  # lines are blanked in place
    features = feature_folders(store)
    paths = [path for feature in features for path in store.editions(recording, feature)]
    refuse_linked_items(paths)
    if lost := lost_journals(store):
        raise DamageError(f"{lost[0]}: `aupipe store verify --repair`, then purge again")
    sweep(store)
    bases = snapshot_paths(os.path.join(store.root, "catalogue"))
    for path in bases:  # they know the recording; the journals know everything else
        fs.remove(path)
    blank_lines(_files(store, "journal", ".jsonl"), lambda line: _speaks_of(line, recording))
    paths = [path for feature in features for path in store.editions(recording, feature)]
    for path in paths:
        fs.remove(path)
    for path in _files(store, "quarantine"):
        if f"{recording_key(recording)}." in os.path.basename(path):
            fs.remove(path)
        elif path.rpartition(".")[0].endswith(".jsonl") and not os.path.islink(path):
            blank_lines([path], lambda line: _speaks_of(line, recording))
    if bases:
        compact(store)
    store.reload()
    if any(store.record(recording, feature) is not None for feature in features):
        raise AupipeError(f"{store.path}: somebody published {recording!r} during the purge: stop the run, purge again")
    return len(paths)


def _files(store: LocalStore, folder: str, suffix: str = "") -> list[str]:
    path = os.path.join(store.root, folder)
    names = os.listdir(path) if os.path.isdir(path) else []
    return [os.path.join(path, name) for name in sorted(names) if name.endswith(suffix)]


def _speaks_of(line: bytes, recording: str) -> bool:
    """Is a journal line of this recording? One that cannot be read is judged by its text."""
    decoded = decode_line(line, "")
    if decoded is not None:
        return decoded.record.recording == recording
    return json.dumps(recording).encode() in line
