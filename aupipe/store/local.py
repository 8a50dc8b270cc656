"""A store in a folder: what the Zarr and HDF5 backends share. Only the form of an item's files is theirs.

The commit protocol: stage in ``tmp/`` and fsync, rename into place and fsync the parent, then append one line to this
process's journal and fsync. An item exists if and only if its line does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
import weakref
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.documents import parse_json
from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.items import ItemStore, Rows
from aupipe.store.keys import recording_bytes, recording_key, shard_folder
from aupipe.store.links import refuse_link, refuse_linked_items
from aupipe.store.log.index import Catalogue
from aupipe.store.log.journal import FEATURE_ID, Journal, writer_is_dead, writer_name
from aupipe.store.protocol import ItemRecord
from aupipe.store.writer import Layout, Sink, now_utc, parse_metadata
from aupipe.types import FeatureSpec

LOOK_AGAIN_S = (0.01, 0.05, 0.2, 0.5)  # waits before an item that is not in its place is called missing
COMPACT_LINES = 20_000  # journal lines beyond the base that take a tenth of a second to open
PROBE_BYTES = 64 << 10
MAX_MAPS = 16384  # of the 65530 mappings Linux allows a process

_open_stores: weakref.WeakSet[LocalStore] = weakref.WeakSet()


def _forget_maps() -> None:
    """A forked child maps files for itself."""
    for store in list(_open_stores):
        store._maps = {}


os.register_at_fork(after_in_child=_forget_maps)


def describe(item: ItemRecord, metadata: str) -> dict[str, Any]:
    """The attributes of an item for people who open it with other tools; ``aupipe_item`` is the one we read."""
    name = recording_bytes(item.recording).decode("utf-8", "replace")
    return {
        "recording": name.replace("\0", "\ufffd"),
        "feature": item.feature,
        "valid_frames": item.valid_frames,
        "aupipe_item": metadata,
    }


def spec_document(content: dict[str, Any]) -> bytes:
    """The text of ``spec.json`` for a spec as JSON values: those, and a checksum over them."""
    content = {name: value for name, value in content.items() if name != "crc32c"}
    crc = google_crc32c.value(json.dumps(content, sort_keys=True).encode())
    return json.dumps(content | {"crc32c": f"{crc:08x}"}, indent=1, sort_keys=True).encode()


class LocalStore(ItemStore):
    """The store protocol over a folder; see `aupipe.store.protocol.Store` for what each method promises."""

    backend = ""
    persistent = True  # can be opened again by its path
    suffix = ""  # of an item's name
    folder_documents: tuple[tuple[str, bytes], ...] = ()  # files every folder of items carries

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(path)
        self._journal = Journal(os.path.join(self.root, "journal"))
        super().__init__(path, Catalogue(self._journal.folder, os.path.join(self.root, "catalogue")))
        self._maps: dict[tuple[str, str], Rows] = {}
        self._lasting: set[str] = set()
        _open_stores.add(self)
        self.refresh()

    # What a backend adds ---------------------------------------------------------------------------------------------

    @abstractmethod
    def open_sink(self, path: str, layout: Layout) -> Sink:
        """Begin an item's files at ``path``."""

    @abstractmethod
    def data_file(self, path: str, record: ItemRecord) -> str:
        """The file with the array, of the item at ``path``."""

    @abstractmethod
    def item_files(self, path: str, record: ItemRecord) -> list[str]:
        """Every file of the item at ``path``."""

    @abstractmethod
    def map_rows(self, path: str, record: ItemRecord) -> Rows:
        """Map the item at ``path``. Raises FileNotFoundError, or DamageError when its size is not the record's."""

    @abstractmethod
    def checksums(self, path: str, record: ItemRecord) -> tuple[int, int]:
        """crc32c of the array's bytes, and of every other byte of the item's files."""

    def measure(self, path: str, record: ItemRecord) -> ItemRecord:
        """The record with the size of the data file at ``path`` and the array's place in it, as found there."""
        size = os.path.getsize(self.data_file(path, record)) if record.frames else 0
        return replace(record, nbytes=size)

    @abstractmethod
    def read_metadata(self, path: str) -> str:
        """The text an item at ``path`` carries of itself: `item_metadata`."""

    # Publishing ------------------------------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raises OSError unless items could be published now: a small file is staged, and folders may be written."""
        path = self._staging_path()
        try:
            fs.write_file(path, [bytes(PROBE_BYTES)])
        finally:
            fs.try_remove(path)
        for folder in (self.root, self._journal.folder):
            if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)

    def _stage(self, spec: FeatureSpec, layout: Layout) -> Sink:
        self._make_feature(spec)
        return self.open_sink(self._staging_path(self.suffix), layout)

    def _discard(self, sink: Sink) -> None:
        fs.try_remove(sink.path)

    def delete(self, recording: str, feature: str) -> None:
        """Remove an item and its bytes. Raises DamageError, and removes nothing, where it lies behind a link."""
        self.published(recording, feature)
        paths = self.editions(recording, feature)
        refuse_linked_items(paths)
        self._acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))
        for path in paths:
            self.retire(recording, feature, path)

    def _publish(self, spec: FeatureSpec, record: ItemRecord, sink: Sink) -> ItemRecord:
        """Steps two and three of the commit: into place, then into the journal."""
        target = self.own(self.item_path(record))
        before = self._catalogue.published(record.recording, record.feature)
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            self._make_folder(folder, list(self.folder_documents))
        intent = f"{self._staging_path()}.{os.path.basename(target)}"  # tells others not to retire this edition now
        os.close(fs.create(intent))
        try:
            self._place(sink.path, target, record)
            self._make_last(folder)
            self._acknowledge(record)
        finally:
            fs.try_remove(intent)
        fs.try_remove(sink.path)
        if before is not None and before.edition != record.edition:
            with contextlib.suppress(OSError):  # what was published stands; `verify` sweeps what is left
                self.retire(record.recording, record.feature, self.item_path(before))
        return record

    def _place(self, staged: str, target: str, record: ItemRecord) -> None:
        """Rename a staged item into place. An equal one that is there stays; a damaged one makes way."""
        while True:
            if os.path.lexists(target):
                if self.is_whole(target, record):
                    fs.fsync_folder(os.path.dirname(target))  # whoever placed it may not have come to this yet
                    return
                self._take_away(target)
            try:
                fs.rename(staged, target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise  # else another writer of the same item was faster: look at what it placed

    def retire(self, recording: str, feature: str, path: str) -> None:
        """Remove an edition that was replaced or deleted, unless somebody publishes it again at this moment.

        A publisher leaves an intent, places the item, journals it and takes the intent back. This moves the item away
        and then looks for intents and journal lines, in that order: whenever the publisher relied on what was moved,
        one of the two is seen, and the item is put back. Whoever dies here leaves it in ``tmp/``: `sweep` puts it back.
        """
        if self._is_wanted(recording, feature, self.own(path)):
            return
        aside = self._staging_path(self.suffix)
        try:
            fs.rename(path, aside)
        except FileNotFoundError:  # somebody else has just retired it
            return
        if self._is_wanted(recording, feature, path) and not os.path.lexists(path):
            fs.rename(aside, path)
        else:
            fs.remove(aside)

    def _is_wanted(self, recording: str, feature: str, path: str) -> bool:
        """Is a living writer publishing this very edition, or is it what a reader should find?"""
        ending = f".{os.path.basename(path)}"
        names = os.listdir(os.path.dirname(self._staging_path()))
        if any(name.endswith(ending) and not writer_is_dead(name) for name in names):
            return True
        self.refresh()
        now = self._catalogue.published(recording, feature)
        return now is not None and self.item_path(now) == path

    def is_whole(self, path: str, record: ItemRecord) -> bool:
        """Is the item at ``path`` byte for byte what the record says?"""
        try:
            return self.checksums(path, record) == (record.crc32c, record.rest_crc32c)
        except (OSError, DamageError):
            return False

    def _acknowledge(self, record: ItemRecord) -> ItemRecord:
        self._journal.saw(self._catalogue.last_seq)
        self._catalogue.apply(self._journal.append(record))
        self._maps.pop((record.recording, record.feature), None)
        return record

    # Places ----------------------------------------------------------------------------------------------------------

    def item_path(self, record: ItemRecord) -> str:
        """Where the published item of a record lies: a folder (Zarr) or a file (HDF5)."""
        return f"{self._item_stem(record.recording, record.feature)}.{record.edition}{self.suffix}"

    def own(self, path: str) -> str:
        """A path of the store that is about to be changed. Raises DamageError where a link leads there."""
        return refuse_link(self.root, path)

    def editions(self, recording: str, feature: str) -> list[str]:
        """Every path that holds, or by its name could hold, bytes of this item, superseded ones included.

        They are asked for to be removed: raises DamageError where a link leads there.
        """
        folder, stem = os.path.split(self.own(self._item_stem(recording, feature)))
        names = os.listdir(folder) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in sorted(names) if name.startswith(stem + ".")]
        return [path for path in paths if self._owner(path) in (recording, None)]

    def _owner(self, path: str) -> str | None:
        """Which recording an item says it is of; None when it cannot tell."""
        try:
            return parse_metadata(self.read_metadata(path)).recording
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _item_stem(self, recording: str, feature: str) -> str:
        key = recording_key(recording)
        return os.path.join(self.root, feature, "items", shard_folder(key), key)

    def _staging_path(self, suffix: str = "") -> str:
        folder = os.path.join(self.root, "tmp")
        fs.make_folders(folder)
        return self.own(os.path.join(folder, writer_name() + suffix))

    def _take_away(self, path: str) -> None:
        """Remove an item so that no reader sees half of it. That somebody else has just removed it is fine."""
        aside = self._staging_path(self.suffix)
        with contextlib.suppress(FileNotFoundError):
            fs.rename(self.own(path), aside)
        fs.remove(aside)

    def _make_feature(self, spec: FeatureSpec) -> None:
        """The feature's folder with its spec, whole from the first moment it is seen."""
        target = os.path.join(self.root, spec.id)
        self.own(os.path.join(target, "items", ""))
        if spec.id not in self._specs and not os.path.exists(os.path.join(target, "spec.json")):
            documents = [("spec.json", spec_document(spec.to_json())), *self.folder_documents]
            documents += [(os.path.join("items", name), content) for name, content in self.folder_documents]
            self._make_folder(target, documents)
            self._specs[spec.id] = spec
        self._make_last(target)

    def _make_last(self, folder: str) -> None:
        """See to it, once per process and folder, that its name is on the disk, whoever made it."""
        if folder not in self._lasting:
            fs.fsync_folder(os.path.dirname(folder))
            self._lasting.add(folder)

    def _make_folder(self, target: str, documents: list[tuple[str, bytes]]) -> None:
        """A folder that appears with its documents in it, or not at all; not sure to last before `_make_last`."""
        fs.make_folders(os.path.dirname(target))
        staged = self._staging_path()
        fs.make_folders(staged, durable=False)
        for name, content in documents:
            path = os.path.join(staged, name)
            fs.make_folders(os.path.dirname(path))
            fs.write_file(path, [content])
            fs.fsync_folder(os.path.dirname(path))
        try:
            fs.rename(staged, target, durable=False)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            for name, _ in documents:  # the folder is there: another writer's, or one that lost a document
                if not os.path.lexists(os.path.join(target, name)):
                    fs.rename(os.path.join(staged, name), os.path.join(target, name))
        fs.try_remove(staged)

    # Reading ---------------------------------------------------------------------------------------------------------

    def _rows(self, recording: str, feature: str) -> Rows:
        key = (recording, feature)
        rows = self._maps.get(key)
        if rows is None:
            rows = self._maps[key] = self._map(recording, feature)
            if len(self._maps) > MAX_MAPS:
                self._maps.pop(next(iter(self._maps)), None)
        elif len(self._maps) > MAX_MAPS // 2 and self._maps.pop(key, None) is not None:
            self._maps[key] = rows  # used last, let go of last; while there is room, order does not matter
        return rows

    def _map(self, recording: str, feature: str) -> Rows:
        record = self.published(recording, feature)
        waits_s = iter(LOOK_AGAIN_S)
        while True:
            path = self.item_path(record)
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    raise DamageError(f"{feature}, recording {recording!r}: {path} is a link: `aupipe store verify`")
                return self.map_rows(path, record)
            except FileNotFoundError:  # replaced since we last looked?
                self.refresh()
                newer = self.published(recording, feature)
                if newer.edition == record.edition:
                    self._wait_for(record, waits_s)
                record = newer

    def _wait_for(self, record: ItemRecord, waits_s: Iterator[float]) -> None:
        """Give two writers who replace each other's editions the moment in which one is out of sight."""
        for wait_s in waits_s:
            time.sleep(wait_s)
            return
        where = f"{record.feature}, recording {record.recording!r}"
        raise DamageError(f"{where}: {self.item_path(record)} is missing: `aupipe store verify --repair`")

    def check_size(self, file: NDArray[np.uint8], record: ItemRecord) -> None:
        """Raises DamageError when a data file is not as long as it was when published."""
        if len(file) != record.nbytes:
            raise DamageError(
                f"{record.feature}, recording {record.recording!r}: {self.item_path(record)} has {len(file)} bytes, "
                f"{record.nbytes} were published: `aupipe store verify --repair`"
            )

    def spec(self, feature: str) -> FeatureSpec:
        """The spec of a feature id. Raises KeyError for an unknown one, DamageError when it is not what was written."""
        if feature not in self._specs:
            path = os.path.join(self.root, feature, "spec.json")
            if not FEATURE_ID.fullmatch(feature) or not os.path.exists(path):
                raise KeyError(f"no feature {feature!r} in {self.path}")
            try:
                with open(path, "rb") as file:
                    content = file.read()
                parsed = parse_json(content)
                spec = FeatureSpec.from_json(parsed)
                whole = spec.id == feature and spec_document(parsed) == content
            except (ValueError, TypeError, KeyError, AttributeError):
                whole = False
            if not whole:
                raise DamageError(f"{feature}: {path} is not what was written: `aupipe store verify --repair`")
            self._specs[feature] = spec
        return self._specs[feature]

    def features(self) -> list[FeatureSpec]:
        """Every feature that has a ``spec.json``, by id."""
        names = sorted(name for name in os.listdir(self.root) if FEATURE_ID.fullmatch(name))
        return [self.spec(name) for name in names if os.path.exists(os.path.join(self.root, name, "spec.json"))]

    # The store as a whole --------------------------------------------------------------------------------------------

    def verify(self, *, quick: bool = False) -> list[str]:
        """One line per damage found."""
        from aupipe.store.maintenance.verify import check

        return [str(damage) for damage in check(self, quick=quick).damage]

    def refresh(self) -> None:
        """See what other processes have published."""
        for key in self._catalogue.refresh():
            self._maps.pop(key, None)

    def reload(self) -> None:
        """Forget everything and read it anew, as if the store had just been opened."""
        self._catalogue = Catalogue(self._journal.folder, os.path.join(self.root, "catalogue"))
        self._specs.clear()
        self._maps.clear()
        self.refresh()

    def close(self) -> None:
        """Let go of maps and the journal; compact the catalogue when much was said since the last time."""
        if self._journal.path and self._catalogue.tail > COMPACT_LINES:
            from aupipe.store.maintenance.repair import compact

            with contextlib.suppress(OSError, DamageError):  # it is only a matter of speed
                compact(self)
        self._maps.clear()
        self._journal.close()

    def __reduce__(self) -> tuple[Any, ...]:
        from aupipe.store import open_store

        return open_store, (self.root,)
