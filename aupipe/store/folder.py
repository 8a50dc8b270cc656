"""A store in a folder: what the Zarr and HDF5 backends share. Only the form of an item's files is theirs.

The commit protocol: stage in ``tmp/`` and fsync, rename into place and fsync the parent, then append one line to this
process's journal and fsync. An item exists if and only if its line does.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.base import ItemRecord
from aupipe.store.catalogue import Catalogue
from aupipe.store.journal import FEATURE_ID, Journal, writer_name
from aupipe.store.keys import recording_key, shard_folder
from aupipe.store.writer import Layout, Sink, StagedItem, now_utc, parse_metadata
from aupipe.types import FeatureSpec, SourceIdentity

MAX_MAPS = 16384  # of the 65530 mappings Linux allows a process


class MappedRows(Protocol):
    """An item's rows, mapped."""

    frames: int

    def view(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop), read-only."""
        ...

    def copy(self, start: int, out: NDArray[Any]) -> None:
        """Rows [start, start + len(out)) into ``out``."""
        ...


def describe(item: ItemRecord, metadata: str) -> dict[str, Any]:
    """The attributes of an item for people who open it with other tools; ``aupipe_item`` is the one we read."""
    name = item.recording.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if item.recording else ""
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


class FolderStore:
    """The store protocol over a folder; see `aupipe.store.base.Store` for what each method promises."""

    backend = ""
    persistent = True  # can be opened again by its path
    suffix = ""  # of an item's name
    folder_documents: tuple[tuple[str, bytes], ...] = ()  # files every folder of items carries

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.root = os.path.abspath(path)
        self._journal = Journal(os.path.join(self.root, "journal"))
        self._catalogue = Catalogue(self._journal.folder)
        self._maps: OrderedDict[tuple[str, str], MappedRows] = OrderedDict()
        self._specs: dict[str, FeatureSpec] = {}
        self._pid = os.getpid()
        self.refresh()

    # What a backend adds ---------------------------------------------------------------------------------------------

    def open_sink(self, path: str, layout: Layout) -> Sink:
        """Begin an item's files at ``path``."""
        raise NotImplementedError

    def data_file(self, path: str, record: ItemRecord) -> str:
        """The file with the array, of the item at ``path``."""
        raise NotImplementedError

    def item_files(self, path: str, record: ItemRecord) -> list[str]:
        """Every file of the item at ``path``."""
        raise NotImplementedError

    def map_rows(self, path: str, record: ItemRecord) -> MappedRows:
        """Map the item at ``path``. Raises FileNotFoundError, or DamageError when its size is not the record's."""
        raise NotImplementedError

    def checksums(self, path: str, record: ItemRecord) -> tuple[int, int]:
        """crc32c of the array's bytes, and of every other byte of the item's files."""
        raise NotImplementedError

    def read_metadata(self, path: str) -> str:
        """The text an item at ``path`` carries of itself: `item_metadata`."""
        raise NotImplementedError

    # Publishing ------------------------------------------------------------------------------------------------------

    def writer(
        self,
        recording: str,
        spec: FeatureSpec,
        *,
        frames: int,
        row_shape: tuple[int, ...],
        source: SourceIdentity | None = None,
        versions: Mapping[str, str] | None = None,
        video_id: str = "",
    ) -> StagedItem:
        """Begin an item."""

        def open_sink(layout: Layout) -> Sink:
            self._make_feature(spec)
            return self.open_sink(self._staging_path(self.suffix), layout)

        return StagedItem(
            recording,
            spec,
            frames=frames,
            row_shape=row_shape,
            source=source,
            versions=versions,
            video_id=video_id,
            open_sink=open_sink,
            publish=self._publish,
            discard=lambda sink: fs.try_remove(sink.path),
        )

    def publish(
        self,
        recording: str,
        spec: FeatureSpec,
        rows: NDArray[Any],
        *,
        source: SourceIdentity | None = None,
        seconds: float = 0.0,
        versions: Mapping[str, str] | None = None,
        video_id: str = "",
    ) -> ItemRecord:
        """Write a whole item at once."""
        rows = np.asarray(rows)
        with self.writer(
            recording,
            spec,
            frames=len(rows),
            row_shape=rows.shape[1:],
            source=source,
            versions=versions,
            video_id=video_id,
        ) as item:
            item.append(rows)
            return item.commit(seconds=seconds)

    def fail(
        self,
        recording: str,
        spec: FeatureSpec,
        reason: str,
        *,
        source: SourceIdentity | None = None,
        seconds: float = 0.0,
    ) -> ItemRecord:
        """Record a failure; data published before stays readable, while `record` says failed."""
        self._make_feature(spec)
        reason = " ".join(reason.split())
        return self._acknowledge(
            ItemRecord(recording, spec.id, "failed", source=source, seconds=seconds, reason=reason, time_utc=now_utc())
        )

    def delete(self, recording: str, feature: str) -> None:
        """Remove an item and its bytes."""
        self.published(recording, feature)
        self._acknowledge(ItemRecord(recording, feature, "deleted", time_utc=now_utc()))
        for path in self.editions(recording, feature):
            self._take_away(path)

    def _publish(self, record: ItemRecord, sink: Sink) -> ItemRecord:
        """Steps two and three of the commit: into place, then into the journal."""
        target = self.item_path(record)
        before = self._catalogue.published(record.recording, record.feature)
        self._make_items_folder(os.path.dirname(target))
        self._place(sink.path, target, record)
        self._acknowledge(record)
        if not os.path.lexists(target):  # retired by another writer between our look and our line
            self._place(sink.path, target, record)
        fs.try_remove(sink.path)
        if before is not None and before.edition != record.edition:
            self.retire(before)
        return record

    def _place(self, staged: str, target: str, record: ItemRecord) -> None:
        """Rename a staged item into place. An equal one that is there stays; a damaged one makes way."""
        while True:
            if os.path.lexists(target):
                if self._is_whole(target, record):
                    return
                self._take_away(target)
            try:
                fs.rename(staged, target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise  # else another writer of the same item was faster: look at what it placed

    def retire(self, old: ItemRecord) -> None:
        """Remove an edition that was replaced or deleted, unless somebody publishes it again at this moment.

        A writer that finds the edition in place journals it and then looks again; this moves it away and then looks
        at the journals. Whoever comes second sees the other.
        """
        path, aside = self.item_path(old), self._staging_path(self.suffix)
        try:
            fs.rename(path, aside)
            self.refresh()
            now = self._catalogue.published(old.recording, old.feature)
            if now is not None and now.edition == old.edition and not os.path.lexists(path):
                fs.rename(aside, path)
        except OSError:
            pass  # an orphan is left for `verify` to list; what was published stands
        fs.try_remove(aside)

    def _is_whole(self, path: str, record: ItemRecord) -> bool:
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

    def editions(self, recording: str, feature: str) -> list[str]:
        """Every path that holds, or by its name could hold, bytes of this item, superseded ones included."""
        folder, stem = os.path.split(self._item_stem(recording, feature))
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
        return os.path.join(folder, writer_name() + suffix)

    def _take_away(self, path: str) -> None:
        """Remove an item so that no reader sees half of it."""
        aside = self._staging_path(self.suffix)
        fs.rename(path, aside)
        fs.remove(aside)

    def _make_feature(self, spec: FeatureSpec) -> None:
        """The feature's folder with its spec, whole from the first moment it is seen."""
        target = os.path.join(self.root, spec.id)
        if spec.id in self._specs or os.path.exists(os.path.join(target, "spec.json")):
            return
        documents = [("spec.json", spec_document(spec.to_json())), *self.folder_documents]
        documents += [(os.path.join("items", name), content) for name, content in self.folder_documents]
        self._make_folder(target, documents)
        self._specs[spec.id] = spec

    def _make_items_folder(self, folder: str) -> None:
        if not os.path.isdir(folder):
            self._make_folder(folder, list(self.folder_documents))

    def _make_folder(self, target: str, documents: list[tuple[str, bytes]]) -> None:
        """A folder that appears with its documents in it, or not at all."""
        fs.make_folders(os.path.dirname(target))
        staged = self._staging_path()
        fs.make_folders(staged)
        for name, content in documents:
            path = os.path.join(staged, name)
            fs.make_folders(os.path.dirname(path))
            fs.write_file(path, [content])
            fs.fsync_folder(os.path.dirname(path))
        try:
            fs.rename(staged, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        fs.try_remove(staged)

    # Reading ---------------------------------------------------------------------------------------------------------

    def record(self, recording: str, feature: str) -> ItemRecord | None:
        """The newest acknowledged record of an item."""
        return self._catalogue.newest(recording, feature)

    def records(self, feature: str | None = None) -> Iterator[ItemRecord]:
        """The newest record of every item, deleted ones left out."""
        return self._catalogue.records(feature)

    def all_published(self) -> Iterator[ItemRecord]:
        """The record of everything `read` can read."""
        return self._catalogue.all_published()

    def published(self, recording: str, feature: str) -> ItemRecord:
        """The record of the data `read` reads, which a failure since has not changed. Raises KeyError."""
        record = self._catalogue.published(recording, feature)
        if record is None:
            raise KeyError(f"no item {recording!r} of feature {feature!r} in {self.path}")
        return record

    def read(self, recording: str, feature: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows [start, stop), read-only."""
        rows = self._rows(recording, feature)
        stop = rows.frames if stop is None else stop
        if not 0 <= start <= stop <= rows.frames:
            raise range_error(recording, feature, start, stop, rows.frames)
        return rows.view(start, stop)

    def read_into(self, out: NDArray[Any], recording: str, feature: str, start: int = 0) -> None:
        """Copy rows [start, start + len(out)) into ``out``."""
        rows = self._rows(recording, feature)
        if start < 0 or start + len(out) > rows.frames:
            raise range_error(recording, feature, start, start + len(out), rows.frames)
        rows.copy(start, out)

    def _rows(self, recording: str, feature: str) -> MappedRows:
        if self._pid != os.getpid():  # forked: maps are made anew
            self._pid, self._maps = os.getpid(), OrderedDict()
        key = (recording, feature)
        rows = self._maps.get(key)
        if rows is None:
            rows = self._maps[key] = self._map(recording, feature)
            if len(self._maps) > MAX_MAPS:
                self._maps.popitem(last=False)
        else:
            try:
                self._maps.move_to_end(key)
            except KeyError:  # another thread has just let go of it
                self._maps[key] = rows
        return rows

    def _map(self, recording: str, feature: str) -> MappedRows:
        record = self.published(recording, feature)
        for attempt in (1, 2):
            path = self.item_path(record)
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    raise DamageError(f"{feature}, recording {recording!r}: {path} is a link: `aupipe store verify`")
                return self.map_rows(path, record)
            except FileNotFoundError:
                if attempt == 1:  # replaced since we last looked?
                    self.refresh()
                    record = self.published(recording, feature)
        raise DamageError(f"{feature}, recording {recording!r}: {path} is missing: `aupipe store verify --repair`")

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
                parsed = json.loads(content)
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
        from aupipe.store.verify import check

        return [str(damage) for damage in check(self, quick=quick).damage]

    def refresh(self) -> None:
        """See what other processes have published."""
        for key in self._catalogue.refresh():
            self._maps.pop(key, None)

    def close(self) -> None:
        """Let go of maps and the journal."""
        self._maps.clear()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        from aupipe.store import open_store

        return open_store, (self.root,)


def range_error(recording: str, feature: str, start: int, stop: int, frames: int) -> IndexError:
    """Rows outside of an item, as every backend says it."""
    return IndexError(f"{feature}, recording {recording!r}: rows [{start}, {stop}) asked of [0, {frames})")
