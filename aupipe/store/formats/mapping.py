"""Files mapped as arrays, without a copy and without an open file descriptor."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_PROT_READ, _MAP_SHARED = 1, 1
_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """A mapped file, unmapped when the last array over it is deleted.

    The `mmap` module keeps a descriptor open per map (until Python 3.13), and a store has more items than a process
    may have descriptors.
    """

    def __init__(self, fd: int, size: int, path: str) -> None:
        self.address = None
        address = _libc.mmap(None, size, _PROT_READ, _MAP_SHARED, fd, 0)
        if address == _FAILED:
            error = ctypes.get_errno()
            reason = os.strerror(error)
            if error == errno.ENOMEM:
                reason = "too many files are mapped by arrays in use: copy the rows that are kept, as np.array(rows)"
            raise OSError(error, reason, path)
        self.address, self.size = address, size
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, True)}

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        if self.address is not None and not sys.is_finalizing():  # at exit, arrays over it may still be in use
            munmap(self.address, self.size)


def map_file(path: str) -> NDArray[np.uint8]:
    """The bytes of a file, read-only (N,); links are not followed. Raises FileNotFoundError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        return np.asarray(_Mapping(fd, size, path)) if size else np.empty(0, np.uint8)
    finally:
        os.close(fd)
