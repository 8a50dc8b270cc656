"""Is everything that was published still there, and still what it was?"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aupipe.errors import DamageError
from aupipe.store import STAGED, STORE_FILE, fs, store_document
from aupipe.store.base import ItemRecord
from aupipe.store.journal import FEATURE_ID, damaged_lines, read_lines, writer_is_dead

if TYPE_CHECKING:
    from aupipe.store.folder import FolderStore


@dataclass(frozen=True)
class Damage:
    """Something published that is not what it was. ``recording`` and ``feature`` are empty for a file of the store."""

    what: str
    path: str
    recording: str = ""
    feature: str = ""

    def __str__(self) -> str:
        item = f"{self.feature}, recording {self.recording!r}: " if self.recording else ""
        return f"{item}{self.what}: {self.path}"


@dataclass
class Report:
    """What `check` found. Orphans are no damage: files of publications that were never acknowledged, or replaced."""

    items: int = 0
    damage: list[Damage] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    swept: int = 0  # leftovers of dead writers removed from tmp/


def check(store: FolderStore, *, quick: bool = False) -> Report:
    """Look at everything in a store; quick compares sizes, full compares checksums of every byte."""
    store.refresh()
    report = Report(swept=sweep(store))
    report.damage += _check_documents(store)
    known = set()
    for record in list(store.all_published()):
        report.items += 1
        path = store.item_path(record)
        known.add(path)
        what = _check_item(store, record, path, quick)
        if what:
            report.damage.append(Damage(what, path, record.recording, record.feature))
    report.orphans = [path for path in _items_on_disk(store) if path not in known]
    if report.orphans:
        report.swept += _sweep_replaced(store, report.orphans)
        report.orphans = [path for path in report.orphans if os.path.lexists(path)]
    return report


def sweep(store: FolderStore) -> int:
    """Remove from ``tmp/`` what dead writers left. Returns how many entries."""
    folder = os.path.join(store.root, "tmp")
    paths = [os.path.join(folder, name) for name in _listdir(folder) if writer_is_dead(name)]
    staged = [name for name in _listdir(store.root) if name.startswith(STAGED)]
    paths += [os.path.join(store.root, name) for name in staged if writer_is_dead(name.removeprefix(STAGED))]
    for path in paths:
        fs.try_remove(path)
    return len(paths)


def _sweep_replaced(store: FolderStore, orphans: list[str]) -> int:
    """Remove the orphans that were published once and then replaced or deleted, by a writer that died right after."""
    swept = 0
    places = set(orphans)
    for name in _listdir(os.path.join(store.root, "journal")):
        for line in read_lines(os.path.join(store.root, "journal", name))[0]:
            if line.record.state == "done" and store.item_path(line.record) in places:
                store.retire(line.record)
                swept += not os.path.lexists(store.item_path(line.record))
    return swept


def _check_item(store: FolderStore, record: ItemRecord, path: str, quick: bool) -> str:
    """What is wrong with an item, in a few words, or nothing."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return "is a link"
        for file in store.item_files(path, record):
            if not stat.S_ISREG(os.lstat(file).st_mode):
                return f"{os.path.basename(file)} is no file"
        size = os.path.getsize(store.data_file(path, record)) if record.nbytes else 0
        if size != record.nbytes:
            return f"{size} bytes, {record.nbytes} were published"
        if quick:
            return ""
        array, rest = store.checksums(path, record)
    except FileNotFoundError as error:
        return f"missing {os.path.basename(str(error.filename))}"
    except (OSError, DamageError) as error:
        return f"cannot be read ({error})"
    if array != record.crc32c:
        return f"array has crc32c {array:08x}, {record.crc32c:08x} was published"
    if rest != record.rest_crc32c:
        return f"metadata has crc32c {rest:08x}, {record.rest_crc32c:08x} was published"
    return ""


def _check_documents(store: FolderStore) -> list[Damage]:
    """Everything in the store that is not an item."""
    found = _check_document(os.path.join(store.root, STORE_FILE), store_document(store.backend))
    journals = os.path.join(store.root, "journal")
    for name in _listdir(journals):
        path = os.path.join(journals, name)
        found += [Damage(f"line {number} of the journal is damaged", path) for number in damaged_lines(path)]
    for feature in _feature_folders(store):
        folder = os.path.join(store.root, feature)
        try:
            store._specs.pop(feature, None)
            store.spec(feature)
        except (DamageError, KeyError):
            found.append(Damage("not the spec that was written", os.path.join(folder, "spec.json"), feature=feature))
        for name, content in store.folder_documents:
            for place in _group_folders(folder):
                found += _check_document(os.path.join(place, name), content)
    return found


def _check_document(path: str, content: bytes) -> list[Damage]:
    try:
        with open(path, "rb") as file:
            return [] if file.read() == content else [Damage("not what was written", path)]
    except FileNotFoundError:
        return [Damage("missing", path)]


def _feature_folders(store: FolderStore) -> list[str]:
    return [name for name in _listdir(store.root) if FEATURE_ID.fullmatch(name)]


def _group_folders(feature: str) -> list[str]:
    items = os.path.join(feature, "items")
    folders = [os.path.join(items, name) for name in _listdir(items)]
    return [feature, items, *(folder for folder in folders if os.path.isdir(folder))]


def _items_on_disk(store: FolderStore) -> list[str]:
    paths = []
    for feature in _feature_folders(store):
        for folder in _group_folders(os.path.join(store.root, feature))[2:]:
            names = [name for name in _listdir(folder) if name not in dict(store.folder_documents)]
            paths += [os.path.join(folder, name) for name in names]
    return paths


def _listdir(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
