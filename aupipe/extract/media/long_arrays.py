"""Arrays of any length in bounded memory: appended to in blocks, kept in a temporary file once they are large."""

from __future__ import annotations

import errno
import mmap
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import AupipeError

MEMORY_BYTES = 32 << 20  # an array up to this size stays in memory


class ArrayBuilder:
    """An array (n, ...) made from blocks (b, ...) of one dtype, given in order.

    A large one goes to a file without a name in the folder for temporary files (``TMPDIR``), which is gone when the
    array is, or the process. Raises AupipeError when the disk is full.
    """

    def __init__(self) -> None:
        self._blocks: list[NDArray[Any]] = []
        self._file: Any = None
        self._length = 0
        self._nbytes = 0

    def __len__(self) -> int:
        return self._length

    def append(self, block: NDArray[Any]) -> None:
        self._length += len(block)
        self._nbytes += block.nbytes
        self._blocks.append(block)
        if self._nbytes > MEMORY_BYTES:
            self._write()

    def array(self) -> NDArray[Any]:
        """All of it; a read-only memory map where it lies in a file. At least one block has been given."""
        if self._file is None:
            return np.concatenate(self._blocks)
        first = self._blocks[0]
        shape = (self._length, *first.shape[1:])
        return np.memmap(self._file, dtype=first.dtype, mode="r", shape=shape)

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="aupipe-")  # noqa: SIM115 (as long as the array)
            for block in self._blocks:
                self._file.write(np.ascontiguousarray(block).data)
            self._file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise AupipeError(
                f"{tempfile.gettempdir()}: no space for {self._nbytes / 1e6:.0f} MB of sound; "
                "set TMPDIR to a folder with free space"
            ) from error
        self._blocks = [self._blocks[0][:0]]


def cut(array: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """A copy of elements [start, stop) of ``array`` (n, ...), 0 beyond either end."""
    found = np.zeros((stop - start, *array.shape[1:]), array.dtype)
    low, high = max(start, 0), min(stop, len(array))
    if high > low:
        found[low - start : high - start] = array[low:high]
    release_pages(array)
    return found


def release_pages(array: NDArray[Any]) -> None:
    """Take the pages of a memory map out of this process's memory; they are read again when they are needed."""
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
