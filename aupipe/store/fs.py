"""Every change the store makes on disk, one function each, so that a test can make any of them fail.

``AUPIPE_FAULT=<point>:<n>:<kind>`` injects one fault into a process: its n-th operation of the kind ``point``
(``mkdir``, ``write``, ``fsync``, ``rename``, ``link``, ``remove``, or ``any``) fails with the error ``kind`` (``eio``,
``enospc``, ``edquot``, ``erofs``), or kills the process (``kill``). A failing write leaves half of its bytes in the
file, as a full disk does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Iterator, Sequence
from typing import Any

FLUSH_AHEAD_BYTES = 4 << 20
_ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC, "edquot": errno.EDQUOT, "erofs": errno.EROFS}
_count = 0


def _fault(point: str) -> str | None:
    """The fault to inject into this operation: ``kill``, an error, or None."""
    plan = os.environ.get("AUPIPE_FAULT")
    if not plan:
        return None
    name, number, kind = plan.split(":")
    if name not in (point, "any"):
        return None
    global _count
    _count += 1
    return kind if _count == int(number) else None


def _inject(kind: str | None, path: str) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind is not None:
        raise OSError(_ERRORS[kind], os.strerror(_ERRORS[kind]) + " (AUPIPE_FAULT)", path)


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Puts the path into errors of a file descriptor, which hold none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def create(path: str) -> int:
    """A new file, open for writing, as open to others as its folder; never an existing one, never through a link."""
    _inject(_fault("write"), path)
    mode = _mode_inside(os.path.dirname(path)) & 0o666
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    if mode & 0o077:
        os.fchmod(fd, mode)  # whatever the umask: the folder was opened to others on purpose
    return fd


def _mode_inside(folder: str) -> int:
    """The mode of what is created in a folder of a store: others may do what they may do in the folder itself."""
    return stat.S_IMODE(os.stat(folder or ".").st_mode) & 0o777


def write(fd: int, parts: Sequence[Any], path: str) -> None:
    """Append buffers to ``fd``, all of them: a short write is continued."""
    views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    kind = _fault("write")
    if kind is not None:
        whole = b"".join(views)
        os.write(fd, whole[: len(whole) // 2])
        _inject(kind, path)
    while views:
        with _errors_name(path):
            written = os.writev(fd, views[:512])  # IOV_MAX is 1024 on Linux, less elsewhere
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def overwrite(fd: int, content: bytes, offset: int, path: str) -> None:
    """Replace bytes in place: only lines of a journal, to erase or to restore them."""
    _inject(_fault("write"), path)
    while content:
        with _errors_name(path):
            written = os.pwrite(fd, content, offset)
        content, offset = content[written:], offset + written


def fsync(fd: int, path: str) -> None:
    """Wait until the content of ``fd`` is on the disk."""
    _inject(_fault("fsync"), path)
    with _errors_name(path):
        os.fsync(fd)


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
    _inject(_fault("fsync"), path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _errors_name(path):
            os.fsync(fd)
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
    _inject(_fault("mkdir"), path)
    try:
        os.mkdir(path, mode & 0o700)
        if mode & 0o077:
            os.chmod(path, mode)
    except FileExistsError:  # another writer made it meanwhile
        if not os.path.isdir(path):
            raise
    if durable:
        fsync_folder(parent)


def rename(source: str, target: str, *, durable: bool = True) -> None:
    """Rename a file or folder; with ``durable`` its new name is on the disk when this returns.

    Raises OSError (ENOTEMPTY, EEXIST) for a target that is a folder with something in it.
    """
    _inject(_fault("rename"), target)
    os.rename(source, target)
    if durable:
        fsync_folder(os.path.dirname(target))


def link(source: str, target: str) -> bool:
    """Give a finished file the name ``target`` unless that exists. Returns whether it did not."""
    _inject(_fault("link"), target)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: the last rename stays, and all have the same content
        os.rename(source, target)
    fsync_folder(os.path.dirname(target))
    return True


def remove(path: str) -> None:
    """Remove a file or a whole folder, if it exists; links are removed, never followed."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    _inject(_fault("remove"), path)
    if not stat.S_ISDIR(mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        remove(os.path.join(path, name))
    os.rmdir(path)


def try_remove(path: str) -> None:
    """Remove a temporary file if possible; `aupipe.store.maintenance.gc.sweep` removes it later otherwise."""
    with contextlib.suppress(OSError):
        remove(path)
