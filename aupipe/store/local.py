"""A store in a folder: publishing and reading, whatever the format of the files.

An item is published in three steps: write it to ``tmp/`` and fsync; rename it to its path and fsync the parent; append
one line to the journal of this process and fsync. An item exists if and only if its line does.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.documents import read_backend, read_spec, spec_document
from aupipe.store.folders import EXISTS, StoreFolder
from aupipe.store.formats.hdf5 import Hdf5
from aupipe.store.formats.protocol import Format, Layout, Rows, Sink
from aupipe.store.formats.zarr3 import Zarr3
from aupipe.store.items import ItemStore
from aupipe.store.keys import FEATURE_ID
from aupipe.store.links import refuse_linked_items
from aupipe.store.log.index import Index, compact
from aupipe.store.log.journal import Journal
from aupipe.store.map_cache import MapCache
from aupipe.store.processes import writer_has_ended
from aupipe.store.record_json import parse_metadata
from aupipe.store.records import ItemRecord
from aupipe.store.writer import now_utc
from aupipe.types import FeatureSpec

RETRY_WAITS_S = (0.01, 0.05, 0.2, 0.5)  # before an item that is not at its path is called missing
COMPACT_LINES = 20_000  # journal lines beyond the snapshot that take a tenth of a second to read


class LocalStore(ItemStore):
    """The store protocol over a folder of files in one format; see `aupipe.store.protocol.Store`."""

    backend = ""
    persistent = True
    format: Format

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(path)
        self.folder = StoreFolder(self.root, self.format)
        self._journal = Journal(self.folder.journals)
        super().__init__(path, Index(self.folder.journals, self.folder.snapshots))
        self._maps = MapCache()
        self.refresh()

    def item_path(self, record: ItemRecord) -> str:
        """The path of a published item: a folder (Zarr) or a file (HDF5)."""
        return self.folder.item_path(record)

    # Publishing ------------------------------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raises OSError unless items could be published now."""
        self.folder.check_writable()

    def _stage(self, spec: FeatureSpec, layout: Layout) -> Sink:
        self._make_feature(spec)
        return self.format.open_sink(self.folder.staging_path(self.format.suffix), layout)

    def _discard(self, sink: Sink) -> None:
        fs.try_remove(sink.path)

    def _make_feature(self, spec: FeatureSpec) -> None:
        target = os.path.join(self.root, spec.id)
        self.folder.checked(os.path.join(target, "items", ""))
        if spec.id not in self._specs and not os.path.exists(os.path.join(target, "spec.json")):
            self.folder.make_feature_folder(spec.id, spec_document(spec.to_json()))
            self._specs[spec.id] = spec
        self.folder.make_durable(target)

    def _publish(self, spec: FeatureSpec, record: ItemRecord, sink: Sink) -> ItemRecord:
        """Steps two and three: rename the item to its path, then write its line.

        A marker, an empty file in ``tmp/`` named after the revision, is there meanwhile: see `remove_revision`.
        """
        target = self.folder.checked(self.item_path(record))
        before = self.index.published(record.recording, record.feature)
        parent = os.path.dirname(target)
        self.folder.make_item_folder(parent)
        marker = f"{self.folder.staging_path()}.{os.path.basename(target)}"
        os.close(fs.create(marker))
        try:
            self._move_into_place(sink.path, target, record)
            self.folder.make_durable(parent)
            self.acknowledge(record)
        finally:
            fs.try_remove(marker)
        fs.try_remove(sink.path)
        if before is not None and before.revision != record.revision:
            with contextlib.suppress(OSError):  # the item is published all the same; `check` removes the old revision
                self.remove_revision(record.recording, record.feature, self.item_path(before))
        return record

    def _move_into_place(self, staged: str, target: str, record: ItemRecord) -> None:
        """Rename a staged item to its path. An equal item that is there stays, a damaged one is removed."""
        while True:
            if os.path.lexists(target):
                if self.is_intact(target, record):
                    fs.fsync_folder(os.path.dirname(target))  # its writer may not have done so yet
                    return
                self.folder.remove_item(target)
            try:
                fs.rename(staged, target)
                return
            except OSError as error:
                if error.errno not in EXISTS:
                    raise  # else another writer of the same item was faster: check the item that it placed

    def is_intact(self, path: str, record: ItemRecord) -> bool:
        """Whether the item at ``path`` is byte for byte the one of the record."""
        try:
            return self.format.checksums(path, record) == (record.crc32c, record.metadata_crc32c)
        except (OSError, DamageError):
            return False

    def acknowledge(self, record: ItemRecord) -> ItemRecord:
        """Write a record to the journal of this process and add it to the index. Returns it."""
        self._journal.observe(self.index.last_seq)
        self.index.apply(self._journal.append(record))
        self._maps.drop(record.recording, record.feature)
        return record

    # Removing --------------------------------------------------------------------------------------------------------

    def delete(self, recording: str, feature: str) -> None:
        """Remove an item and its bytes. Raises DamageError, and removes nothing, where a link leads to it."""
        self.published(recording, feature)
        paths = self.revision_paths(recording, feature)
        refuse_linked_items(paths)
        self.acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))
        for path in paths:
            self.remove_revision(recording, feature, path)

    def remove_revision(self, recording: str, feature: str, path: str) -> None:
        """Remove a revision that was replaced or deleted, unless a process is publishing it again.

        A publisher creates its marker, places the item, writes its line and removes the marker. This function moves the
        item to ``tmp/`` and then looks for markers and new lines, in that order. If the publisher has relied on the
        moved item, one of the two is there, and the item is moved back. A process that is killed in between leaves the
        item in ``tmp/``, where `aupipe.store.maintenance.gc.sweep` finds it.
        """
        if self._is_current(recording, feature, self.folder.checked(path)):
            return
        staged = self.folder.staging_path(self.format.suffix)
        try:
            fs.rename(path, staged)
        except FileNotFoundError:  # removed by another process meanwhile
            return
        if self._is_current(recording, feature, path) and not os.path.lexists(path):
            fs.rename(staged, path)
        else:
            fs.remove(staged)

    def _is_current(self, recording: str, feature: str, path: str) -> bool:
        """Whether the revision at ``path`` is being published by a running process, or is the published one."""
        ending = f".{os.path.basename(path)}"
        names = os.listdir(os.path.dirname(self.folder.staging_path()))
        if any(name.endswith(ending) and not writer_has_ended(name) for name in names):
            return True
        self.refresh()
        now = self.index.published(recording, feature)
        return now is not None and self.item_path(now) == path

    def revision_paths(self, recording: str, feature: str) -> list[str]:
        """The path of every revision of an item, and of files by that name whose recording cannot be read.

        They are asked for to be removed: raises DamageError where a folder on the way to them is a link.
        """
        folder, stem = os.path.split(self.folder.checked(self.folder.item_stem(recording, feature)))
        names = os.listdir(folder) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in sorted(names) if name.startswith(stem + ".")]
        return [path for path in paths if self._recording_of(path) in (recording, None)]

    def _recording_of(self, path: str) -> str | None:
        """The recording in the metadata of the item at ``path``, or None where that cannot be read."""
        try:
            return parse_metadata(self.format.read_metadata(path)).recording
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # Reading ---------------------------------------------------------------------------------------------------------

    def _rows(self, recording: str, feature: str) -> Rows:
        rows = self._maps.get(recording, feature)
        if rows is None:
            dropped = self._maps.dropped
            rows = self._map(recording, feature)
            self._maps.put(recording, feature, rows, dropped)
        return rows

    def _map(self, recording: str, feature: str) -> Rows:
        record = self.published(recording, feature)
        waits_s = iter(RETRY_WAITS_S)
        while True:
            path = self.item_path(record)
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    raise DamageError(f"{feature}, recording {recording!r}: {path} is a link: `aupipe store verify`")
                return self.format.map_rows(path, record)
            except FileNotFoundError:  # replaced since the last refresh?
                self.refresh()
                newer = self.published(recording, feature)
                if newer.revision == record.revision:
                    self._wait_for(record, waits_s)
                record = newer

    def _beside(self, record: ItemRecord, name: str) -> NDArray[Any] | None:
        try:
            return self.format.read_beside(self.item_path(record), record, name)
        except FileNotFoundError:  # replaced meanwhile
            return None

    def _wait_for(self, record: ItemRecord, waits_s: Iterator[float]) -> None:
        """Wait for an item that another process has moved to ``tmp/`` and may move back: see `remove_revision`."""
        for wait_s in waits_s:
            time.sleep(wait_s)
            return
        where = f"{record.feature}, recording {record.recording!r}"
        raise DamageError(f"{where}: {self.item_path(record)} is missing: `aupipe store verify --repair`")

    def spec(self, feature: str) -> FeatureSpec:
        """The spec of a feature id. Raises KeyError for an unknown one, DamageError when it is not what was written."""
        if feature not in self._specs:
            self._specs[feature] = read_spec(self.root, feature)
        return self._specs[feature]

    def features(self) -> list[FeatureSpec]:
        """Every feature that has a ``spec.json``, by id."""
        names = sorted(name for name in os.listdir(self.root) if FEATURE_ID.fullmatch(name))
        return [self.spec(name) for name in names if os.path.exists(os.path.join(self.root, name, "spec.json"))]

    # The store as a whole --------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what other processes have published."""
        for recording, feature in self.index.refresh():
            self._maps.drop(recording, feature)

    def reload(self) -> None:
        """Drop everything in memory and read it again, as a newly opened store does."""
        self.index = Index(self.folder.journals, self.folder.snapshots)
        self._specs.clear()
        self._maps.clear()
        self.refresh()

    def compact(self) -> str:
        """Write the lines of all journals into a new snapshot, so that the store opens fast. Returns its path.

        Any process may do this at any time, while others write. Raises DamageError where the folder is a link.
        """
        self.folder.checked(os.path.join(self.folder.snapshots, ""))
        path = compact(self.folder.journals, self.folder.snapshots, self.folder.staging_path())
        self.reload()
        return path

    def close(self) -> None:
        """Close files and drop memory maps; compact the journals if they have grown long since the last snapshot."""
        if self._journal.path and self.index.tail > COMPACT_LINES:
            with contextlib.suppress(OSError, DamageError):  # without a snapshot the store only opens slower
                self.compact()
        self._maps.clear()
        self._journal.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.root)


def _reopen(kind: type[LocalStore], root: str) -> LocalStore:
    """A pickled store in another process. Errors as `aupipe.store.documents.read_backend`."""
    read_backend(root)
    return kind(root)


class ZarrStore(LocalStore):
    """A store of Zarr v3 arrays."""

    backend = "zarr"
    format = Zarr3()


class Hdf5Store(LocalStore):
    """A store of HDF5 files."""

    backend = "hdf5"
    format = Hdf5()
