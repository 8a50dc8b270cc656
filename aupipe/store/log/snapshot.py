"""Snapshots of the index: the lines of all journals up to some byte of each, in columns that load in milliseconds.

The files are ``catalogue/base-<n>-<crc32c of the file>.npz``, written to a temporary path and renamed. A snapshot is a
cache: the journals stay, and a store with no snapshot, or with a damaged one, opens too, only slower.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import struct
import zipfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, cast

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from aupipe.errors import DamageError
from aupipe.store import fs
from aupipe.store.log.journal import Line
from aupipe.store.record_json import KEYS, bare_record
from aupipe.store.records import ItemState
from aupipe.types import SourceIdentity

NAME = re.compile(r"base-(\d{8})-([0-9a-f]{8})\.npz")
STATES: tuple[Literal["done", "failed", "deleted"], ...] = ("done", "failed", "deleted")
_ZIP_HEAD, _ZIP_PADDING = 30, 0xD935  # bytes before a member's name; the id `zipalign` pads with
_NPY_HEAD = 4096  # far more than the head of one column
_NUMBERS = {"frames": "Q", "valid_frames": "Q", "nbytes": "Q", "offset": "I", "crc32c": "I", "metadata_crc32c": "I"}
_TEXTS = ("feature", "dtype", "video_id", "reason", "damage")
_KINDS = {
    **_NUMBERS,
    **dict.fromkeys(_TEXTS, "I"),
    "recording": "I",
    "state": "B",
    "seq": "q",
    "journal": "I",
    "revision": "I",
    "source": "i",
    "shape": "I",
    "versions": "I",
    "media": "I",
    "seconds": "d",
}
_ADDED = {"damage": "", "media": "{}"}  # columns that snapshots of an earlier aupipe lack: their value there


class _Numbering:
    """Distinct values, numbered in the order in which they are first given."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


def write_snapshot(folder: str, staged: str, lines: Iterable[Line], consumed: Mapping[str, int], number: int) -> str:
    """Write snapshot ``number`` to ``staged`` and rename it into ``folder``. Returns its path.

    ``lines`` are sorted by feature and recording, those of one item from new to old; ``consumed`` is how many bytes of
    each journal they come from.
    """
    texts, recordings, sources = _Numbering(), _Numbering(), _Numbering()
    columns = {name: array(kind) for name, kind in _KINDS.items()}
    times = []
    for (seq, journal), record in lines:
        source = record.source
        row: dict[str, Any] = {name: getattr(record, name) for name in (*_NUMBERS, "seconds")}
        row |= {name: texts.number(getattr(record, name)) for name in _TEXTS}
        row |= {"seq": seq, "journal": texts.number(journal), "state": STATES.index(record.state)}
        row["recording"] = recordings.number(record.recording)
        row["revision"] = int(record.revision or "0", 16)
        row["source"] = sources.number((*source[:3], texts.number(source.folder))) if source else -1
        row["shape"] = texts.number(json.dumps(record.shape))
        row["versions"] = texts.number(json.dumps(dict(record.versions)))
        row["media"] = texts.number(json.dumps(dict(record.media)))
        for name, value in row.items():
            columns[name].append(value)
        times.append(record.time_utc.encode())
    arrays: dict[str, Any] = {
        KEYS.get(name, name): np.frombuffer(column, column.typecode) for name, column in columns.items()
    }
    sizes, stamps, digests, folders = zip(*sources.numbers, strict=True) if sources.numbers else ((), (), (), ())
    arrays |= {"size": np.array(sizes, "i8"), "mtime_ns": np.array(stamps, "i8"), "time_utc": np.array(times, "S")}
    arrays["digest"] = np.array([digest.encode() for digest in digests], "S")
    arrays["folder"] = np.array(folders, "i8")
    about = {"texts": list(texts.numbers), "recordings": list(recordings.numbers), "consumed": dict(consumed)}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    content = _npz(arrays)
    path = os.path.join(folder, f"base-{number:08d}-{google_crc32c.value(content):08x}.npz")
    fs.write_file(staged, [content])
    fs.make_folders(folder)
    fs.rename(staged, path)
    return path


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file that `np.savez` writes, but with each array at a multiple of 64 bytes, so that it needs no copy."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member, text = zipfile.ZipInfo(f"{name}.npy"), io.BytesIO()
            np.lib.format.write_array(text, array, version=(1, 0), allow_pickle=False)
            padding = -(buffer.tell() + _ZIP_HEAD + len(member.filename) + 4) % 64
            member.extra = struct.pack("<HH", _ZIP_PADDING, padding) + bytes(padding)
            archive.writestr(member, text.getvalue())
    return buffer.getvalue()


