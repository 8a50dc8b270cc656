"""Every change the store makes on disk, one function each, so that each can be made to fail in a test.

``AUPIPE_FAULT=<point>:<n>:<kind>`` strikes the n-th operation at ``point`` (``mkdir``, ``write``, ``fsync``,
``rename``, ``link``, ``remove``, or ``any``) of a process. ``kind``: ``kill``, or the error it gives: ``eio``,
``enospc``, ``edquot``, ``erofs``. A struck write leaves half of its bytes behind, as a full disk does.
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
POINTS = ("mkdir", "write", "fsync", "rename", "link", "remove")
_ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC, "edquot": errno.EDQUOT, "erofs": errno.EROFS}
_count = 0


def _due(point: str) -> str | None:
    """What shall go wrong at this very operation: ``kill``, an error or nothing."""
    plan = os.environ.get("AUPIPE_FAULT")
    if not plan:
        return None
    name, number, kind = plan.split(":")
    if name not in (point, "any"):
        return None
    global _count
    _count += 1
    return kind if _count == int(number) else None


def _strike(kind: str | None, path: str) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind is not None:
        raise OSError(_ERRORS[kind], os.strerror(_ERRORS[kind]) + " (AUPIPE_FAULT)", path)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors of a file descriptor say which file it is."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def create(path: str) -> int:
    """A new file, open for writing; never an existing one, never through a link."""
    _strike(_due("write"), path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def write(fd: int, parts: Sequence[Any], path: str) -> None:
    """Append buffers to ``fd``, all of them: a short write is carried on, not passed over."""
    views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    kind = _due("write")
    if kind is not None:
        whole = b"".join(views)
        os.write(fd, whole[: len(whole) // 2])
        _strike(kind, path)
    while views:
        with _naming(path):
            written = os.writev(fd, views[:512])  # IOV_MAX is 1024 on Linux, less elsewhere
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def overwrite(fd: int, content: bytes, offset: int, path: str) -> None:
    """Replace bytes in place; only ever done to erase."""
    _strike(_due("write"), path)
    while content:
        with _naming(path):
            written = os.pwrite(fd, content, offset)
        content, offset = content[written:], offset + written


def fsync(fd: int, path: str) -> None:
    _strike(_due("fsync"), path)
    with _naming(path):
        os.fsync(fd)


class NewFile:
    """A file written from ``start`` on, piece by piece; its bytes are on their way to the disk while more are made."""

    def __init__(self, path: str, start: int = 0) -> None:
        self.path = path
        self._fd = create(path)
        self._hinted = self._position = os.lseek(self._fd, start, os.SEEK_SET)

    def write(self, parts: Sequence[Any]) -> None:
        """Append buffers."""
        write(self._fd, parts, self.path)
        self._position = os.lseek(self._fd, 0, os.SEEK_CUR)
        if self._position - self._hinted >= FLUSH_AHEAD_BYTES and hasattr(os, "posix_fadvise"):
            # "not needed" makes Linux start writing, and lets go of no page before it is written; else all would have
            # to wait for fsync
            size = self._position - self._hinted
            os.posix_fadvise(self._fd, self._hinted, size, os.POSIX_FADV_DONTNEED)
            self._hinted = self._position

    def write_head(self, content: bytes) -> None:
        """Write what comes before ``start``."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        write(self._fd, [content], self.path)

    def fsync(self) -> None:
        """On the disk when this returns."""
        fsync(self._fd, self.path)

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def fsync_folder(path: str) -> None:
    """Make the names in a folder survive a power loss."""
    _strike(_due("fsync"), path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _naming(path):
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


def make_folders(path: str, mode: int = 0o777, *, durable: bool = True) -> None:
    """``path`` and its missing parents; each name on the disk when this returns, unless nobody needs it to last."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_folders(parent)
    _strike(_due("mkdir"), path)
    try:
        os.mkdir(path, mode)
    except FileExistsError:  # another writer was faster
        if not os.path.isdir(path):
            raise
    if durable:
        fsync_folder(parent)


def rename(source: str, target: str, *, durable: bool = True) -> None:
    """Rename, and make it last unless the caller does that.

    Raises OSError (ENOTEMPTY, EEXIST) for a target that is a folder with something in it.
    """
    _strike(_due("rename"), target)
    os.rename(source, target)
    if durable:
        fsync_folder(os.path.dirname(target))


def link(source: str, target: str) -> bool:
    """Give a finished file its name unless the name is taken; False when it was."""
    _strike(_due("link"), target)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: last one wins, and they write the same
        os.rename(source, target)
    fsync_folder(os.path.dirname(target))
    return True


def remove(path: str) -> None:
    """Remove a file or a whole folder; links are removed, never followed. Nothing there is fine."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    _strike(_due("remove"), path)
    if not stat.S_ISDIR(mode):
        os.unlink(path)
        return
    for name in os.listdir(path):
        remove(os.path.join(path, name))
    os.rmdir(path)


def try_remove(path: str) -> None:
    """Remove what nobody needs; what cannot be removed now is swept by `verify` later."""
    with contextlib.suppress(OSError):
        remove(path)
