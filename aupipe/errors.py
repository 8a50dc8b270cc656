"""What can go wrong, each kind with the exit code the command line answers with."""

from __future__ import annotations

import errno
import os


class AupipeError(Exception):
    """An error a user can act on: one line of what, where, and what to do."""

    exit_code = 1


class UsageError(AupipeError):
    """The request itself is wrong: unknown name, unknown key, impossible option."""

    exit_code = 2


class RecordingError(AupipeError):
    """One recording cannot be processed; the others go on."""

    exit_code = 3


class NoStoreError(AupipeError):
    """There is no feature store where one was expected."""

    exit_code = 10


class StoreVersionError(AupipeError):
    """The store was written by a newer aupipe, or in another way this one must not touch."""

    exit_code = 11


class WeightsMissingError(AupipeError):
    """Weights an encoder or detector needs are not on this machine."""

    exit_code = 12


class DamageError(AupipeError):
    """Stored data is not what was published."""

    exit_code = 13


AGAIN = "then run the same command again: what was published stays"
REMEDIES = {
    errno.ENOSPC: f"free some space, {AGAIN}",
    errno.EDQUOT: f"your disk quota is used up: free some space, {AGAIN}",
    errno.EROFS: "it is on a file system mounted read-only: choose another place, or have it mounted for writing",
    errno.EACCES: "you may not do that there: check the owner and the permissions",
    errno.EPERM: "you may not do that there: check the owner and the permissions",
    errno.EIO: f"the disk or the network file system has an error: ask whoever runs it, {AGAIN}",
    errno.ESTALE: f"the network file system lost the file: mount it anew, {AGAIN}",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "too little memory: use fewer --workers, or a machine with more",
    errno.EAGAIN: "no more processes or threads may be started: raise `ulimit -u`, or use fewer --workers",
}
FEW_INODES = 32  # what was being written has been removed again by the time anybody looks
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed", "bad_alloc")
THREAD_WORDS = "can't start new thread"
MAPPING_WORDS = ("failed to map segment", "cannot allocate memory", "cannot create shared object descriptor")


def explain(error: BaseException) -> str | None:
    """One line of what, where and what to do for an error of the operating system; None for any other error."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        remedy = REMEDIES.get(error.errno)
        free = getattr(error, "free_space", "") or (free_space(error) if where else "")
        return f"{error.strerror or error}{where}{free}" + (f"; {remedy}" if remedy else "")
    if is_out_of_memory(error):
        return f"too little memory ({text or type(error).__name__}): use fewer --workers, or a machine with more"
    if isinstance(error, ImportError | OSError) and any(words in text.lower() for words in MAPPING_WORDS):
        return f"too little memory to load a library ({text}): raise `ulimit -v`, or take a machine with more"
    if isinstance(error, RuntimeError) and THREAD_WORDS in text:
        return f"{text}: too little memory or too many threads: raise `ulimit -v` and `-u`, or use fewer --workers"
    return None


def is_exhausted(error: BaseException) -> bool:
    """True where memory, address space or threads have run out: this process can do little more, another one may."""
    text = str(error).lower()
    mapping = isinstance(error, ImportError | OSError) and any(words in text for words in MAPPING_WORDS)
    return is_out_of_memory(error) or mapping or (isinstance(error, RuntimeError) and THREAD_WORDS in text)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which torch, numpy and the system say that memory has run out."""
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
        return " (no inodes are free: remove files from this file system, or store as HDF5, which takes fewer)"
    needed = getattr(error, "item_bytes", 0)
    free = f"{found.f_bavail * found.f_frsize / 1e6:,.1f} MB are free"
    return f" ({free}, the item being written takes {needed / 1e6:,.1f} MB)" if needed else f" ({free})"
