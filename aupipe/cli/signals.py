"""Signals that end a command: Ctrl-C, SIGTERM, a closed terminal, Slurm's warning before the wall time."""

from __future__ import annotations

import _thread
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from aupipe.cli.output import echo

INTERRUPTED, TERMINATED = 130, 143  # exit codes
GRACE_S = 20.0  # after the first signal, for cleaning up; workers are killed at once
TERMINATING = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
WARNINGS = ("SIGINT", "SIGUSR1", "SIGUSR2")  # there is time to finish what is under way

_received: list[int] = []  # the exit code of the first signal
_draining: list[str] = []  # what to say at a warning, while a run can finish what is under way
_warned: list[int] = []  # the exit code of the warning
_advice = ["published items stay stored, run the same command to continue"]


class Signalled(KeyboardInterrupt):
    """Raised in the main thread by the first signal that ends this process."""


def catch_signals() -> None:
    """Raise `Signalled` on the first signal, so that the command cleans up; exit at once on the second.

    Signals that were ignored when the process started stay ignored, as `nohup` does with SIGHUP.
    """
    for name in ("SIGINT", *TERMINATING):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def release_signals() -> None:
    """Restore the default action of the signals, once the command is done."""
    for name in ("SIGINT", *TERMINATING):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def draining(words: str) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C (or Slurm's warning) prints ``words`` and raises nothing; the function says whether it
    has come. What comes after it ends the command as everywhere."""
    _draining.append(words)
    try:
        yield lambda: bool(_warned)
    finally:
        _draining.clear()


def exit_code_of_warning() -> int:
    """130 or 143 where a run was asked to finish what is under way, else 0."""
    return _warned[0] if _warned else 0


def say_how_to_continue(words: str) -> None:
    """What the last line of this command, ended by a signal, says in place of the usual."""
    _advice[:] = [words]


def last_words(code: int) -> str:
    """How a command that a signal ended takes its leave."""
    word = "terminated" if code == TERMINATED else "interrupted"
    return f"aupipe: {word}; {_advice[0]}"


def _end(signum: int, frame: FrameType | None) -> None:
    code = INTERRUPTED if signum == signal.SIGINT else TERMINATED
    if _draining and not _warned and signal.Signals(signum).name in WARNINGS:
        _warned.append(code)
        with suppress(OSError):
            os.write(2, f"\n{_draining[0]}\n".encode())  # `print` may be what the signal interrupts
        return
    if _received:
        os._exit(_received[0])
    _received.append(code)
    # Python discards an exception raised in a destructor, and a library may catch it. This thread then ends the
    # process. `threading` cannot start a thread while it is starting another, so `_thread` starts it.
    _thread.start_new_thread(_exit_late, (code,))
    raise Signalled


def _exit_late(code: int) -> None:
    time.sleep(GRACE_S)
    os._exit(code)


def was_signalled() -> bool:
    """Whether a signal was received that ends this process."""
    return bool(_received)


def exit_now() -> None:
    """Print which kind of signal ended the command, and exit without the interpreter's finalization.

    Finalization would unwind threads that are inside C++ code at that moment, such as torch's; C++ does not allow that,
    and the process would abort.
    """
    code = _received[0] if _received else INTERRUPTED
    echo("", last_words(code), err=True)
    os._exit(code)  # stdout is not flushed: its reader may have stopped reading, and the flush would block
