"""What was found out once and need not be again: small JSON files in ``~/.cache/aupipe`` (XDG_CACHE_HOME is honoured).

Deleting them loses nothing but time.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from aupipe.documents import read_json

log = logging.getLogger(__name__)


def recall(file: str) -> dict[str, Any]:
    """All that is kept in one file; empty where there is none, or where it is damaged."""
    try:
        kept = read_json(_path(file))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def keep(file: str, key: str, value: Any) -> None:
    """Write down a JSON value. Where that cannot be done it is found out again another time."""
    path = _path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as written:
            json.dump({**recall(file), key: value}, written, indent=1, sort_keys=True)
        os.replace(written.name, path)
    except OSError as error:
        log.info("%s: not written: %s", path, error)


@contextmanager
def alone(file: str) -> Iterator[None]:
    """Held by one process at a time; by whoever comes where the folder cannot be written or the system has no locks."""
    path = _path(file).with_suffix(".lock")
    with ExitStack() as held:
        try:
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context(path.open("w")), fcntl.LOCK_EX)  # let go of when closed, however that comes
        except (ImportError, OSError) as error:
            log.info("%s: not locked: %s", path, error)
        yield


def _path(file: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "aupipe" / file
