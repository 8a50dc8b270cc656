"""What a file system does with the calls that a store is built on, tried in a folder of its own."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from aupipe.doctor import Finding
from aupipe.errors import explain

MOUNTS = Path("/proc/self/mountinfo")
SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "fuse", "9p", "afs", "gfs2", "ocfs2")
LITTLE_SPACE = 20e9  # bytes; 600 videos x 5 minutes x one backbone of 768 columns take 14 GB
CLOCK_S = 2.0  # by which the clock of a file server may differ
SLOW_SYNC_S = 0.5


def examine_folder(folder: Path) -> Iterator[Finding]:
    """Findings of the file system of a folder, or of the nearest one above it that exists."""
    while not folder.is_dir():
        folder = folder.absolute().parent
    subject = f"folder {folder}"
    free = shutil.disk_usage(folder).free
    space = f"{free / 1e9:,.1f} GB free"
    if free < LITTLE_SPACE:
        yield Finding(
            "WARN", "disk space", f"{space} at {folder}", "see `aupipe store gc`, or set [store] path elsewhere"
        )
    else:
        yield Finding("PASS", "disk space", f"{space} at {folder}")
    kind = file_system_of(folder)
    is_shared = kind.startswith(SHARED)
    note = "; docs/store.md says what is promised there" if is_shared else ""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".aupipe-doctor-", dir=folder))
    except OSError as error:
        yield Finding("FAIL", subject, f"{kind}: {explain(error)}", "set [store] path to a folder you may write in")
        return
    try:
        for what, attempt, remedy in ATTEMPTS:
            if (why := _why_not(attempt, scratch)) is not None:
                yield Finding("FAIL", subject, f"{kind}: {what}: {why}", remedy)
                return
        started_s = time.perf_counter()
        _write(scratch / "timed", b"0" * 4096)
        sync_s = time.perf_counter() - started_s
        ahead_s = (scratch / "timed").stat().st_mtime - time.time()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = f"{kind}{note}; a durable write takes {1000 * sync_s:.1f} ms"
    if abs(ahead_s) > CLOCK_S:
        remedy = "set the clocks of this machine and of the file server (NTP)"
        yield Finding("WARN", subject, f"{found}; its clock differs by {ahead_s:+.0f} s", remedy)
    elif sync_s > SLOW_SYNC_S:
        yield Finding("WARN", subject, found, "every stored item waits for that: set [store] path to a faster disk")
    else:
        yield Finding("PASS", subject, found)


def file_system_of(folder: Path) -> str:
    """The type of the file system a folder is on, such as ``ext4`` or ``nfs4``; "of unknown type" off Linux."""
    try:
        lines = MOUNTS.read_bytes().splitlines()
    except OSError:
        return "of unknown type"
    real, best, kind = os.path.realpath(folder), "", "of unknown type"
    for line in lines:  # ID parent major:minor root mount-point options ... - type source options
        before, _, after = line.partition(b" - ")
        escaped = before.split(b" ")[4]  # a space is \040
        point = os.fsdecode(re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), escaped))
        is_above = real == point or real.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(best):
            best, kind = point, os.fsdecode(after.split()[0])
    return kind


def _why_not(attempt: Callable[[Path], None], folder: Path) -> str | None:
    try:
        attempt(folder)
    except (OSError, ValueError) as error:
        return explain(error) or str(error)
    return None


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _replace(folder: Path) -> None:
    _write(folder / "old", b"old")
    _write(folder / "new", b"new")
    os.rename(folder / "new", folder / "old")
    if (folder / "old").read_bytes() != b"new":
        raise ValueError("the old content is still there")


def _exclude(folder: Path) -> None:
    _write(folder / "one", b"1")
    try:
        _write(folder / "one", b"2")
    except FileExistsError:
        return
    raise ValueError("a file could be created twice")


def _map(folder: Path) -> None:
    _write(folder / "mapped", b"mapped" * 1000)
    with (folder / "mapped").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:6] != b"mapped":
            raise ValueError("other bytes are mapped")


ELSEWHERE = "set [store] path to another file system"
ATTEMPTS: tuple[tuple[str, Callable[[Path], None], str], ...] = (
    ("renaming over a file", _replace, ELSEWHERE),
    ("creating a file only where there is none", _exclude, ELSEWHERE),
    ("mapping a file", _map, ELSEWHERE),
)
