"""Fetch known checkpoints into the folder of weights: with `download`, all that fetches.

An address is that of the table (`aupipe.extract.weights.known`), or below AUPIPE_MIRROR, where files have the names of
the table. What the folder holds and no file says of itself is in its ``aupipe-weights.json``: licences that were
accepted, and the sha256 of files of which the publisher states none, as they were at the first pull.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from aupipe.errors import BusyError, UsageError, WeightsMissingError
from aupipe.extract.weights import RefusedWeightsError, file_sha256, imported_name, is_pickle
from aupipe.extract.weights.download import Progress, download
from aupipe.extract.weights.folder import NOTES, import_weights, needed_folder, read_notes
from aupipe.extract.weights.known import KNOWN_WEIGHTS, KnownWeights
from aupipe.files import write_file
from aupipe.registry import nearest


def pull_weights(
    name: str,
    folder: Path | None = None,
    *,
    accept_license: bool = False,
    progress: Progress = lambda here, total: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Fetch a known checkpoint into the folder (AUPIPE_WEIGHTS unless given), and return the file that is read.

    A pickle is imported as `import_weights` does, and only what was imported is kept. A file that is there already is
    not fetched again; a pickle that was put there is checked, imported and kept.
    ``accept_license``: of files whose licence does not allow all uses; accepted once for a licence.
    ``progress``: called with the bytes that are here and those in all. ``tell``: lines about licence and digest.

    Raises UsageError for an unknown name and for a licence that was not accepted, WeightsMissingError with the way to
    get it for a file without an address or that cannot be fetched, RefusedWeightsError when what came is not the
    published file, or not what was pulled before, BusyError where another process fetches it.
    """
    known = KNOWN_WEIGHTS.get(name)
    if known is None:
        raise UsageError(f"no known weights {name!r}.{nearest(name, KNOWN_WEIGHTS)} `aupipe weights list` lists them")
    folder = needed_folder(folder)
    target, imported = folder / name, folder / imported_name(Path(name))
    there = imported if is_pickle(target) or imported.is_file() else target
    if there.is_file():
        tell(f"{name}: there already, {there}")
        return there
    is_here = target.is_file()
    if not is_here:
        url = address_of(name, known)
        _accept(folder, name, known, accept_license, tell)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(target, timeout_s=0):
            if is_here:  # put there by hand, or by a call that was killed before it had imported it
                tell(f"{name}: there already, {target}; it is imported")
                _check(name, known, target, str(target), read_notes(folder)["sha256"].get(name, ""))
                return import_weights(target, folder=folder)
            digest = _fetch(name, known, url, target, folder, progress)
            made = _imported(target, folder)
            if not known.sha256:
                tell(f"{name}: the publisher states no sha256; that of this first pull is kept in {NOTES}: {digest}")
                _note(folder, "sha256", name, digest)
            return made
    except Timeout:
        raise BusyError(f"{name}: another process fetches it: wait until it has ended") from None


def address_of(name: str, known: KnownWeights) -> str:
    """The address a file is fetched from. Raises WeightsMissingError, with the way to get it, where there is none."""
    mirror = os.environ.get("AUPIPE_MIRROR", "").rstrip("/")
    if mirror:
        return f"{mirror}/{urllib.parse.quote(name)}"
    if not known.url:
        raise WeightsMissingError(
            f"{name} has no address that a program can fetch: {known.how}; then `aupipe weights import FILE`"
        )
    return known.url


def has_address(known: KnownWeights) -> bool:
    """Whether a file can be fetched: `address_of` raises nothing."""
    return bool(known.url or os.environ.get("AUPIPE_MIRROR"))


def _accept(folder: Path, name: str, known: KnownWeights, accept: bool, tell: Callable[[str], None]) -> None:
    """Show the licence. Raises UsageError where it has to be accepted and was not."""
    is_free = bool(known.commercial) or known.licence in read_notes(folder)["accepted"]
    if not is_free and not accept:
        limits = "allows no commercial use" if known.commercial is False else "does not say what it allows"
        raise UsageError(f"{name}: its licence, {known.licence}, {limits}: --accept-license, once, if you keep to it")
    tell(f"{name}: licence {known.licence}")
    if not is_free:
        _note(folder, "accepted", known.licence, _today())


def _fetch(name: str, known: KnownWeights, url: str, target: Path, folder: Path, progress: Progress) -> str:
    """Fetch a file to ``target`` if it is the published one, out of an archive perhaps. Returns its sha256."""
    before = read_notes(folder)["sha256"].get(name, "")

    def check(path: Path) -> None:
        _check(name, known, path, url, before)

    if not url.endswith(".zip") or target.suffix == ".zip":
        download(url, target, check, progress)
        return file_sha256(target)
    archive = target.with_name(f".{url.rpartition('/')[2]}")
    download(url, archive, lambda path: _open_archive(path, name, url).close(), progress)
    try:
        part = target.with_name(f"{target.name}.part")
        with _open_archive(archive, name, url) as packed, open(part, "wb") as file:
            with packed.open(_member(packed, name)) as member:
                shutil.copyfileobj(member, file)
            file.flush()
            os.fsync(file.fileno())
        check(part)
        os.replace(part, target)
    finally:
        target.with_name(f"{target.name}.part").unlink(missing_ok=True)
        archive.unlink(missing_ok=True)
    return file_sha256(target)


def _open_archive(path: Path, name: str, url: str) -> zipfile.ZipFile:
    try:
        packed = zipfile.ZipFile(path)
        if _member(packed, name):
            return packed
        packed.close()
    except (zipfile.BadZipFile, OSError) as error:
        raise RefusedWeightsError(f"{url} gave no archive: {error}") from error
    raise RefusedWeightsError(f"{url}: the archive holds no {name}")


def _member(packed: zipfile.ZipFile, name: str) -> str:
    return next((entry for entry in packed.namelist() if entry.rpartition("/")[2] == name), "")


def _check(name: str, known: KnownWeights, path: Path, url: str, before: str) -> None:
    """Raise RefusedWeightsError unless a file is the published one, and the one whose sha256 was noted ``before``."""
    size, digest = path.stat().st_size, file_sha256(path)
    if known.size and size != known.size:
        raise RefusedWeightsError(f"{url} is not the published {name}: {size:,} bytes, expected {known.size:,}")
    if not digest.startswith(known.sha256):
        raise RefusedWeightsError(f"{url} is not the published {name}: sha256 {digest}, expected {known.sha256}")
    if before and digest != before:
        raise RefusedWeightsError(f"{url} is not what was pulled before as {name}: sha256 {digest}, then {before}")


def _imported(target: Path, folder: Path) -> Path:
    """The file that is read: of a pickle what is imported from it, which replaces it."""
    if not is_pickle(target):
        return target
    try:
        return import_weights(target, folder=folder)
    finally:  # what cannot be imported is of no use either
        target.unlink()


@contextmanager
def _locked(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Hold the lock of a file, ``<path>.lock``, and remove it. Raises Timeout where another process holds it so long.

    It is removed before it is released: a process that opened it before then gets no lock of a file that is gone, and
    opens a new one.
    """
    lock = Path(f"{path}.lock")
    with FileLock(lock, timeout=timeout_s):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _note(folder: Path, kind: str, key: str, value: str) -> None:
    with _locked(folder / NOTES):
        notes = read_notes(folder)
        notes[kind][key] = value
        write_file(folder / NOTES, json.dumps(notes, indent=1, sort_keys=True), overwrite=True)


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
