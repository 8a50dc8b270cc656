"""Is everything that was published still there, and still what it was?"""

from __future__ import annotations

import contextlib
import math
import os
import random
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aupipe.errors import DamageError
from aupipe.store import STAGED, STORE_FILE, fs, store_document
from aupipe.store.links import find_links
from aupipe.store.log.journal import FEATURE_ID, damaged_lines, read_lines, writer_is_dead
from aupipe.store.log.snapshot import is_sound, snapshot_paths
from aupipe.store.protocol import ItemRecord
from aupipe.store.writer import parse_metadata

if TYPE_CHECKING:
    from aupipe.store.local import LocalStore

LOOK_AGAIN_S = (0.01, 0.05, 0.2)  # two writers who replace each other's editions may hide one for a moment
LEASE_S = 24 * 3600.0  # what a writer of another machine has not touched for this long is taken for abandoned
Kind = Literal["item", "unreadable", "spec", "journal", "lost journal", "catalogue", "document", "link"]


@dataclass(frozen=True)
class Damage:
    """Something published that is not what it was. ``recording`` and ``feature`` are empty for a file of the store."""

    kind: Kind
    what: str
    path: str
    recording: str = ""
    feature: str = ""

    def __str__(self) -> str:
        item = f"{self.feature}, recording {self.recording!r}: " if self.kind in ("item", "unreadable") else ""
        return f"{item}{self.what}: {self.path}"


@dataclass
class Report:
    """What `check` found. Orphans are no damage: files of publications that were never acknowledged."""

    items: int = 0
    summed: int = 0  # items whose checksums were compared, the others only by size
    damage: list[Damage] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    swept: int = 0  # leftovers of dead writers that were removed
    quarantined: list[str] = field(default_factory=list)  # where damaged files were moved to
    requeued: list[tuple[str, str]] = field(default_factory=list)  # (recording, feature) to be made again


def check(
    store: LocalStore, *, quick: bool = False, sample: float = 1.0, repair: bool = False, seed: int | None = None
) -> Report:
    """Look at everything in a store.

    ``quick`` compares sizes only; else checksums of every byte, of a random ``sample`` (0 to 1) of the items.
    ``repair`` moves what is damaged into ``quarantine/`` and marks the items to be made again; it deletes nothing.
    Leftovers of dead writers in ``tmp/``, and editions that were replaced, are swept in any case.
    """
    store.refresh()
    report = Report(swept=sweep(store))
    report.damage += _check_documents(store)
    records = list(store.all_published())
    chosen = _sample(len(records), 0.0 if quick else sample, seed)
    for number, record in enumerate(records):
        found = _check_patiently(store, record, full=number in chosen)
        if found is not None:
            report.damage.append(found)
    report.items, report.summed = len(records), len(chosen)
    on_disk = items_on_disk(store)
    store.refresh()
    known = {store.item_path(record) for record in store.all_published()}
    report.orphans = [path for path in on_disk if path not in known]
    if report.orphans:
        report.swept += _sweep_replaced(store, report.orphans)
        report.orphans = [path for path in report.orphans if os.path.lexists(path)]
    if repair:
        from aupipe.store.maintenance.repair import repair_all

        repair_all(store, report)
    return report


def sweep(store: LocalStore) -> int:
    """Remove from ``tmp/`` what dead writers left. Returns how many entries."""
    folder = os.path.join(store.root, "tmp")
    paths = [os.path.join(folder, name) for name in _listdir(folder) if _is_abandoned(folder, name)]
    staged = [name for name in _listdir(store.root) if name.startswith(STAGED)]
    paths += [os.path.join(store.root, name) for name in staged if writer_is_dead(name.removeprefix(STAGED))]
    for path in map(store.own, paths):
        if not _give_back(store, path):
            fs.try_remove(path)
    return len(paths)


