"""Ends of a run that come from outside: Ctrl-C, SIGTERM, a closed terminal, Slurm's warning before the wall time."""

from __future__ import annotations

import _thread
import os
import signal
import time
from types import FrameType

from aupipe.cli.output import echo

INTERRUPTED, TERMINATED = 130, 143
GRACE_S = 20.0  # for what is left to put in order after the first signal; workers are killed at once
TERMINATING = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

_asked: list[int] = []  # the exit code of the first signal


class Ended(KeyboardInterrupt):
    """A signal asks this process to end."""


def catch_signals() -> None:
    """Let signals end this process in order: `Ended` is raised, once. A second signal ends it on the spot.

    What was ignored when the process was started stays ignored: `nohup` does that with SIGHUP.
    """
    for name in ("SIGINT", *TERMINATING):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def release_signals() -> None:
    """Let signals do what they do to any process: the work is over."""
    for name in ("SIGINT", *TERMINATING):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)


def _end(signum: int, frame: FrameType | None) -> None:
    code = INTERRUPTED if signum == signal.SIGINT else TERMINATED
    if _asked:
        os._exit(_asked[0])
    _asked.append(code)
    # Python drops what is raised in a destructor, and a library may take it for an error of its own: then this ends the
    # process. A thread of `threading` could not be started while another is being.
    _thread.start_new_thread(_end_late, (code,))
    raise Ended


def _end_late(code: int) -> None:
    time.sleep(GRACE_S)
    os._exit(code)


def asked_to_end() -> bool:
    """Whether a signal has come."""
    return bool(_asked)


def end_now() -> None:
    """Say that this process ends as it was asked to, and end it.

    Without the interpreter's own ending: a thread that computes in C++ at that moment (the one that makes batches, one
    of torch's) would be unwound where C++ does not allow it, and the process would abort.
    """
    code = _asked[0] if _asked else INTERRUPTED
    word = "terminated" if code == TERMINATED else "interrupted"
    echo("", f"aupipe: {word}; what was published stays, run the same command to go on", err=True)
    os._exit(code)  # stdout is not flushed: whoever was to read it may have stopped reading
