"""A folder mounted through FUSE, with the caches of a network file system: ``python passthrough.py FOLDER MOUNT``.

Two such mounts of one folder are what two machines see of a file server: for three seconds each keeps what it knows of
a file's size, of a name and of the absence of a name.
"""

import errno
import os
import sys

import mfusepy

CACHE_S = 3


class Passthrough(mfusepy.Operations):
    """Every operation on the folder itself."""

    use_ns = True

    def __init__(self, folder):
        self.folder = folder

    def _real(self, path):
        return self.folder + path

    def getattr(self, path, fh=None):
        found = os.fstat(fh) if fh else os.lstat(self._real(path))
        names = ("mode", "nlink", "uid", "gid", "size", "ino")
        attributes = {f"st_{name}": getattr(found, f"st_{name}") for name in names}
        return attributes | {f"st_{name}": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self._real(path))]

    def open(self, path, flags):
        return os.open(self._real(path), flags)

    def create(self, path, mode, fi=None):
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(fh or self._real(path), length)

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def fsyncdir(self, path, datasync, fh):
        pass

    def release(self, path, fh):
        os.close(fh)

    def mkdir(self, path, mode):
        os.mkdir(self._real(path), mode)

    def rmdir(self, path):
        os.rmdir(self._real(path))

    def unlink(self, path):
        os.unlink(self._real(path))

    def rename(self, old, new):
        os.rename(self._real(old), self._real(new))

    def link(self, target, source):
        os.link(self._real(source), self._real(target))

    def readlink(self, path):
        return os.readlink(self._real(path))

    def access(self, path, amode):
        if not os.access(self._real(path), amode):
            raise mfusepy.FuseOSError(errno.EACCES)

    def utimens(self, path, times=None):
        os.utime(self._real(path), ns=times)

    def chmod(self, path, mode):
        os.chmod(self._real(path), mode)

    def statfs(self, path):
        found = os.statvfs(self._real(path))
        return {name: getattr(found, name) for name in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize")}


if __name__ == "__main__":
    caches = dict.fromkeys(("attr_timeout", "entry_timeout", "negative_timeout"), CACHE_S)
    mfusepy.FUSE(Passthrough(sys.argv[1]), sys.argv[2], foreground=True, **caches)
