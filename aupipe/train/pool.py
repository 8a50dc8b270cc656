"""Tasks in worker processes of this machine. A process that dies takes one task with it, which is tried once more."""

from __future__ import annotations

import logging
import subprocess
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from aupipe.child_process import start_child
from aupipe.errors import AupipeError, explain

T = TypeVar("T")
R = TypeVar("R")
TRIES = 2
KILL_S = 10.0  # a process in the kernel may take its time to end


@dataclass(frozen=True)
class Died:
    """A task whose process died each time; ``reason``: how."""

    reason: str


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    connection: Connection
    slot: int
    task: int | None = None  # the number of the task it works on


def run_tasks(
    work: Callable[[T], R],
    tasks: Sequence[T],
    environments: Sequence[Mapping[str, str]],
    tell: Callable[[str], None] = lambda line: None,
) -> Generator[tuple[T, R | Died]]:
    """``work(task)`` for each task, as they end, in as many processes as there are ``environments``.

    ``work``, tasks and results are pickled, so none may be defined in the module that runs as ``__main__``. A process
    has the variables of its environment besides those of this one, and does one task after another. ``tell`` receives a
    line when a process dies.

    An exception of ``work`` is raised here, an unforeseen one as AupipeError; all processes are then ended, as they are
    when the iterator is closed.
    """
    waiting, tries = deque(range(len(tasks))), Counter[int]()
    processes: dict[int, _Process] = {}  # by slot
    try:
        while waiting or any(one.task is not None for one in processes.values()):
            for slot, environment in enumerate(environments):
                if waiting and (slot not in processes or processes[slot].task is None):
                    if slot not in processes:
                        processes[slot] = _start(work, environment, slot)
                    following = processes[slot].task = waiting.popleft()
                    tries[following] += 1
                    with suppress(OSError):  # one that has died is noticed below
                        processes[slot].connection.send(tasks[following])
            by_connection = {id(one.connection): one for one in processes.values() if one.task is not None}
            for ready in wait([one.connection for one in by_connection.values()]):
                one = by_connection[id(ready)]
                number = one.task
                assert number is not None
                try:
                    failure, result = one.connection.recv()
                except (EOFError, OSError):
                    reason = _end(processes.pop(one.slot))
                    if tries[number] < TRIES:
                        tell(f"{tasks[number]}: {reason}; tried again")
                        waiting.appendleft(number)
                        continue
                    yield tasks[number], Died(reason)
                    continue
                one.task = None
                if failure is not None:
                    raise failure
                yield tasks[number], result
    finally:
        for one in processes.values():
            _end(one)


def _start(work: Any, environment: Mapping[str, str], slot: int) -> _Process:
    process, connection = start_child("aupipe.train.pool_worker", environment)
    with suppress(OSError):
        connection.send((logging.getLogger("aupipe").level, work))
    return _Process(process, connection, slot)


def _end(one: _Process) -> str:
    """End a process, if it has not ended, and say how it ended."""
    one.connection.close()
    with suppress(subprocess.TimeoutExpired):
        one.process.wait(0.5)  # one that died is not there any more, one that lives ends with its pipe
    one.process.kill()
    with suppress(subprocess.TimeoutExpired):
        one.process.wait(KILL_S)
    code = one.process.returncode
    return (
        f"its process was killed by signal {-code}" if code is not None and code < 0 else f"its process ended ({code})"
    )


def portable(error: Exception) -> Exception:
    """An exception as it is sent to the other process: AupipeErrors as they are, others as one with their text."""
    if isinstance(error, AupipeError):
        return error
    return AupipeError(explain(error) or f"{type(error).__name__}: {' '.join(str(error).split())}")
