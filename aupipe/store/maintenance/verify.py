"""Compare everything that was published with what is on disk. Nothing is changed."""

from __future__ import annotations

import contextlib
import math
import os
import random
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, cast

from aupipe.errors import DamageError
from aupipe.store.api import open_once
from aupipe.store.documents import STORE_FILE, VERSION, read_spec, store_document
from aupipe.store.local import LocalStore
from aupipe.store.log.index_file import index_paths, is_intact
from aupipe.store.log.journal import damaged_lines
from aupipe.store.maintenance.gc import list_abandoned
from aupipe.store.maintenance.inventory import (
    feature_folders,
    find_links,
    find_unpublished,
    group_folders,
    names_in,
)
from aupipe.store.records import ItemRecord

# Before items that are not at their path are called missing, all together: see `aupipe.store.local.RETRY_WAITS_S`.
RETRY_WAITS_S = (0.05, 0.5, 3.0)
Kind = Literal["item", "unreadable", "spec", "journal", "lost journal", "index", "document", "link"]


@dataclass(frozen=True)
class Damage:
    """One difference from what was published. ``recording`` and ``feature`` are empty for a file of the store.

    ``kind`` is what is damaged: "index" is an index file, "document" a ``store.json`` or a document of the format.
    """

    kind: Kind
    what: str
    path: str
    recording: str = ""
    feature: str = ""

    def __str__(self) -> str:
        item = f"{self.feature}, recording {self.recording!r}: " if self.kind in ("item", "unreadable") else ""
        return f"{item}{self.what}: {self.path}"


Checked = tuple[ItemRecord, bool]  # an item, and whether its bytes are compared, not its size alone


@dataclass
class Report:
    """What `check` found, and what `aupipe.store.maintenance.repair.repair_damage` did about it."""

    items: int = 0
    summed: int = 0  # items whose checksums were compared; of the others only the sizes were
    damage: list[Damage] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)  # items on disk that were never acknowledged: not damage
    superseded: int = 0  # items on disk that were replaced or deleted: `aupipe.store.maintenance.gc` removes them
    unfinished: int = 0  # files of ended processes in ``tmp/``: the same
    quarantined: list[str] = field(default_factory=list)  # the paths that damaged files were moved to
    requeued: list[tuple[str, str]] = field(default_factory=list)  # (recording, feature) to be extracted again


def check(
    store: LocalStore,
    *,
    quick: bool = False,
    sample: float = 1.0,
    seed: int | None = None,
    run: Callable[[Sequence[Checked]], list[Damage]] | None = None,
) -> Report:
    """Check every file of a store.

    ``quick`` compares the sizes of items only; else the checksums of every byte, of a random ``sample`` (0 to 1) of the
    items. ``run`` checks items, in their order, as `check_items` does, which is the default.
    """
    store.refresh()
    report = Report(damage=_check_documents(store))
    records = list(store.all_published())
    chosen = _sample(len(records), 0.0 if quick else sample, seed)
    items = [(record, number in chosen) for number, record in enumerate(records)]
    report.damage += run(items) if run is not None else check_items(store, items, iter(RETRY_WAITS_S))
    report.items, report.summed = len(records), len(chosen)
    report.orphans, replaced = find_unpublished(store)
    report.superseded = len(replaced)
    report.unfinished = len(list_abandoned(store))
    return report


def check_items(store: LocalStore, items: Iterable[Checked], waits_s: Iterator[float]) -> list[Damage]:
    """The damage of items, in their order; ``waits_s``: before one that is missing is looked for again."""
    found = (_check_item_and_retry(store, record, full, waits_s) for record, full in items)
    return [damage for damage in found if damage is not None]


@dataclass(frozen=True)
class ItemChunk:
    """Some of the items of a store, from number ``first`` on."""

    first: int
    items: tuple[Checked, ...]

    def __str__(self) -> str:
        if len(self.items) == 1:
            return f"{self.items[0][0].feature}, recording {self.items[0][0].recording!r}"
        return f"items {self.first + 1} to {self.first + len(self.items)}"


