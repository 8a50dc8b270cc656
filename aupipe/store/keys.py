"""Names on disk: safe for every file system, Zarr and HDF5, and different for any two recordings."""

from __future__ import annotations

import hashlib
import re

from aupipe.types import FEATURE_NAME

MAX_LENGTH = 120
FEATURE_ID = re.compile(FEATURE_NAME.pattern + "@[0-9a-f]{12}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")  # Windows opens a device, whatever the extension
_UNSAFE = re.compile(r"[^a-z0-9._-]+")


def name_as_text(name: str) -> str:
    """A name as text that every format takes: bytes that are not UTF-8 become ``\\udcXX``."""
    return name.encode("utf-8", "backslashreplace").decode()


def recording_bytes(recording: str) -> bytes:
    """The bytes of the recording's relative path, as `os.fsencode` gives them on a UTF-8 system.

    Fixed to UTF-8 so that two machines with different locales agree on the key.
    """
    try:
        return recording.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair: no path from Python holds one, but an id that is typed may
        return recording.encode("utf-8", "surrogatepass")


def recording_key(recording: str) -> str:
    """A slug and 8 hex of the sha256 of the path's bytes: ``[a-z0-9._-]``, at most 120 characters.

    Names that differ only in case, in Unicode normalisation or in unsafe characters get different keys. The slug is for
    people who list the folder; the name itself is in the item's metadata.
    """
    slug = _UNSAFE.sub("_", recording.lower())  # '/' too, so '..' is never a component of a path
    slug = slug[-(MAX_LENGTH - 10) :].strip("._-") or "item"  # the end of a path is the distinctive part
    if _DEVICES.match(slug):
        slug = f"_{slug}"
    return f"{slug}-{hashlib.sha256(recording_bytes(recording)).hexdigest()[:8]}"


def shard_folder(key: str) -> str:
    """The folder of a key among the 256 that the items of a feature are spread over: two hex digits."""
    return key[-8:-6]
