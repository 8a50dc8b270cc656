"""Fetch a file over HTTP: resumed where a connection was cut or a process stopped, and complete or not there at all.

Proxies are those of the environment (``https_proxy``, ``no_proxy``), as Python's own `urllib` reads them.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aupipe import __version__
from aupipe.documents import read_json
from aupipe.errors import WeightsMissingError

Progress = Callable[[int, int], None]  # bytes that are here, bytes in all (0: not known)

TRIES = 5  # without a new byte in between
WAITS_S = (0.5, 1.0, 2.0, 4.0)
TIMEOUT_S = 60.0  # without a byte
BLOCK_BYTES = 1 << 20
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
FOR_NOW = (408, 425, 429, 500, 502, 503, 504)  # answers after which it is tried again


@dataclass(frozen=True)
class Part:
    """The beginning of a file that was fetched: its bytes, and beside them which version of the file it is of."""

    path: Path

    @property
    def about(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def begun(self, url: str) -> tuple[int, str]:
        """How many bytes are here of what ``url`` gave, and the validator of that version; (0, "") for a new file."""
        with suppress(OSError, ValueError, AttributeError):
            about = read_json(self.about)
            if about.get("url") == url and about.get("validator"):
                return self.path.stat().st_size, str(about["validator"])
        return 0, ""

    def remove(self) -> None:
        for path in (self.path, self.about):
            path.unlink(missing_ok=True)


def download(url: str, target: Path, check: Callable[[Path], None], progress: Progress) -> None:
    """Fetch ``url`` into ``target``, which appears when it is whole and ``check`` has raised nothing for it.

    Until then the bytes are in ``<target>.part``, from which a later call goes on, if the server still has the same
    file (by its ETag, or its date). Raises WeightsMissingError where the server refuses, or sends nothing more after
    `TRIES`; the part stays. Raises what ``check`` does; then nothing stays.
    """
    part = Part(target.with_name(f"{target.name}.part"))
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = part.path.stat().st_size if part.path.exists() else 0
        try:
            if _fetch_rest(url, part, progress):
                break
            why = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code not in FOR_NOW:
                raise WeightsMissingError(f"{url}: the server answered {error.code} {error.reason}") from None
            why = f"the server answered {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and (error.filename is not None or error.errno in OF_THE_DISK):
                error.filename = error.filename or str(part.path)  # that of a write names no file
                raise
            reason = getattr(error, "reason", error)
            reason = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
            why = " ".join(str(reason).split()) or type(error).__name__
        here = part.path.stat().st_size if part.path.exists() else 0
        failures = 1 if here > before else failures + 1
        if failures >= TRIES:
            kept = f"; {here:,} bytes are kept, the same command goes on from there" if here else ""
            remedy = "check the network and https_proxy, or name a mirror by AUPIPE_MIRROR"
            raise WeightsMissingError(f"{url} cannot be fetched: {why}: {remedy}{kept}")
        time.sleep(WAITS_S[failures - 1])
    with open(part.path, "rb") as file:
        os.fsync(file.fileno())
    try:
        check(part.path)
    except Exception:
        part.remove()  # to go on from it would give the same
        raise
    os.replace(part.path, target)
    part.remove()


def _fetch_rest(url: str, part: Part, progress: Progress) -> bool:
    """Fetch what a part lacks; whether it is whole now."""
    start, validator = part.begun(url)
    headers = {"User-Agent": f"aupipe/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        # An opener of its own: the one of `urlopen` keeps the proxies that it found first.
        answer = urllib.request.build_opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing after the last byte: the part is whole already, or of another file
            raise
        complete = error.headers.get("Content-Range", "").rpartition("/")[2] == str(start)
        if not complete:
            part.remove()
        return complete
    with answer:
        goes_on = answer.status == 206 and _range_start(answer.headers) == start
        if not goes_on:
            part.remove()
            start = 0
            if answer.status == 206:  # another range than was asked for
                return False
            _note_version(part, url, answer.headers)
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else 0
        with open(part.path, "ab") as file:
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                progress(file.tell(), total)
            here = file.tell()
    return here == total or not total


def _note_version(part: Part, url: str, headers: Any) -> None:
    """Write beside a part of which version of the file it is; a weak ETag does not say that bytes are the same."""
    tag = headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    part.about.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _range_start(headers: Any) -> int:
    text = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(text) if text.isdigit() else -1