def read_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an uncompressed npz: views of ``content``, and copies of those that are not aligned in it.

    `np.load` would copy all of them and compute their checksums, after that of the whole file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
    found = {}
    for member in members:
        start = member.header_offset + _ZIP_HEAD
        start += sum(struct.unpack_from("<HH", content, start - 4))  # the lengths of its name and its padding
        head = io.BytesIO(content[start : start + _NPY_HEAD])
        np.lib.format.read_magic(head)
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
        array: NDArray[Any] = np.ndarray(shape, dtype, content, start + head.tell())
        found[member.filename.removesuffix(".npy")] = np.require(array, requirements="A")
    return found


def snapshot_paths(folder: str) -> list[str]:
    """The paths of all snapshots, newest first."""
    try:
        names = [name for name in os.listdir(folder) if NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in sorted(names, reverse=True)]


def is_intact(path: str) -> bool:
    """Whether a snapshot has the checksum in its name; also when it was removed meanwhile, for a newer one."""
    try:
        with open(path, "rb") as file:
            return _matches_name(path, file.read())
    except FileNotFoundError:
        return True


def _matches_name(path: str, content: bytes) -> bool:
    match = NAME.fullmatch(os.path.basename(path))
    return match is not None and int(match[2], 16) == google_crc32c.value(content)


