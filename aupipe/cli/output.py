"""Printing to stdout and stderr. Every line that the command line prints goes through this module.

Characters in file names that would break a line or control the terminal are escaped. When the reader of a stream is
gone, what is written to it is dropped and the command continues.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

import click

from aupipe.logs import printable, traceback_lines

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # of a pipe, a terminal, a closed file


def echo(*lines: str, err: bool = False) -> None:
    """Print each string as one line on stdout, or on stderr."""
    click.echo("\n".join(map(printable, lines)), err=err)


def echo_err(line: str) -> None:
    """Print a line on stderr: for what reports its progress to a function."""
    echo(line, err=True)


def control(text: str, err: bool) -> None:
    """Send text with control sequences to a terminal, as it is; names in it must be `printable`."""
    click.echo(text, nl=False, err=err)


_takers: list[Callable[[Any], None]] = []  # who is given JSON documents in place of stdout


@contextmanager
def json_given_to(taker: Callable[[Any], None]) -> Iterator[None]:
    """Inside, each JSON document is given to ``taker`` and not printed: for callers from Python."""
    _takers.append(taker)
    try:
        yield
    finally:
        _takers.remove(taker)


def echo_json(message_type: str, content: Mapping[str, Any], indent: int | None = None) -> None:
    """Print a JSON object on stdout; ``message_type`` says which keys it has (docs/reference/json.md).

    Without ``indent`` it is one line, as a command prints it that prints several.
    """
    text = json.dumps({"message_type": message_type, **content}, indent=indent, default=str)
    if _takers:
        _takers[-1](json.loads(text))
    else:
        click.echo(text)


def echo_error(message: str, *items: str) -> None:
    """Print an error, or what else is to be known, as one line on stderr; ``items``: what it lists, a line each."""
    echo(f"aupipe: {message}", *items, err=True)


def echo_traceback(error: BaseException) -> None:
    """Print the traceback of an internal error on stderr."""
    echo(*traceback_lines(error), err=True)


class Stream(io.TextIOWrapper):
    """Standard output or error. Once its reader is gone, what is written to it is dropped."""

    failure: OSError | None = None  # kept here: click probes streams by writing to them, and discards the exception

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
        redirect_to_null(self.fileno())  # also drops what the buffers still hold
        if error.errno not in READER_GONE:
            self.failure = error
            raise error


def redirect_to_null(fd: int) -> None:
    """Make a file descriptor write to the null device from now on."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)


def open_streams() -> None:
    """Make stdin, stdout and stderr usable, also where the process was started with one of them closed.

    Otherwise the next file that is opened would get its descriptor, and messages of libraries would be written into it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # open returns the lowest free descriptor
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
    return Stream(  # names that are not valid UTF-8 are printed escaped
        old.detach(), encoding=encoding, errors="backslashreplace", line_buffering=by_line, write_through=through
    )


def close_streams() -> OSError | None:
    """Flush stdout and stderr; the error of one of them, such as a full disk. A reader that is gone is no error."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    failures = [stream.failure for stream in (sys.stdout, sys.stderr) if isinstance(stream, Stream)]
    return next(filter(None, failures), None)