def _give_back(store: LocalStore, path: str) -> bool:
    """Put an item back that a writer was retiring, when it died and somebody had just published it again."""
    try:
        item = parse_metadata(store.read_metadata(path))
        record = store.published(item.recording, item.feature)
        target = store.item_path(record)
        if record.edition != item.edition or os.path.lexists(store.own(target)) or not store.is_whole(path, record):
            return False
        fs.rename(path, target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _is_abandoned(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    inside = [os.path.join(path, other) for other in _listdir(path)]
    try:
        touched = max(os.lstat(entry).st_mtime for entry in (path, *inside))
    except FileNotFoundError:  # its writer is at work
        return False
    return writer_is_dead(name) or time.time() - touched > LEASE_S


def _sweep_replaced(store: LocalStore, orphans: list[str]) -> int:
    """Remove the orphans that were published once and then replaced or deleted, by a writer that died right after."""
    swept = 0
    places = set(orphans)
    for name in _listdir(os.path.join(store.root, "journal")):
        for line in read_lines(os.path.join(store.root, "journal", name))[0]:
            path = store.item_path(line.record)
            if line.record.state == "done" and path in places and os.path.lexists(path):
                with contextlib.suppress(OSError):  # a store that is read-only is verified too
                    store.retire(line.record.recording, line.record.feature, path)
                swept += not os.path.lexists(path)
    return swept


def _sample(count: int, fraction: float, seed: int | None) -> set[int]:
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"{fraction = }: expected 0 to 1")
    return set(random.Random(seed).sample(range(count), math.ceil(count * fraction)))


def _check_patiently(store: LocalStore, record: ItemRecord, full: bool) -> Damage | None:
    """What is wrong with an item, if that is still so when one has looked again for a replacement or a deletion."""
    waits_s = iter(LOOK_AGAIN_S)
    while True:
        path = store.item_path(record)
        kind, what = _check_item(store, record, path, full)
        if not what:
            return None
        damage = Damage(kind, what, path, record.recording, record.feature)
        if not what.startswith("missing"):
            return damage
        store.refresh()
        try:
            newer = store.published(record.recording, record.feature)
        except KeyError:
            return None
        if newer.edition == record.edition:
            wait_s = next(waits_s, None)
            if wait_s is None:
                return damage
            time.sleep(wait_s)
        record = newer


def _check_item(store: LocalStore, record: ItemRecord, path: str, full: bool) -> tuple[Kind, str]:
    """What is wrong with an item, in a few words, or nothing."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return "item", "is a link"
        for file in store.item_files(path, record):
            if not stat.S_ISREG(os.lstat(file).st_mode):
                return "item", f"{os.path.basename(file)} is no file"
        size = os.path.getsize(store.data_file(path, record)) if record.nbytes else 0
        if size != record.nbytes:
            return "item", f"{size} bytes, {record.nbytes} were published"
        if not full:
            return "item", ""
        array, rest = store.checksums(path, record)
    except (FileNotFoundError, NotADirectoryError) as error:
        return "item", f"missing {os.path.basename(str(error.filename))}"
    except DamageError as error:
        return "item", str(error)
    except OSError as error:
        return "unreadable", f"cannot be read ({error})"
    if array != record.crc32c:
        return "item", f"array has crc32c {array:08x}, {record.crc32c:08x} was published"
    if rest != record.rest_crc32c:
        return "item", f"metadata has crc32c {rest:08x}, {record.rest_crc32c:08x} was published"
    return "item", ""


def _check_documents(store: LocalStore) -> list[Damage]:
    """Everything in the store that is not an item."""
    found = check_document(os.path.join(store.root, STORE_FILE), store_document(store.backend))
    journals = os.path.join(store.root, "journal")
    for name in _listdir(journals):
        path = os.path.join(journals, name)
        found += [Damage("journal", f"line {number} of the journal is damaged", path) for number in damaged_lines(path)]
    found += lost_journals(store)
    bases = snapshot_paths(os.path.join(store.root, "catalogue"))
    found += [Damage("catalogue", "not what was written", path) for path in bases if not is_sound(path)]
    found += [Damage("link", "is a symlink, which is not followed", path) for path in find_links(store)]
    for feature in feature_folders(store):
        folder = os.path.join(store.root, feature)
        try:
            store._specs.pop(feature, None)
            store.spec(feature)
        except (DamageError, KeyError):
            found.append(Damage("spec", "not the spec that was written", os.path.join(folder, "spec.json")))
        for name, content in store.folder_documents:
            for place in group_folders(folder):
                found += check_document(os.path.join(place, name), content)
    return found


def lost_journals(store: LocalStore) -> list[Damage]:
    """Journals that are gone, or shorter than they were when last read: only the catalogue knows what they said."""
    found = []
    for name, known in store._catalogue.consumed().items():
        path = os.path.join(store.root, "journal", name)
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if size < known:
            found.append(Damage("lost journal", f"{size} bytes, {known} were read before", path))
    return found


def check_document(path: str, content: bytes) -> list[Damage]:
    """Is a file that can only have one content what it must be?"""
    try:
        with open(path, "rb") as file:
            return [] if file.read() == content else [Damage("document", "not what was written", path)]
    except FileNotFoundError:
        return [Damage("document", "missing", path)]


def feature_folders(store: LocalStore) -> list[str]:
    """The ids of the features the store has a folder of; one behind a link is not its own."""
    names = [name for name in _listdir(store.root) if FEATURE_ID.fullmatch(name)]
    return [name for name in names if not os.path.islink(os.path.join(store.root, name))]


def group_folders(feature: str) -> list[str]:
    """A feature's folder, its ``items`` and the folders the items lie in, but none behind a link."""
    items = os.path.join(feature, "items")
    folders = [os.path.join(items, name) for name in _listdir(items) if not os.path.islink(items)]
    return [feature, items, *(folder for folder in folders if os.path.isdir(folder) and not os.path.islink(folder))]


def items_on_disk(store: LocalStore) -> list[str]:
    """Everything that lies where items lie, whoever put it there."""
    paths = []
    for feature in feature_folders(store):
        for folder in group_folders(os.path.join(store.root, feature))[2:]:
            names = [name for name in _listdir(folder) if name not in dict(store.folder_documents)]
            paths += [os.path.join(folder, name) for name in names]
    return paths


def _listdir(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
