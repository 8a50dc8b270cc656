"""The logs of runs: one append-only JSON-lines file for each run, in ``runs/`` of its store.

Every line is an object with ``kind`` and ``utc``. The first is of the kind ``run``: what runs, where, with which
versions. ``progress`` and ``end`` hold numbers. ``video`` names recordings, and the text of an ``error`` or the
``reason`` of a ``machine`` may hold the path of one: `erase` removes these. A run that was killed has no ``end``, and
its last line may be cut. A log is an account for people: nothing is decided by it, and a run goes on where it cannot be
written.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aupipe.errors import named
from aupipe.store import fs
from aupipe.store.links import refuse_link
from aupipe.store.processes import is_of_this_machine, writer_has_ended, writer_name, writer_runs

FOLDER = "runs"
MAX_BYTES = 16 << 20  # of one log; beyond that lines are counted and left out, the last one apart
KEPT = 200  # logs of each command in a store; `aupipe store gc` removes older ones
SILENT_AFTER_S = 300.0  # without a line, for a run on another machine; one that works writes every minute at least
TAIL_BYTES = 64 << 10  # read from the end of a log for its last progress
NAMELESS = ("run", "progress", "end")  # kinds of lines that name no recording
MAX_TEXT = 2000  # characters of one text

log = logging.getLogger(__name__)


class RunLog:
    """The log of one run, written by one process. A context manager; leaving it writes the ``end``.

    ``end`` may be filled until then. An exception that leaves the block is the ``state``: ``stopped`` or ``error``.
    """

    def __init__(self, path: str, **about: Any) -> None:
        self.path = path
        self.end: dict[str, Any] = {"state": "done"}
        self._fd, self._bytes, self._left_out = -1, 0, 0
        self._began_s = time.monotonic()
        try:
            fs.make_folders(os.path.dirname(path), durable=False)
            self._fd = fs.create(path)
        except OSError as error:
            self._give_up(error)
        self.write("run", host=os.uname().nodename, pid=os.getpid(), **about)

    @classmethod
    def in_store(cls, root: str | os.PathLike[str], **about: Any) -> RunLog:
        """A new log in a store, under a name that no other run has, on any machine.

        Raises DamageError where the folder of the logs is a link.
        """
        root = os.path.realpath(root)
        return cls(refuse_link(root, os.path.join(root, FOLDER, log_name())), **about)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            self.write("error", text=short(named(error)))
            self.end["state"] = "error"
        elif error is not None:  # KeyboardInterrupt, SystemExit, GeneratorExit
            self.end["state"] = "stopped"
        seconds = {"seconds": round(time.monotonic() - self._began_s, 3)}
        self._append("end", seconds | self.end | ({"lines_left_out": self._left_out} if self._left_out else {}))
        if self._fd >= 0:
            with suppress(OSError):
                fs.fsync(self._fd, self.path)
            self._close()

    def write(self, kind: str, **content: Any) -> None:
        """Append a line, unless the log is full."""
        if self._bytes > MAX_BYTES:
            self._left_out += 1
        else:
            self._append(kind, content)

    def _append(self, kind: str, content: Mapping[str, Any]) -> None:
        if self._fd < 0:
            return
        line = {"kind": kind, "utc": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **content}
        text = json.dumps(line, separators=(",", ":"), default=str).encode() + b"\n"
        try:
            fs.write(self._fd, [text], self.path)
            self._bytes += len(text)
        except OSError as error:
            self._close()
            self._give_up(error)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        with suppress(OSError):  # a network file system says here that what was written is lost
            os.close(fd)

    def _give_up(self, error: OSError) -> None:
        log.warning("the log of this run cannot be written (%s): %s; the run goes on", error.strerror, self.path)


@dataclass(frozen=True)
class RunAccount:
    """What a log says of its run. ``state``: running, lost (no longer there, without an end), or that of its end."""

    path: str
    about: Mapping[str, Any]  # the first line
    progress: Mapping[str, Any] = field(default_factory=dict)  # the last line of that kind
    failure: Mapping[str, Any] = field(default_factory=dict)  # the last line of a video that failed, if not long ago
    refusal: Mapping[str, Any] = field(default_factory=dict)  # of a machine that refused or was lost, the same
    end: Mapping[str, Any] = field(default_factory=dict)
    state: str = "running"

    def to_json(self) -> dict[str, Any]:
        """As `aupipe status --json` has it."""
        parts = {"progress": self.progress, "last_failure": self.failure, "last_refusal": self.refusal, "end": self.end}
        about: dict[str, Any] = {"log": self.path, "state": self.state, **self.about}
        return about | {name: dict(part) for name, part in parts.items() if part}


def log_name() -> str:
    """A new name for a log; names sort by time."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S.%f}-{writer_name()}.jsonl"


