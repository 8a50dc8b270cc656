"""Every change the store makes on disk. All of them go through `disk`, whose calls a test can record or make fail."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

FLUSH_AHEAD_BYTES = 4 << 20
APPEAR_WAITS_S = (0.0, 0.1, 0.5, 1.0, 2.0)


class Disk:
    """The calls of the operating system that change files and folders."""

    def create(self, path: str, mode: int) -> int:
        """A new file of this mode, open for writing; never an existing one, never through a link."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if mode & 0o077:
            os.fchmod(fd, mode)  # whatever the umask: the folder was opened to others on purpose
        return fd

    def write(self, fd: int, parts: Sequence[memoryview], path: str) -> int:
        """Append the beginning of some buffers. Returns how many bytes."""
        return os.writev(fd, parts)

    def overwrite(self, fd: int, content: bytes, offset: int, path: str) -> int:
        """Replace bytes in place. Returns how many."""
        return os.pwrite(fd, content, offset)

    def fsync(self, fd: int, path: str) -> None:
        """Wait until a file, or the names in a folder, are on the disk."""
        os.fsync(fd)

    def mkdir(self, path: str, mode: int) -> None:
        """Make a folder of this mode, whatever the umask."""
        os.mkdir(path, mode & 0o700)
        if mode & 0o077:
            os.chmod(path, mode)

    def rename(self, source: str, target: str) -> None:
        """Rename a file or folder."""
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file another name."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file or a link."""
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)


disk = Disk()


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Puts the path into errors of a file descriptor, which hold none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def create(path: str) -> int:
    """A new file, open for writing, as open to others as its folder. Raises FileExistsError."""
    return disk.create(path, _mode_inside(os.path.dirname(path)) & 0o666)


def _mode_inside(folder: str) -> int:
    """The mode of what is created in a folder of a store: others may do what they may do in the folder itself."""
    return stat.S_IMODE(os.stat(folder or ".").st_mode) & 0o777


def write(fd: int, parts: Sequence[Any], path: str) -> None:
    """Append buffers to ``fd``, all of them: a short write is continued."""
    views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    while views:
        with _errors_name(path):
            written = disk.write(fd, views[:512], path)  # IOV_MAX is 1024 on Linux, less elsewhere
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def overwrite(fd: int, content: bytes, offset: int, path: str) -> None:
    """Replace bytes in place: only lines of a journal, to erase or to restore them."""
    while content:
        with _errors_name(path):
            written = disk.overwrite(fd, content, offset, path)
        content, offset = content[written:], offset + written


def fsync(fd: int, path: str) -> None:
    """Wait until the content of ``fd`` is on the disk."""
    with _errors_name(path):
        disk.fsync(fd, path)


class NewFile:
    """A file written from byte ``start`` on, piece by piece; the disk begins to write before all pieces are there."""

    def __init__(self, path: str, start: int = 0) -> None:
        self.path = path
        self._fd = create(path)
        self._hinted = self._position = os.lseek(self._fd, start, os.SEEK_SET)

    def write(self, parts: Sequence[Any]) -> None:
        """Append buffers."""
        write(self._fd, parts, self.path)
        self._position = os.lseek(self._fd, 0, os.SEEK_CUR)
        if self._position - self._hinted >= FLUSH_AHEAD_BYTES:
            self.start()

    def start(self) -> None:
        """Have the disk begin with what is written so far."""
        # DONTNEED makes Linux start writing now, and drops no page that is not written; without it all of the
        # writing happens in fsync
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, self._hinted, self._position - self._hinted, os.POSIX_FADV_DONTNEED)
        self._hinted = self._position

    def write_head(self, content: bytes) -> None:
        """Write the bytes before ``start``."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        write(self._fd, [content], self.path)

    def fsync(self) -> None:
        """Wait until the content is on the disk."""
        fsync(self._fd, self.path)

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def fsync_folder(path: str) -> None:
    """Wait until the names in a folder are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(fd, path)
    finally:
        os.close(fd)


def write_file(path: str, parts: Sequence[Any]) -> None:
    """A new file with this content, on the disk when this returns."""
    file = NewFile(path)
    try:
        file.write(parts)
        file.fsync()
    finally:
        file.close()


def fsync_files(files: Sequence[NewFile]) -> None:
    """Wait until the content of all files is on the disk.

    The disk begins with all of them before one is awaited: then a journaling file system commits once, not once a file.
    """
    for file in files:
        file.start()
    for file in files:
        file.fsync()


def make_folders(path: str, *, durable: bool = True) -> None:
    """Make ``path`` and its missing parents in a store, each as open to others as the folder that it is in.

    With ``durable`` its name is on the disk when this returns.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_folders(parent)
    make_folder(path, _mode_inside(parent), durable=durable)


def make_folder(path: str, mode: int, *, durable: bool = True) -> None:
    """Make a folder of this mode, whatever the umask, unless it exists; its parent does."""
    parent = os.path.dirname(path)
    try:
        disk.mkdir(path, mode)
    except FileExistsError:  # another writer made it meanwhile
        if not _appears(path):
            raise
    if durable:
        fsync_folder(parent)


def _appears(folder: str) -> bool:
    """Whether a folder is there; a network file system may say for some seconds that it is not."""
    for wait_s in APPEAR_WAITS_S:
        time.sleep(wait_s)
        if os.path.lexists(folder):
            break
    return os.path.isdir(folder)


def rename(source: str, target: str, *, durable: bool = True) -> None:
    """Rename a file or folder; with ``durable`` its new name is on the disk when this returns.

    Raises OSError (ENOTEMPTY, EEXIST) for a target that is a folder with something in it.
    """
    disk.rename(source, target)
    if durable:
        fsync_folder(os.path.dirname(target))


def link(source: str, target: str) -> bool:
    """Give a finished file the name ``target`` unless that exists. Returns whether it did not."""
    try:
        disk.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        # A file system without hard links: the last rename stays.
        disk.rename(source, target)
    fsync_folder(os.path.dirname(target))
    return True


def remove(path: str, beat: Callable[[], None] = lambda: None) -> None:
    """Remove a file or a whole folder, if it exists; links are removed, never followed. ``beat``: called at each."""
    beat()
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        disk.unlink(path)
        return
    for name in os.listdir(path):
        remove(os.path.join(path, name), beat)
    disk.rmdir(path)


def try_remove(path: str) -> None:
    """Remove a temporary file if possible; `aupipe.store.maintenance.gc.sweep` removes it later otherwise."""
    with contextlib.suppress(OSError):
        remove(path)
