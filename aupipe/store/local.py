"""A store in a folder: publishing and reading, whatever the format of the files.

An item is published in three steps: write it to ``tmp/`` and fsync; rename it to a path that no publication had before
and fsync the parent; append one line to the journal of this process and fsync. An item exists if and only if its line
does.
No item that was published is changed, moved or removed here: `aupipe.store.maintenance.gc` does that later.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from aupipe.documents import read_json
from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.documents import STORE_FILE, is_current, read_backend, read_spec, spec_document, store_document
from aupipe.store.folders import StoreFolder
from aupipe.store.formats.hdf5 import Hdf5
from aupipe.store.formats.protocol import Format, Layout, Rows, Sink
from aupipe.store.formats.zarr3 import Zarr3
from aupipe.store.items import ItemStore
from aupipe.store.keys import FEATURE_ID
from aupipe.store.links import refuse_linked_items
from aupipe.store.log.index import Index
from aupipe.store.log.index_file import JournalPart, Revision
from aupipe.store.log.journal import Journal
from aupipe.store.map_cache import MapCache
from aupipe.store.processes import writer_name
from aupipe.store.reader import Prefer
from aupipe.store.record_json import parse_metadata
from aupipe.store.records import ItemRecord
from aupipe.store.writer import now_utc
from aupipe.types import FeatureSpec

# Before an item that is not at its path is called missing: caches of a network file system hold a name for seconds.
RETRY_WAITS_S = (0.01, 0.05, 0.2, 0.75, 2.0, 2.0)
GONE = (errno.ENOENT, errno.ESTALE)


class LocalStore(ItemStore):
    """The store protocol over a folder of files in one format; see `aupipe.store.protocol.Store`."""

    backend = ""
    format: Format

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(path)
        self.folder = StoreFolder(self.root, self.format)
        self._journal = Journal(self.folder.journals)
        super().__init__(path, Index(self.folder.journals, self.folder.indexes))
        self._maps = MapCache()
        self._is_current = False
        self._named: set[str] = set()  # features whose columns have names, as far as they could be given
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
        else:
            self.name_columns(spec)
        self.folder.make_durable(target)

    def name_columns(self, spec: FeatureSpec) -> None:
        """See `Store`. A ``spec.json`` that is damaged, a link or not ours to replace stays as it is."""
        if not spec.columns or spec.id in self._named:
            return
        self._named.add(spec.id)
        path = os.path.join(self.root, spec.id, "spec.json")
        with suppress(DamageError, PermissionError):  # no item is lost for names
            stored = read_spec(self.root, spec.id)
            if stored.columns != spec.columns and not os.path.islink(path):
                document = spec_document(read_json(Path(path)) | {"columns": list(spec.columns)})
                self.folder.replace_document(path, document)
                self._say_renamed(stored, spec)
                stored = replace(stored, columns=spec.columns)
            self._specs[spec.id] = stored

    def _publish(self, spec: FeatureSpec, record: ItemRecord, sink: Sink) -> ItemRecord:
        """Steps two and three: rename the item to its path, then write its line."""
        seq = self._next_seq(record)
        record = replace(record, revision=f"{seq}-{writer_name()}")
        target = self.folder.checked(self.item_path(record))
        parent = os.path.dirname(target)
        self.folder.make_item_folder(parent)
        fs.rename(sink.path, target)
        self.folder.make_durable(parent)
        return self._append(seq, record)

    def is_intact(self, path: str, record: ItemRecord) -> bool:
        """Whether the item at ``path`` is byte for byte the one of the record."""
        try:
            return self.format.checksums(path, record) == (record.crc32c, record.metadata_crc32c)
        except (OSError, DamageError):
            return False

    def acknowledge(self, record: ItemRecord) -> ItemRecord:
        """Write a record to the journal of this process and add it to the index. Returns it."""
        return self._append(self._next_seq(record), record)

    def _next_seq(self, record: ItemRecord) -> int:
        """The number of the next line of an item: larger than that of every line that can be seen now."""
        self.mark_version()
        self.refresh()
        return self.index.last_seq(record.recording, record.feature) + 1

    def _append(self, seq: int, record: ItemRecord) -> ItemRecord:
        self.index.apply(*self._journal.append(seq, record))
        self._maps.drop(record.recording, record.feature)
        return record

    def mark_version(self) -> None:
        """Raise the format version of a store of an earlier one, before what that version could not read is written."""
        if not self._is_current and not is_current(self.root):
            self.folder.replace_document(os.path.join(self.root, STORE_FILE), store_document(self.backend))
        self._is_current = True

    # Removing --------------------------------------------------------------------------------------------------------

    def delete(self, recording: str, feature: str) -> None:
        """Record that an item is deleted; a collector removes its bytes later.

        Raises DamageError, and deletes nothing, where a link leads to it.
        """
        self.published(recording, feature)
        refuse_linked_items(self.revision_paths(recording, feature))
        self.acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))

    def revision_paths(self, recording: str, feature: str) -> list[str]:
        """The path of every revision of an item, and of files by that name whose recording cannot be read.

        They are asked for to be removed: raises DamageError where a folder on the way to them is a link.
        """
        folder, stem = os.path.split(self.folder.checked(self.folder.item_stem(recording, feature)))
        names = os.listdir(folder) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in sorted(names) if name.startswith(stem + ".")]
        items = ((path, self.item_at(path)) for path in paths)
        return [path for path, item in items if item is None or item.recording == recording]

    def item_at(self, path: str) -> ItemRecord | None:
        """What the item at ``path`` says of itself, and the revision in its path; None where it cannot be read."""
        try:
            item = parse_metadata(self.format.read_metadata(path))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return replace(item, revision=self.folder.revision_at(item.recording, item.feature, path))

    # Reading ---------------------------------------------------------------------------------------------------------

    def _rows(self, recording: str, feature: str) -> Rows:
        rows = self._maps.get(recording, feature)
        if rows is None:
            dropped = self._maps.dropped
            rows = self._map(recording, feature)
            self._maps.put(recording, feature, rows, dropped)
        return rows

    def _map(self, recording: str, feature: str) -> Rows:
        waits_s = iter(RETRY_WAITS_S)
        while True:
            record = self.published(recording, feature)
            path = self.item_path(record)
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    raise DamageError(f"{feature}, recording {recording!r}: {path} is a link: `aupipe store verify`")
                return self.format.map_rows(path, record)
            except OSError as error:
                if error.errno not in GONE:
                    raise
            self.refresh()  # replaced and collected since the last one?
            if self.published(recording, feature).revision == record.revision:
                wait_s = next(waits_s, None)
                if wait_s is None:
                    where = f"{feature}, recording {recording!r}"
                    raise DamageError(f"{where}: {path} is missing: `aupipe store verify --repair`")
                time.sleep(wait_s)

    def _beside(self, record: ItemRecord, name: str) -> NDArray[Any] | None:
        try:
            return self.format.read_beside(self.item_path(record), record, name)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return None  # replaced and collected meanwhile

    def spec(self, feature: str) -> FeatureSpec:
        """The spec of a feature id. Raises KeyError for an unknown one, DamageError when it is not what was written."""
        spec = self._specs.get(feature)
        if spec is None:
            spec = self._specs[feature] = read_spec(self.root, feature)
        return spec

    def features(self) -> list[FeatureSpec]:
        """Every feature that has a ``spec.json``, by id."""
        names = sorted(name for name in os.listdir(self.root) if FEATURE_ID.fullmatch(name))
        return [self.spec(name) for name in names if os.path.exists(os.path.join(self.root, name, "spec.json"))]

    # The store as a whole --------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what other processes have published."""
        changed = self.index.refresh()
        if changed is None:
            self._maps.clear()
        for recording, feature in changed or ():
            self._maps.drop(recording, feature)
        if changed != set():  # another process may have named columns
            specs = self._specs.copy()  # other threads may add to them meanwhile
            self._specs = {feature: spec for feature, spec in specs.items() if spec.columns}

    def reload(self) -> None:
        """Drop everything in memory and read it again, as a newly opened store does."""
        self.index = Index(self.folder.journals, self.folder.indexes)
        self._specs.clear()
        self._maps.clear()
        self.refresh()

    def compact(
        self,
        garbage: Mapping[Revision, int] | None = None,
        parts: Mapping[str, JournalPart] | None = None,
        without: str | None = None,
    ) -> str:
        """Merge all journals into a new index file, so that the store opens fast. Returns its path.

        Any process may do this at any time, while others write. Raises DamageError where the folder is a link. The
        arguments are for maintenance: see `aupipe.store.log.index.Index.write_file`.
        """
        self.folder.checked(os.path.join(self.folder.indexes, ""))
        self.mark_version()
        if garbage is None:
            self.refresh()
            garbage = self.index.garbage(self.folder.now_ns())
        parts = self.index.parts() if parts is None else parts
        path = self.index.write_file(self.folder.staging_path(), garbage, parts, without)
        self.refresh()
        return path

    def close(self) -> None:
        """Close files and drop memory maps."""
        self._maps.clear()
        self._journal.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.root, self.prefer)


def _reopen(kind: type[LocalStore], root: str, prefer: Prefer | None) -> LocalStore:
    """A pickled store in another process. Errors as `aupipe.store.documents.read_backend`."""
    read_backend(root)
    store = kind(root)
    store.prefer = prefer
    return store


class ZarrStore(LocalStore):
    """A store of Zarr v3 arrays."""

    backend = "zarr"
    format = Zarr3()


class Hdf5Store(LocalStore):
    """A store of HDF5 files."""

    backend = "hdf5"
    format = Hdf5()