class Snapshot:
    """A loaded snapshot. Records are made when asked for: 400,000 of them at once would take time and memory."""

    def __init__(self, path: str) -> None:
        """Load a snapshot. Raises DamageError when it is not what was written."""
        with open(path, "rb") as file:
            content = file.read()
        if not _matches_name(path, content):
            raise DamageError(f"{path} is damaged: `aupipe store verify --repair`")
        self._columns = read_arrays(content)
        for name, key in KEYS.items():
            self._columns[name] = self._columns.pop(key)
        about = json.loads(self._columns.pop("about").tobytes())
        self.consumed: dict[str, int] = about["consumed"]
        self.texts: list[str] = about["texts"]
        self.recordings: list[str] = about["recordings"]
        for name, text in _ADDED.items():
            if name not in self._columns:
                self.texts.append(text)
                self._columns[name] = np.full(len(self._columns["seq"]), len(self.texts) - 1, np.uint32)
        # an element of a memoryview is a Python number, made three times faster than numpy makes its scalars
        self._cells = {name: memoryview(cast(Any, self._columns[name])) for name in _KINDS}
        self._states: dict[int, list[ItemState]] = {}
        self._parsed: dict[int, Any] = {}
        self.last_seq = int(self._columns["seq"].max(initial=0))
        self._features: dict[str, NDArray[np.int64]] = {}
        # rows are sorted by feature and item: feature -> the first row of each recording, by the recording's number
        features = self._columns["feature"].astype(np.int64)
        edges = np.flatnonzero(np.diff(features, prepend=-1, append=-1))
        for start, stop in itertools.pairwise(edges.tolist()):
            first = np.full(len(self.recordings), -1, np.int64)
            numbers = self._columns["recording"][start:stop]
            first[numbers[::-1]] = np.arange(stop - 1, start - 1, -1)  # an item's first row is assigned last
            self._features[self.texts[features[start]]] = first

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.recordings)}

    @property
    def features(self) -> list[str]:
        return list(self._features)

    @property
    def damaged(self) -> list[tuple[str, str]]:
        """(recording, feature) of every line with damaged media."""
        numbers = [number for number, text in enumerate(self.texts) if not text]
        rows = np.flatnonzero(~np.isin(self._columns["damage"], numbers)).tolist()
        recording, feature = self._cells["recording"], self._cells["feature"]
        return [(self.recordings[recording[row]], self.texts[feature[row]]) for row in rows]

    def lines(self, recording: str, feature: str) -> list[Line]:
        """The lines of an item: the newest, the last publication and the last deletion, the newest first."""
        first = self._features.get(feature)
        number = self._numbers.get(recording)
        if first is None or number is None or first[number] < 0:
            return []
        row = int(first[number])
        found = [self._line(row, recording, feature)]
        column, kind = self._cells["recording"], self._cells["feature"]
        while (row := row + 1) < len(column) and column[row] == number and kind[row] == kind[row - 1]:
            found.append(self._line(row, recording, feature))
        return found

    def recordings_of(self, feature: str) -> list[str]:
        """The recordings that have a line for this feature."""
        first = self._features.get(feature)
        return [] if first is None else [self.recordings[number] for number in np.flatnonzero(first >= 0).tolist()]

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """The newest state and source of every item of some features, by recording."""
        absent = np.full(len(self.recordings), -1, np.int64)
        rows = [self._features.get(feature, absent) for feature in features]  # the first row is the newest line
        if not rows:
            return {}
        known = np.any([first >= 0 for first in rows], axis=0)
        columns = zip(*(self._column(first) for first in rows), strict=True)
        return dict(itertools.compress(zip(self.recordings, columns, strict=True), known.tolist()))

    def _column(self, rows: NDArray[np.int64]) -> Iterable[ItemState | None]:
        """State and source at each row, None at -1."""
        states, sources = self._columns["state"][rows], self._columns["source"][rows]
        table: list[ItemState | None] = [None]
        starts = np.zeros(len(STATES), np.int64)
        for state in np.unique(states).tolist():
            starts[state] = len(table)
            table += self._states_of(state)
        entries = starts[states] + np.where(sources < 0, len(self._sources) - 1, sources)
        entries[rows < 0] = 0
        return map(table.__getitem__, entries.tolist())

    def _states_of(self, state: int) -> list[ItemState]:
        """A state with each source, and with none as the last: one object for all features of a file."""
        if state not in self._states:
            self._states[state] = list(map(ItemState, itertools.repeat(STATES[state]), self._sources))
        return self._states[state]

    @cached_property
    def _folders(self) -> list[str]:
        """The folder of each source; a snapshot of an earlier aupipe has none."""
        numbers = self._columns.get("folder")
        count = len(self._columns["size"])
        return [""] * count if numbers is None else [self.texts[number] for number in numbers.tolist()]

    @cached_property
    def _sources(self) -> list[SourceIdentity | None]:
        sizes, stamps, digests = (self._columns[name].tolist() for name in ("size", "mtime_ns", "digest"))
        return [*map(SourceIdentity, sizes, stamps, map(bytes.decode, digests), self._folders), None]

    def _source(self, number: int) -> SourceIdentity | None:
        if number < 0:
            return None
        columns = self._columns
        digest = columns["digest"][number].decode()
        return SourceIdentity(
            int(columns["size"][number]), int(columns["mtime_ns"][number]), digest, self._folders[number]
        )

    def _json(self, number: int) -> Any:
        if number not in self._parsed:
            value = json.loads(self.texts[number])
            self._parsed[number] = tuple(value) if isinstance(value, list) else value
        return self._parsed[number]

    def _line(self, row: int, recording: str, feature: str) -> Line:
        cells, texts = self._cells, self.texts
        content: dict[str, Any] = {name: cells[name][row] for name in (*_NUMBERS, "seconds")}
        for name in _TEXTS:
            content[name] = texts[cells[name][row]]
        content["recording"], content["feature"] = recording, feature
        content["state"] = state = STATES[cells["state"][row]]
        content["revision"] = f"{cells['revision'][row]:08x}" if state == "done" else ""
        content["source"] = self._source(cells["source"][row])
        content["shape"] = self._json(cells["shape"][row])
        content["versions"] = self._json(cells["versions"][row])
        content["media"] = self._json(cells["media"][row])
        content["time_utc"] = self._columns["time_utc"][row].decode()
        return Line((cells["seq"][row], texts[cells["journal"][row]]), bare_record(content))
