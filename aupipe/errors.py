"""Error classes with the exit codes of the command line, and explanations of errors of the operating system."""

from __future__ import annotations

import errno
import os


class AupipeError(Exception):
    """An error that the user can act on. Its message is one line: what, where, and what to do."""

    exit_code = 1


class DivergedError(AupipeError):
    """The training of a head diverged: its loss, its weights or its output are not finite."""


class UsageError(AupipeError):
    """The request is invalid: an unknown name or key, or options that cannot be combined."""

    exit_code = 2


class RecordingError(AupipeError):
    """One recording cannot be processed; the others are."""

    exit_code = 3


class NoStoreError(AupipeError):
    """There is no feature store at the given path."""

    exit_code = 10


class StoreVersionError(AupipeError):
    """The store has a format that this version of aupipe must not change."""

    exit_code = 11


class WeightsMissingError(AupipeError):
    """Weights of encoders, detectors or heads are missing on this machine; ``lines``: one for each of them."""

    exit_code = 12

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(dict.fromkeys(lines))
        heading = f"{len(self.lines)} of the weights are missing:"
        super().__init__(self.lines[0] if len(self.lines) == 1 else "\n  ".join([heading, *self.lines]))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.lines  # not the text of all of them, as one line


class DamageError(AupipeError):
    """Stored data differs from what was published."""

    exit_code = 13


class BusyError(AupipeError):
    """Another process works on the same store: the command can be run again once it has ended."""

    exit_code = 15


AGAIN = "then run the same command again: published items stay stored"
REMEDIES = {
    errno.ENOSPC: f"free some space, {AGAIN}",
    errno.EDQUOT: f"your disk quota is used up: free some space, {AGAIN}",
    errno.EROFS: "the file system is mounted read-only: choose another folder, or mount it for writing",
    errno.EACCES: "permission is missing: check the owner and the permissions",
    errno.EPERM: "permission is missing: check the owner and the permissions",
    errno.EIO: f"the disk or the network file system has an error: ask its administrator, {AGAIN}",
    errno.ESTALE: f"the network file system lost the file: mount it again, {AGAIN}",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "too little memory: use fewer --workers, or a machine with more",
    errno.EAGAIN: "the limit of processes and threads is reached: raise `ulimit -u`, or use fewer --workers",
}
FEW_INODES = 32  # not 0: the file that did not fit has been removed again when this is checked
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed", "bad_alloc")
THREAD_WORDS = "can't start new thread"
BUSY_WORDS = "busy or unavailable"  # cudaErrorDevicesUnavailable
MAPPING_WORDS = ("failed to map segment", "cannot allocate memory", "cannot create shared object descriptor")


def explain(error: BaseException) -> str | None:
    """An error of the operating system as one line: what, where, and what to do. None for any other error."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        remedy = REMEDIES.get(error.errno)
        free = getattr(error, "free_space", "") or (free_space(error) if where else "")
        return f"{error.strerror or error}{where}{free}" + (f"; {remedy}" if remedy else "")
    if is_out_of_memory(error):
        return f"too little memory ({text or type(error).__name__}): use fewer --workers, or a machine with more"
    if isinstance(error, RuntimeError) and BUSY_WORDS in text:
        return (
            "the GPU is in use and takes one process only, or none (its compute mode: nvidia-smi -q -d COMPUTE): wait "
            "until it is free, or choose another with --gpu or CUDA_VISIBLE_DEVICES"
        )
    if isinstance(error, ImportError | OSError) and any(words in text.lower() for words in MAPPING_WORDS):
        return f"too little memory to load a library ({text}): raise `ulimit -v`, or use a machine with more"
    if isinstance(error, RuntimeError) and THREAD_WORDS in text:
        return f"{text}: too little memory or too many threads: raise `ulimit -v` and `-u`, or use fewer --workers"
    return None


def named(error: BaseException) -> str:
    """Any error as one line, with its kind: ``ValueError: not a number``."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def is_exhausted(error: BaseException) -> bool:
    """Whether memory, address space or threads have run out; a new process may succeed where this one cannot."""
    text = str(error).lower()
    mapping = isinstance(error, ImportError | OSError) and any(words in text for words in MAPPING_WORDS)
    return is_out_of_memory(error) or mapping or (isinstance(error, RuntimeError) and THREAD_WORDS in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory has run out, in any form in which torch, numpy and the system report it."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in MEMORY_WORDS)


def free_space(error: OSError) -> str:
    """Of a full disk: what is free on the file system of the error's path, and what the item that did not fit takes.

    To be asked before the files of that item are removed (``error.free_space``).
    """
    if error.errno != errno.ENOSPC:
        return ""
    folder = os.path.dirname(os.path.abspath(os.fsdecode(error.filename))) if error.filename else "."
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    if found.f_files and found.f_favail < FEW_INODES and found.f_bavail:
        return " (no inodes are free: remove files from this file system, or use the HDF5 backend, which needs fewer)"
    needed = getattr(error, "item_bytes", 0)
    free = f"{found.f_bavail * found.f_frsize / 1e6:,.1f} MB are free"
    return f" ({free}, the item being written takes {needed / 1e6:,.1f} MB)" if needed else f" ({free})"
