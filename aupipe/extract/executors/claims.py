"""Several runs over one store, each a plain process: every video is claimed by one of them, through files.

A claim is a file that only one run can create. A run shows that it is alive by touching a file of its own; claims of a
run that has ended, or has not touched its file for `LEASE_S`, are inherited. Ages are differences between times that
the file server gave, so the clocks of the machines do not matter. When two runs do take one video (a run was paused for
longer than its lease), both compute the same rows and one of them is published: work is lost, never an item. What a run
that was killed leaves is removed by the next run over the store, whether that one shares it or not.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from aupipe.extract.executors import Attempt
from aupipe.store import fs
from aupipe.store.processes import writer_has_ended, writer_name

LEASE_S = 120.0
BEAT_S = 20.0
# Files named after the run that made them, and after how long untouched that run has ended, wherever it was. They say:
# it is alive; the time of the file server; the store is this one (touched every hour by `cluster.executor`).
ALIVE = ".alive"
EXPIRY_S = {ALIVE: LEASE_S, ".now": LEASE_S, ".mark": 24 * 3600.0}

Replan = Callable[[Sequence[Attempt]], list[Attempt]]  # those of which something is still to be made


class Claims(Protocol):
    """Which run makes which video."""

    def take(self, video_id: str) -> bool:
        """Whether this run makes the video: nobody else does."""
        ...

    def inherit(self, elsewhere: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
        """Of jobs that others had claimed: those this run now makes, and those that others still work on."""
        ...


class NoClaims:
    """This run makes everything."""

    def take(self, video_id: str) -> bool:
        """Whether this run makes the video."""
        return True

    def inherit(self, elsewhere: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
        """Nothing, of nothing."""
        return [], list(elsewhere)


class FileClaims:
    """Claims through files in a folder that all runs see. A context manager; leaving it frees what was not ended."""

    def __init__(self, folder: Path, replan: Replan) -> None:
        self.folder, self.replan = folder, replan
        self.name = writer_name()
        self._claims = folder / "claims"
        self._alive = folder / f"{self.name}{ALIVE}"
        self._mine: set[str] = set()
        self._ended: set[str] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Self:
        fs.make_folders(str(self._claims), durable=False)
        remove_ended(self.folder)
        os.close(fs.create(str(self._alive)))
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()
        for video_id in self._mine - self._ended:
            self._path(video_id).unlink(missing_ok=True)
        self._alive.unlink(missing_ok=True)  # first: of runs that end at once, one finds no other and clears the claims
        remove_ended(self.folder)

    def note_ended(self, video_id: str) -> None:
        """A video that need not be made again, whatever came of it: its claim stays until all runs have ended."""
        self._ended.add(video_id)

    def take(self, video_id: str) -> bool:
        """Whether this run makes the video: it creates the claim, or has it already."""
        if video_id in self._mine:
            return True
        try:
            handle = fs.create(str(self._path(video_id)))
        except FileExistsError:
            return False
        self._mine.add(video_id)
        with os.fdopen(handle, "w") as file:
            file.write(self.name)
        return True

    def inherit(self, elsewhere: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
        """Of jobs that others had claimed: those that are not made and whose run has ended, and those of live runs."""
        taken, left = [], []
        for attempt in self.replan(elsewhere):
            video_id = attempt.job.video_id
            owner = self._owner(video_id)
            if owner and self.is_alive(owner):
                left.append(attempt)
            elif self._free(video_id, owner) and self.take(video_id):
                taken.append(attempt)
            else:
                left.append(attempt)
        return taken, left

    def is_alive(self, name: str) -> bool:
        """Whether a run works, as far as can be known."""
        self._alive.touch()
        return not has_ended(self.folder / f"{name}{ALIVE}", self._alive.stat().st_mtime)

    def _path(self, video_id: str) -> Path:
        return self._claims / hashlib.sha256(os.fsencode(video_id)).hexdigest()[:32]

    def _owner(self, video_id: str) -> str:
        """The run that has claimed a video; empty where nobody has, or its name is not written yet."""
        with suppress(FileNotFoundError):
            return self._path(video_id).read_text()
        return ""

    def _free(self, video_id: str, owner: str) -> bool:
        """Remove the claim of a run that has ended; False where another run has just done so."""
        path = self._path(video_id)
        if not owner:
            return not path.exists()
        aside = path.with_name(f"{path.name}.{self.name}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return False
        if is_another := aside.read_text() != owner:  # of a run that has inherited it meanwhile
            fs.link(str(aside), str(path))
        aside.unlink(missing_ok=True)
        return not is_another

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            with suppress(OSError):
                self._alive.touch()


def has_ended(sign: Path, now_s: float) -> bool:
    """Whether the run that a file is named after has ended, as far as can be known.

    A run of this machine is looked for among its processes. That of another one, and one that stands still, has not
    touched the file for long: `EXPIRY_S`.
    """
    if writer_has_ended(sign.stem):
        return True
    try:
        return now_s - sign.stat().st_mtime >= EXPIRY_S[sign.suffix]
    except FileNotFoundError:
        return True


def remove_ended(folder: Path) -> None:
    """Remove from a folder of runs what those have left that ended; claims once no run that shares the store is alive.

    What cannot be removed, as in a store that is read only, stays.
    """
    if folder.is_symlink() or (folder / "claims").is_symlink():
        return  # not of this store; it is refused by name where it is written to
    claims = list((folder / "claims").glob("*"))  # first: the owners of these have shown before that they are alive
    signs = [path for path in folder.glob("*.*") if path.suffix in EXPIRY_S]
    if not claims and not signs:
        return
    try:
        now_s = _time_of(folder)
    except OSError:
        return
    ended = {path for path in signs if has_ended(path, now_s)}
    is_shared = any(path.suffix == ALIVE for path in signs if path not in ended)
    for path in [*ended, *(claims if not is_shared else [])]:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _time_of(folder: Path) -> float:
    """The time by which the files of a folder are dated: that of the file server."""
    path = folder / f"{writer_name()}.now"
    os.close(fs.create(str(path)))
    try:
        return path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)