@dataclass(frozen=True)
class ChunkChecker:
    """Checks chunks of the store at a path; may be sent to another process, which opens the store once."""

    path: str

    def __call__(self, chunk: ItemChunk) -> list[Damage]:
        """The damage of a chunk's items."""
        return check_items(cast(LocalStore, open_once(self.path)), chunk.items, _waits_s(self.path))


@cache
def _waits_s(path: str) -> Iterator[float]:
    return iter(RETRY_WAITS_S)


def _sample(count: int, fraction: float, seed: int | None) -> set[int]:
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"{fraction = }: expected 0 to 1")
    return set(random.Random(seed).sample(range(count), math.ceil(count * fraction)))


def _check_item_and_retry(store: LocalStore, record: ItemRecord, full: bool, waits_s: Iterator[float]) -> Damage | None:
    """The damage of an item. One that is missing is looked for again: it may have been replaced meanwhile."""
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
        if newer.revision == record.revision:
            wait_s = next(waits_s, None)
            if wait_s is None:
                return damage
            time.sleep(wait_s)
        record = newer


def _check_item(store: LocalStore, record: ItemRecord, path: str, full: bool) -> tuple[Kind, str]:
    """The kind of damage of an item and a few words about it, which are empty where there is none."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return "item", "is a link"
        for file in store.format.item_files(path, record):
            if not stat.S_ISREG(os.lstat(file).st_mode):
                return "item", f"{os.path.basename(file)} is no file"
        size = os.path.getsize(store.format.data_file(path, record)) if record.nbytes else 0
        if size != record.nbytes:
            return "item", f"{size} bytes, {record.nbytes} were published"
        if not full:
            return "item", ""
        array, metadata = store.format.checksums(path, record)
    except (FileNotFoundError, NotADirectoryError) as error:
        return "item", f"missing {os.path.basename(str(error.filename))}"
    except DamageError as error:
        return "item", str(error)
    except OSError as error:
        return "unreadable", f"cannot be read ({error})"
    if array != record.crc32c:
        return "item", f"array has crc32c {array:08x}, {record.crc32c:08x} was published"
    if metadata != record.metadata_crc32c:
        return "item", f"metadata has crc32c {metadata:08x}, {record.metadata_crc32c:08x} was published"
    return "item", ""


def _check_documents(store: LocalStore) -> list[Damage]:
    """The damage of every file that is not of an item."""
    documents = [store_document(store.backend, version) for version in range(1, VERSION + 1)]
    found = _check_document(os.path.join(store.root, STORE_FILE), *documents)
    for name in names_in(store.folder.journals):
        path = os.path.join(store.folder.journals, name)
        with contextlib.suppress(FileNotFoundError):  # merged and removed by a collector meanwhile
            found += [
                Damage("journal", f"line {number} of the journal is damaged", path) for number in damaged_lines(path)
            ]
    found += lost_journals(store)
    files = index_paths(store.folder.indexes)
    found += [Damage("index", "not what was written", path) for path in files if not is_intact(path)]
    found += [Damage("link", "is a symlink, which is not followed", path) for path in find_links(store)]
    for feature in feature_folders(store):
        folder = os.path.join(store.root, feature)
        try:
            read_spec(store.root, feature)
        except (DamageError, KeyError):
            found.append(Damage("spec", "not the spec that was written", os.path.join(folder, "spec.json")))
        for name, content in store.format.documents:
            for group in group_folders(folder):
                found += _check_document(os.path.join(group, name), content)
    return found


def lost_journals(store: LocalStore) -> list[Damage]:
    """Journals that are missing, or shorter than when they were last read, and that no collector has removed."""
    found = []
    for name, part in store.index.parts().items():
        path = os.path.join(store.folder.journals, name)
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if size < part.bytes:
            found.append(Damage("lost journal", f"{size} bytes, {part.bytes} were read before", path))
    return found


def _check_document(path: str, *contents: bytes) -> list[Damage]:
    """The damage of a file that has one of some contents."""
    try:
        with open(path, "rb") as file:
            return [] if file.read() in contents else [Damage("document", "not what was written", path)]
    except FileNotFoundError:
        return [Damage("document", "missing", path)]