def run_logs(root: str | os.PathLike[str]) -> list[str]:
    """The paths of a store's run logs, oldest first."""
    folder = os.path.join(root, FOLDER)
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".jsonl"))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_lines(path: str) -> Iterator[dict[str, Any]]:
    """The lines of a log; those that are cut or blanked are left out. Raises OSError."""
    with open(path, "rb") as file:
        yield from _parsed(file)


def read_account(path: str) -> RunAccount | None:
    """What a log says of its run, from its beginning and its end. None where it says nothing, or is gone."""
    try:
        with open(path, "rb") as file:
            about = next(_parsed([file.readline()]), None)
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = list(_parsed(file))
    except FileNotFoundError:
        return None
    if about is None or about["kind"] != "run":
        return None
    last = {line["kind"]: line for line in lines}
    failure: dict[str, Any] = next((line for line in reversed(lines) if "failed" in line), {})
    refusal: dict[str, Any] = next((line for line in reversed(lines) if line.get("state") in ("refused", "lost")), {})
    end = last.get("end", {})
    state = str(end.get("state", "done")) if end else "running" if _may_run(path) else "lost"
    return RunAccount(path, about, last.get("progress", {}), failure, refusal, end, state)


def newest_logs(root: str | os.PathLike[str], kept: int = KEPT, command: str = "") -> list[str]:
    """The newest logs of each command, or of one, oldest first. Those that do not say their command are one more."""
    found: list[str] = []
    seen: Counter[str] = Counter()
    for path in reversed(run_logs(root)):
        own = _command(path)
        seen[own] += 1
        if seen[own] <= kept and command in ("", own):
            found.append(path)
    return found[::-1]


def accounts(root: str | os.PathLike[str], command: str = "") -> list[RunAccount]:
    """What the newest logs of a store say, of one command where it is named, oldest first."""
    return [account for path in newest_logs(root, command=command) if (account := read_account(path)) is not None]


def running_pid(path: str) -> int:
    """The pid of another process of this machine that is writing a log, else 0."""
    account = read_account(path)
    return writer_runs(_writer(path)) if account is not None and account.state == "running" else 0


def erase(path: str, recording: str) -> None:
    """Overwrite with spaces what a log may say of a recording.

    That is lines about it or with its name, errors, machines with a reason, and a cut line.
    """
    start = 0
    with open(path, "rb") as file:
        lines = file.readlines()
    fd = -1
    try:
        for line in lines:
            if line.strip() and _may_name(line, recording):
                fd = fd if fd >= 0 else os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                fs.overwrite(fd, b" " * len(line.rstrip(b"\n")), start, path)
            start += len(line)
        if fd >= 0:
            fs.fsync(fd, path)
    finally:
        if fd >= 0:
            os.close(fd)


def remove_old(root: str | os.PathLike[str], kept: int = KEPT) -> None:
    """Remove all but the newest logs of each command; none of a run that may be running."""
    newest = set(newest_logs(root, kept))
    for path in run_logs(root):
        if path in newest:
            continue
        if not _may_run(path) or (account := read_account(path)) is None or account.end:
            fs.try_remove(path)


def short(text: str) -> str:
    """A text as a log holds it: of bounded length."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _may_name(line: bytes, recording: str) -> bool:
    parsed = next(_parsed([line]), None)
    if parsed is None:
        return True  # cut or damaged: it may hold a part of the name
    if parsed["kind"] in NAMELESS:
        return False
    if parsed["kind"] == "machine":
        return bool(parsed.get("reason"))  # a path may name the recording in other words than its id
    return parsed["kind"] == "error" or json.dumps(recording)[1:-1] in line.decode("ascii", "replace")


def _parsed(lines: Any) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.endswith(b"\n"):
            continue
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and "kind" in content:
            yield content


def _command(path: str) -> str:
    """The command in the first line of a log; "" where it has none yet, or is gone."""
    with suppress(OSError), open(path, "rb") as file:
        return str(next(_parsed([file.readline()]), {}).get("command", ""))
    return ""


def _writer(path: str) -> str:
    """The `writer_name` in the name of a log."""
    return os.path.basename(path).partition("-")[2].removesuffix(".jsonl")


def _may_run(path: str) -> bool:
    """Whether the writer of a log may still run: that of this machine is looked for, others write now and then."""
    name = _writer(path)
    if is_of_this_machine(name):
        return not writer_has_ended(name)
    with suppress(OSError):
        return time.time() - os.stat(path).st_mtime < SILENT_AFTER_S
    return False
