"""What was found out once and need not be again: small JSON files in the user's cache folder.

On Linux that is ``$XDG_CACHE_HOME/aupipe``, else ``~/.cache/aupipe``. Deleting them loses nothing but time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from aupipe.documents import read_json
from aupipe.errors import UsageError
from aupipe.files import write_file

log = logging.getLogger(__name__)


def get(file: str, key: str) -> Any:
    """The JSON value kept under a key of a file; None where there is none, or where the file is damaged."""
    return _read(file).get(key)


def put(file: str, key: str, value: Any) -> None:
    """Keep a JSON value under a key. Where that cannot be written it is found out again another time."""
    try:
        content = json.dumps({**_read(file), key: value}, indent=1, sort_keys=True)
        write_file(_path(file), content, overwrite=True)
    except (OSError, UsageError) as error:
        log.info("%s: not written: %s", _path(file), error)


@contextmanager
def lock(file: str) -> Iterator[None]:
    """Held by one thread of one process at a time; by everyone where the folder cannot be written or locked."""
    from filelock import FileLock

    path = _path(file).with_suffix(".lock")
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path))
        except OSError as error:
            log.info("%s: not locked: %s", path, error)
        yield


def _read(file: str) -> dict[str, Any]:
    try:
        kept = read_json(_path(file))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _path(file: str) -> Path:
    return user_cache_path("aupipe", appauthor=False) / file
