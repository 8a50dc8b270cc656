"""The folders of a store on disk: the path of each thing, and folders that appear whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from aupipe.store import fs
from aupipe.store.formats.protocol import Format
from aupipe.store.keys import recording_key, shard_folder
from aupipe.store.links import refuse_link
from aupipe.store.processes import writer_name
from aupipe.store.records import ItemRecord

FOLDERS = ("journal", "index", "tmp", "quarantine", "catalogue")  # of a store, beside one for each feature
PROBE_BYTES = 64 << 10
EXISTS = (errno.ENOTEMPTY, errno.EEXIST)  # what a rename onto a folder with content raises


class StoreFolder:
    """The folder ``root`` of a store whose items have a given format."""

    def __init__(self, root: str, format: Format) -> None:
        self.root, self.format = root, format
        paths = [os.path.join(root, name) for name in FOLDERS]
        self.journals, self.indexes, self.staging, self.quarantine, self.old_snapshots = paths
        self._durable_dirs: set[str] = set()

    def item_stem(self, recording: str, feature: str) -> str:
        """The path of an item's revisions without ``.<revision><suffix>``."""
        key = recording_key(recording)
        return os.path.join(self.root, feature, "items", shard_folder(key), key)

    def item_path(self, record: ItemRecord) -> str:
        """The path of a published item: a folder (Zarr) or a file (HDF5)."""
        return self.revision_path(record.recording, record.feature, record.revision)

    def revision_path(self, recording: str, feature: str, revision: str) -> str:
        """The path of one revision of an item."""
        return f"{self.item_stem(recording, feature)}.{revision}{self.format.suffix}"

    def revision_at(self, recording: str, feature: str, path: str) -> str:
        """The revision whose path is ``path``; empty where it is none of this item."""
        stem = self.item_stem(recording, feature) + "."
        revision = path.removeprefix(stem).removesuffix(self.format.suffix)
        return revision if path == self.revision_path(recording, feature, revision) else ""

    def staging_path(self, suffix: str = "") -> str:
        """A new path in ``tmp/``, named after this process."""
        fs.make_folders(self.staging)
        return self.checked(os.path.join(self.staging, writer_name() + suffix))

    def checked(self, path: str) -> str:
        """Returns ``path``, which is to be changed. Raises DamageError where a folder on the way to it is a link."""
        return refuse_link(self.root, path)

    def check_writable(self) -> None:
        """Raises OSError unless files could be written now: writes a small one, and looks at permissions."""
        path = self.staging_path()
        try:
            fs.write_file(path, [bytes(PROBE_BYTES)])
        finally:
            fs.try_remove(path)
        for folder in (self.root, self.journals):
            if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)

    def now_ns(self) -> int:
        """The time of the file system, by which files are dated: that of its server, not of this machine."""
        path = self.staging_path()
        os.close(fs.create(path))
        try:
            return os.stat(path).st_mtime_ns
        finally:
            fs.try_remove(path)

    def remove_item(self, path: str, beat: Callable[[], None] = lambda: None) -> None:
        """Remove an item, if it exists, by moving it to ``tmp/`` first: no reader sees a part of it.

        ``beat``: see `fs.remove`.
        """
        staged = self.staging_path(self.format.suffix)
        with contextlib.suppress(FileNotFoundError):
            fs.rename(self.checked(path), staged)
        fs.remove(staged, beat)

    def make_item_folder(self, path: str) -> None:
        """Make a folder for items, with the documents of the format; not durable, see `make_durable`."""
        if not os.path.isdir(path):
            self._make_folder(path, list(self.format.documents))

    def make_feature_folder(self, feature: str, spec_document: bytes) -> None:
        """Make a feature's folder with its spec and ``items``; not durable, see `make_durable`."""
        documents = [("spec.json", spec_document), *self.format.documents]
        documents += [(os.path.join("items", name), content) for name, content in self.format.documents]
        self._make_folder(os.path.join(self.root, feature), documents)

    def replace_document(self, path: str, content: bytes) -> None:
        """Write a document in the place of one: a reader sees the old one or the new one, also after a crash."""
        staged = self.staging_path()
        try:
            fs.write_file(staged, [content])
            fs.rename(staged, path)
        except OSError:
            fs.try_remove(staged)
            raise

    def make_durable(self, path: str) -> None:
        """Wait until the name of a folder is on the disk, whichever process made it; once per process and folder."""
        if path not in self._durable_dirs:
            fs.fsync_folder(os.path.dirname(path))
            self._durable_dirs.add(path)

    def _make_folder(self, target: str, documents: list[tuple[str, bytes]]) -> None:
        """Make a folder that appears with its documents in it, or not at all; add the documents missing in one."""
        fs.make_folders(os.path.dirname(target))
        staged = self.staging_path()
        fs.make_folders(staged, durable=False)
        for name, content in documents:
            path = os.path.join(staged, name)
            fs.make_folders(os.path.dirname(path))
            fs.write_file(path, [content])
            fs.fsync_folder(os.path.dirname(path))
        try:
            fs.rename(staged, target, durable=False)
        except OSError as error:
            if error.errno not in EXISTS:
                raise
            for name, _ in documents:  # the folder exists: another writer made it, or it lost a document
                if not os.path.lexists(os.path.join(target, name)):
                    fs.rename(os.path.join(staged, name), os.path.join(target, name))
        fs.try_remove(staged)
