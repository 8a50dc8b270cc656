"""What is printed, and where it goes. Every print of the command line goes through here, so that none forgets a thing:

a name out of a file neither breaks a line nor steers the terminal, and a reader that has gone away stops no work.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from contextlib import suppress
from typing import IO, Any

import click

from aupipe.logs import printable, traceback_lines

NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)  # the pipe's reader, the terminal, the file is gone


def echo(*lines: str, err: bool = False) -> None:
    """Print lines on stdout, or stderr, each whatever it holds on one line."""
    click.echo("\n".join(map(printable, lines)), err=err)


def echo_json(content: Any, indent: int | None = None) -> None:
    """Print a JSON document on stdout."""
    click.echo(json.dumps(content, indent=indent, default=str))


def echo_error(message: str) -> None:
    """Print the one line of an error on stderr."""
    echo(f"aupipe: {message}", err=True)


def echo_traceback(error: BaseException) -> None:
    """Print an error of aupipe itself, with where it came from, on stderr."""
    echo(*traceback_lines(error), err=True)


class Stream(io.TextIOWrapper):
    """Standard output or error. Once nobody reads it any more, what is written to it is dropped."""

    failure: OSError | None = None  # kept: click asks streams what they are by writing, and drops what they raise

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        point_at_nothing(self.fileno())  # what is still in the buffers goes there too
        if error.errno not in NOBODY_READS:
            self.failure = error
            raise error


def point_at_nothing(fd: int) -> None:
    """Let a file descriptor write to nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd)
    os.close(nowhere)


def open_streams() -> None:
    """Make stdin, stdout and stderr usable whatever this process was started with.

    Where one was closed, the next file opened would get its number, and a library's message would be written into it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest free number each time
        pass
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _stream(sys.stdout, 1)
    sys.stderr = _stream(sys.stderr, 2)


def _stream(old: IO[str] | None, fd: int) -> Stream:
    if not isinstance(old, io.TextIOWrapper):  # it was closed
        return Stream(open(fd, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
    encoding, by_line = old.encoding, old.line_buffering
    through = old.write_through
    return Stream(  # names that are no UTF-8 are printed escaped
        old.detach(), encoding=encoding, errors="backslashreplace", line_buffering=by_line, write_through=through
    )


def close_streams() -> OSError | None:
    """Flush both; what went wrong with either, a full disk for instance, not that nobody read it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    failures = [stream.failure for stream in (sys.stdout, sys.stderr) if isinstance(stream, Stream)]
    return next(filter(None, failures), None)
