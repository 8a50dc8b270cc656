"""Safe names for any recording: what a file system, Zarr and HDF5 all accept, and no two recordings share."""

from __future__ import annotations

import hashlib
import re

MAX_LENGTH = 120
KEY = re.compile(r"[a-z0-9._-]{1,111}-[0-9a-f]{8}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")  # Windows opens a device, whatever the extension
_UNSAFE = re.compile(r"[^a-z0-9._-]+")


def recording_bytes(recording: str) -> bytes:
    """The bytes of the recording's relative path, as `os.fsencode` gives them on a UTF-8 system.

    Fixed to UTF-8 so that two machines with different locales agree on the key.
    """
    try:
        return recording.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair: not a path Python makes, but an id somebody may type
        return recording.encode("utf-8", "surrogatepass")


def recording_key(recording: str) -> str:
    """A slug and 8 hex of the sha256 of the path's bytes: ``[a-z0-9._-]``, at most 120 characters.

    Case twins, NFC/NFD twins and names that differ only in unsafe characters get distinct keys. The slug is for the
    reader of a directory listing; the name itself stands in the item's metadata.
    """
    slug = _UNSAFE.sub("_", recording.lower())  # also '/', so '..' is never a path component of its own
    slug = slug[-(MAX_LENGTH - 10) :].strip("._-") or "item"  # the end of a path tells more than its beginning
    if _DEVICES.match(slug):
        slug = f"_{slug}"
    return f"{slug}-{hashlib.sha256(recording_bytes(recording)).hexdigest()[:8]}"


def shard_folder(key: str) -> str:
    """Two hex digits that spread the items of a feature over 256 folders."""
    return key[-8:-6]
