"""Identity of the source files of a feature, and whether they have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR

from aupipe.dataset import frame_files
from aupipe.errors import RecordingError
from aupipe.types import SourceIdentity

BLOCKS = "blocks:"  # prefix of the digests of `source_identity`; digests of earlier versions have none
WHOLE_BYTES, END_BYTES, INNER_BYTES, INNER_BLOCKS = 16 << 20, 1 << 20, 64 << 10, 64


def source_identity(*paths: Path, like: str = "") -> SourceIdentity:
    """The identity of files or folders of images. Raises RecordingError for one that cannot be read.

    The digest of a file of up to 16 MiB, and of an image folder, covers every byte. Of a larger file it covers the
    size, the first and the last MiB, and 64 evenly spaced blocks of 64 KiB between them, so that planning stays fast
    for thousands of large files. A change shorter than the distance of two blocks (1.5 MiB in 100 MiB) may be missed.

    ``like``: a digest to compare with. The digest is then computed by the rule of that one.
    """
    blocks_of = _blocks if not like or like.startswith(BLOCKS) else _ends
    try:
        sizes, mtimes, digests = zip(*(_identify(path, blocks_of) for path in paths), strict=True)
    except OSError as error:
        raise RecordingError(f"cannot read {error.filename or paths[0]}: {error.strerror or error}") from error
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    digest = (BLOCKS if blocks_of is _blocks else "") + digest
    return SourceIdentity(sum(sizes), max(mtimes), digest, source_folder(paths[0]))


def source_folder(path: Path) -> str:
    """The folder a file or folder of images lies in, links resolved."""
    return os.path.realpath(path.parent)


def _identify(path: Path, blocks_of: Callable[[int], list[tuple[int, int]]]) -> tuple[int, int, str]:
    """Size, modification time and digest of a file or of a folder of images."""
    if path.is_dir():
        return _identify_folder(path)
    digest, stat = hashlib.sha256(), path.stat()
    digest.update(str(stat.st_size).encode())
    if path.is_file():  # not a pipe or a device, which may never end
        with path.open("rb") as file:
            for start, length in blocks_of(stat.st_size):
                file.seek(start)
                digest.update(file.read(length))
    return stat.st_size, stat.st_mtime_ns, digest.hexdigest()


def _blocks(size: int) -> list[tuple[int, int]]:
    """The blocks (first byte, length) of a file that its digest covers."""
    if size <= WHOLE_BYTES:
        return [(0, size)]
    step = (size - 2 * END_BYTES) // INNER_BLOCKS
    inner = [(END_BYTES + k * step + (step - INNER_BYTES) // 2, INNER_BYTES) for k in range(INNER_BLOCKS)]
    return [(0, END_BYTES), *inner, (size - END_BYTES, END_BYTES)]


def _ends(size: int) -> list[tuple[int, int]]:
    """As `_blocks`, by the rule of earlier versions: the first and the last MiB."""
    return [(0, END_BYTES), (max(0, size - END_BYTES), END_BYTES)]


def _identify_folder(folder: Path) -> tuple[int, int, str]:
    digest = hashlib.sha256()
    for image in frame_files(folder):
        digest.update(os.fsencode(image.name) + b"\0" + hashlib.sha256(image.read_bytes()).digest())
    return *_measure(folder), digest.hexdigest()


def _measure(path: Path) -> tuple[int, int]:
    """Size and newest modification time of a file or of a folder of images, without reading any."""
    found = path.stat()
    if not S_ISDIR(found.st_mode):
        return found.st_size, found.st_mtime_ns
    images = [image.stat() for image in frame_files(path)]
    return sum(image.st_size for image in images), max((image.st_mtime_ns for image in images), default=0)


def source_changed(paths: tuple[Path, ...], known: SourceIdentity) -> bool:
    """Whether the files at ``paths`` differ from ``known``.

    A copy with a new date is the same. A source that no longer exists has not changed: its features stay valid.
    """
    try:
        sizes, mtimes = zip(*map(_measure, paths), strict=True)
        if sum(sizes) != known.size:
            return True
        if max(mtimes) == known.mtime_ns:
            return False
        return source_identity(*paths, like=known.digest).digest != known.digest
    except (OSError, RecordingError):
        return False
