"""The collector: the only one that removes what publishing leaves behind.

It merges journals into an index file, and removes, each a grace period after it was no longer needed: revisions that
were replaced or deleted, files that ended processes left in ``tmp/``, journals that two index files hold whole, and
older index files. Of the logs of runs it keeps the newest. Times are those of the file system, never of this machine's
clock.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from aupipe.errors import BusyError, DamageError
from aupipe.store import fs
from aupipe.store.documents import STAGED_PREFIX
from aupipe.store.local import LocalStore
from aupipe.store.log.index_file import IndexFile, JournalPart, Revision, index_paths
from aupipe.store.log.journal import damaged_lines, read_lines
from aupipe.store.maintenance.inventory import items_on_disk, names_in, recorded_paths, refuse_links, size_on_disk
from aupipe.store.maintenance.lease import Lease, hold_lease
from aupipe.store.processes import is_of_this_machine, writer_has_ended
from aupipe.store.record_json import parse_metadata
from aupipe.store.run_log import remove_old

GRACE_S = 3600.0  # far longer than caches of network file systems show what was (NFS: a minute)
ABANDONED_AFTER_S = 24 * 3600.0  # without a change, for files of a process of another machine
COMPACT_LINES = 20_000  # journal lines beyond the index file that take a tenth of a second to read
COMPACT_JOURNALS = 1_000


@dataclass
class Collected:
    """What a collector removed."""

    items: int = 0  # revisions of items
    nbytes: int = 0  # of those
    unfinished: int = 0  # entries of ``tmp/``
    journals: int = 0
    index: str = ""  # path of the index file that was written, if one was
    busy: bool = False  # another process collects: nothing was done


def collect(store: LocalStore, grace_s: float = GRACE_S, *, full: bool = True, wait: bool = True) -> Collected:
    """Remove what is no longer needed for ``grace_s``.

    ``full``: look through the folders of items for files that were never published, and merge all journals; else merge
    them only when there are many new lines. ``wait``: see `hold_lease`. Raises DamageError where there is a link in the
    store.
    """
    refuse_links(store)
    with hold_lease(store, wait=wait) as lease:
        if lease is None:
            return Collected(busy=True)
        return _collect(store, lease, int(grace_s * 1e9), full)


def _collect(store: LocalStore, lease: Lease, grace_ns: int, full: bool) -> Collected:
    now_ns = store.folder.now_ns()
    found = Collected(unfinished=sweep(store))
    remove_old(store.root)
    on_disk = items_on_disk(store) if full else []
    gone = {name for name in names_in(store.folder.journals) if _has_ended(store, name, now_ns)}
    store.refresh()  # after looking: what a writer had written before it ended is read
    garbage, due = _due(store, on_disk, now_ns, grace_ns)
    for revision in due:
        lease.beat()
        path = store.folder.revision_path(*revision)
        if os.path.lexists(path):
            found.nbytes += size_on_disk(path)
            found.items += 1
            store.folder.remove_item(path)
        del garbage[revision]
    parts = {name: _part(store, name, part, gone, now_ns, grace_ns) for name, part in store.index.parts().items()}
    if _must_merge(store, garbage, parts, now_ns - grace_ns, full):
        found.index = store.compact(garbage, parts)
        fs.remove(store.folder.checked(store.folder.old_snapshots))
    found.journals = _remove_merged(store, lease, now_ns - grace_ns)
    return found


def preview(store: LocalStore, grace_s: float = GRACE_S) -> Collected:
    """What `collect` would remove of items and of ``tmp/``; nothing is removed. Journals are not counted."""
    now_ns = store.folder.now_ns()
    on_disk = items_on_disk(store)
    store.refresh()
    _, due = _due(store, on_disk, now_ns, int(grace_s * 1e9))
    paths = [path for path in (store.folder.revision_path(*key) for key in due) if os.path.lexists(path)]
    return Collected(len(paths), sum(map(size_on_disk, paths)), len(list_abandoned(store, now_ns)))


def _due(
    store: LocalStore, on_disk: list[str], now_ns: int, grace_ns: int
) -> tuple[dict[Revision, int], list[Revision]]:
    """The revisions that nothing needs, orphans among them, and since when; those of them whose grace has passed."""
    garbage = store.index.garbage(now_ns)
    for orphan in _orphans(store, on_disk):
        garbage.setdefault(orphan, now_ns)
    return garbage, [key for key, since_ns in garbage.items() if now_ns - since_ns >= grace_ns]


def forget(store: LocalStore, recording: str) -> None:
    """Write an index file without a recording, and remove all others, which hold it. For `purge` alone.

    Raises BusyError while a collector runs, which could write it again.
    """
    with hold_lease(store) as lease:
        if lease is None:
            raise BusyError(f"{store.path}: `aupipe store gc` is running: purge again when it has ended")
        kept = store.compact(without=recording)
        for path in index_paths(store.folder.indexes):
            if path != kept:
                fs.remove(store.folder.checked(path))
        fs.remove(store.folder.checked(store.folder.old_snapshots))
        store.compact()  # what journals no longer hold is in two files again


def _has_ended(store: LocalStore, journal: str, now_ns: int) -> bool:
    """Whether the writer of a journal writes no more: it has ended, or it cannot be seen and has been idle for long.

    A writer starts another journal after half of that time: `aupipe.store.log.journal.IDLE_S`.
    """
    if is_of_this_machine(journal):
        return writer_has_ended(journal)
    return now_ns - _changed_ns(os.path.join(store.folder.journals, journal)) > ABANDONED_AFTER_S * 1e9


def _part(store: LocalStore, name: str, part: JournalPart, gone: set[str], now_ns: int, grace_ns: int) -> JournalPart:
    """What the next index file says of a journal.

    A process that was killed says no last word: its journal counts as merged a grace period after it was found ended,
    since only then all that it wrote is surely seen here. A damaged line keeps a journal, for `repair_damage`.
    """
    if part.merged:
        return part
    ended_ns = part.ended_ns or (now_ns if name in gone else 0)
    path = os.path.join(store.folder.journals, name)
    final = ended_ns and now_ns - ended_ns >= grace_ns and os.path.exists(path)
    merged = bool(final) and not any(damaged_lines(path))
    return part._replace(ended_ns=ended_ns, merged=merged)


def _must_merge(
    store: LocalStore, garbage: dict[Revision, int], parts: dict[str, JournalPart], long_ago_ns: int, full: bool
) -> bool:
    filed = store.index.filed()
    if not full:
        return store.index.tail > COMPACT_LINES or len(parts.keys() - filed.keys()) > COMPACT_JOURNALS
    if any(filed.get(name) != part for name, part in parts.items()) or garbage != store.index.filed_garbage():
        return True
    newest = index_paths(store.folder.indexes)[:1]  # merged journals are removed when a second file holds them, too
    return any(part.merged for part in parts.values()) and all(_changed_ns(path) <= long_ago_ns for path in newest)


def _remove_merged(store: LocalStore, lease: Lease, long_ago_ns: int) -> int:
    """Remove journals that the two newest index files hold whole, and files older than these two.

    The second newest is old enough for every process to have seen it. Returns how many journals.
    """
    paths = index_paths(store.folder.indexes)
    if len(paths) < 2 or _changed_ns(paths[1]) > long_ago_ns:
        return 0
    try:
        newest, second = (IndexFile(path) for path in paths[:2])
    except (DamageError, FileNotFoundError):
        return 0  # `verify` reports it
    removed = 0
    for name in store.index.journal_names():
        lease.beat()
        path = store.folder.checked(os.path.join(store.folder.journals, name))
        parts = [file.journals.get(name, JournalPart(0)) for file in (newest, second)]
        if all(part.merged for part in parts) and _is_whole(path, min(part.bytes for part in parts)):
            fs.remove(path)
            removed += 1
    for path in paths[2:]:
        fs.try_remove(store.folder.checked(path))
    return removed


def _is_whole(journal: str, size: int) -> bool:
    """Whether the first ``size`` bytes of a journal are all of its lines, none of which is damaged."""
    return not read_lines(journal, size) and not any(damaged_lines(journal))


# Items ---------------------------------------------------------------------------------------------------------------


def _orphans(store: LocalStore, on_disk: list[str]) -> list[Revision]:
    """The revisions on disk that can never be published: the item has a newer line, or their writer has ended.

    An orphan without that is kept: it may be all that is left when a journal was lost.
    """
    found = []
    known = set().union(*recorded_paths(store)) if on_disk else set()
    for path in on_disk:
        item = store.item_at(path) if path not in known else None
        seq, _, writer = item.revision.partition("-") if item else ("", "", "")
        if item is None or not writer:
            continue
        last = store.index.last_seq(item.recording, item.feature)
        if last > int(seq) or (last == int(seq) and writer_has_ended(writer)):
            found.append((item.recording, item.feature, item.revision))
    return found


# tmp/ ----------------------------------------------------------------------------------------------------------------


def sweep(store: LocalStore) -> int:
    """Remove the temporary files of processes that have ended. Returns how many entries."""
    abandoned = list_abandoned(store, store.folder.now_ns())
    for path in map(store.folder.checked, abandoned):
        if not _restore_item(store, path):
            fs.try_remove(path)
    return len(abandoned)


def list_abandoned(store: LocalStore, now_ns: int = 0) -> list[str]:
    """The temporary files of processes that have ended.

    Of this machine, where that is known, and of others when nothing was changed for `ABANDONED_AFTER_S`; without
    ``now_ns`` only the former.
    """
    folder = store.folder.staging
    paths = [os.path.join(folder, name) for name in names_in(folder) if _is_abandoned(folder, name, now_ns)]
    staged = [name for name in names_in(store.root) if name.startswith(STAGED_PREFIX)]
    return paths + [
        os.path.join(store.root, name) for name in staged if writer_has_ended(name.removeprefix(STAGED_PREFIX))
    ]


def _is_abandoned(folder: str, name: str, now_ns: int) -> bool:
    if is_of_this_machine(name):
        return writer_has_ended(name)
    path = os.path.join(folder, name)
    inside = [os.path.join(below, other) for below, dirs, files in os.walk(path) for other in (*dirs, *files)]
    changed_ns = max(_changed_ns(entry) for entry in (path, *inside))
    return now_ns - changed_ns > ABANDONED_AFTER_S * 1e9


def _changed_ns(path: str) -> int:
    """When a file was changed, by the file system's clock; far in the future when it is not there."""
    try:
        return os.lstat(path).st_mtime_ns
    except FileNotFoundError:
        return 1 << 62


def _restore_item(store: LocalStore, path: str) -> bool:
    """Move an item back to its path if it is intact, published and missing there. Returns whether it was.

    An earlier aupipe left such an item when it was killed while it removed one that another process published.
    """
    try:
        metadata = store.format.read_metadata(path)
        item = parse_metadata(metadata)
        record = store.published(item.recording, item.feature)
        target = store.folder.checked(store.item_path(record))
        revision = hashlib.sha256(metadata.encode()).hexdigest()[:8]  # the only ones that were moved
        if record.revision != revision or os.path.lexists(target) or not store.is_intact(path, record):
            return False
        fs.rename(path, target)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True
