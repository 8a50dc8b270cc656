"""The compacted catalogue: what the journals said up to some byte of each, in columns that load in milliseconds.

``catalogue/base-<n>-<crc32c of the file>.npz``, made whole and renamed into place. It is a cache: the journals stay,
and a store without it, or with a damaged one, opens all the same, only slower.
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
from aupipe.store.log.journal import Line, bare_record
from aupipe.store.protocol import ItemState
from aupipe.types import SourceIdentity

NAME = re.compile(r"base-(\d{8})-([0-9a-f]{8})\.npz")
STATES: tuple[Literal["done", "failed", "deleted"], ...] = ("done", "failed", "deleted")
_ZIP_HEAD, _ZIP_PADDING = 30, 0xD935  # bytes before a member's name; the id `zipalign` pads with
_NPY_HEAD = 4096  # far more than the head of one column
_NUMBERS = {"frames": "Q", "valid_frames": "Q", "nbytes": "Q", "offset": "I", "crc32c": "I", "rest_crc32c": "I"}
_TEXTS = ("feature", "dtype", "video_id", "reason", "damage")
_KINDS = {
    **_NUMBERS,
    **dict.fromkeys(_TEXTS, "I"),
    "recording": "I",
    "state": "B",
    "seq": "q",
    "journal": "I",
    "edition": "I",
    "source": "i",
    "shape": "I",
    "versions": "I",
    "media": "I",
    "seconds": "d",
}
_LATER = {"damage": "", "media": "{}"}  # columns that older bases lack, with the text they hold then


class _Table:
    """Distinct values, numbered in the order they come."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


def write_snapshot(folder: str, staged: str, lines: Iterable[Line], consumed: Mapping[str, int], number: int) -> str:
    """Write base ``number`` by way of ``staged``. ``lines`` come by feature and recording. Returns its path."""
    texts, recordings, sources = _Table(), _Table(), _Table()
    columns = {name: array(kind) for name, kind in _KINDS.items()}
    times = []
    for (seq, journal), record in lines:
        source = record.source
        row: dict[str, Any] = {name: getattr(record, name) for name in (*_NUMBERS, "seconds")}
        row |= {name: texts.number(getattr(record, name)) for name in _TEXTS}
        row |= {"seq": seq, "journal": texts.number(journal), "state": STATES.index(record.state)}
        row["recording"] = recordings.number(record.recording)
        row["edition"] = int(record.edition or "0", 16)
        row["source"] = sources.number((*source[:3], texts.number(source.folder))) if source else -1
        row["shape"] = texts.number(json.dumps(record.shape))
        row["versions"] = texts.number(json.dumps(dict(record.versions)))
        row["media"] = texts.number(json.dumps(dict(record.media)))
        for name, value in row.items():
            columns[name].append(value)
        times.append(record.time_utc.encode())
    arrays: dict[str, Any] = {name: np.frombuffer(column, column.typecode) for name, column in columns.items()}
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
    """What `np.savez` writes, but each array begins at a multiple of 64 bytes and can be used where it lies."""
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
    """The arrays of an uncompressed npz where they lie, or copies of those that do not lie at a multiple of their size.

    `np.load` would copy them all and checksum them, which the whole file has been already.
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
    """Every base there is, newest first."""
    try:
        names = [name for name in os.listdir(folder) if NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    return [os.path.join(folder, name) for name in sorted(names, reverse=True)]


def is_sound(path: str) -> bool:
    """Is the file what its name says? One that a newer base has just replaced is nothing to complain of."""
    try:
        with open(path, "rb") as file:
            return _is_named(path, file.read())
    except FileNotFoundError:
        return True


def _is_named(path: str, content: bytes) -> bool:
    match = NAME.fullmatch(os.path.basename(path))
    return match is not None and int(match[2], 16) == google_crc32c.value(content)


class Snapshot:
    """A loaded base. Records are made when they are asked for: 400,000 of them at once would be slow and large."""

    def __init__(self, path: str) -> None:
        """Load a base. Raises DamageError when it is not what was written."""
        with open(path, "rb") as file:
            content = file.read()
        if not _is_named(path, content):
            raise DamageError(f"{path} is damaged: `aupipe store verify --repair`")
        self._columns = read_arrays(content)
        about = json.loads(self._columns.pop("about").tobytes())
        self.consumed: dict[str, int] = about["consumed"]
        self.texts: list[str] = about["texts"]
        self.recordings: list[str] = about["recordings"]
        for name, text in _LATER.items():
            if name not in self._columns:
                self.texts.append(text)
                self._columns[name] = np.full(len(self._columns["seq"]), len(self.texts) - 1, np.uint32)
        # a memoryview hands out Python numbers, and three times faster than an array hands out its own
        self._cells = {name: memoryview(cast(Any, self._columns[name])) for name in _KINDS}
        self._states: dict[int, list[ItemState]] = {}
        self._parsed: dict[int, Any] = {}
        self.last_seq = int(self._columns["seq"].max(initial=0))
        self._features: dict[str, NDArray[np.int64]] = {}
        # rows of one feature lie together, and in them rows of one item: feature -> (recording's number -> first row)
        features = self._columns["feature"].astype(np.int64)
        edges = np.flatnonzero(np.diff(features, prepend=-1, append=-1))
        for start, stop in itertools.pairwise(edges.tolist()):
            first = np.full(len(self.recordings), -1, np.int64)
            numbers = self._columns["recording"][start:stop]
            first[numbers[::-1]] = np.arange(stop - 1, start - 1, -1)  # of several rows the first is assigned last
            self._features[self.texts[features[start]]] = first

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.recordings)}

    @property
    def features(self) -> list[str]:
        return list(self._features)

    @property
    def damaged(self) -> list[tuple[str, str]]:
        """(recording, feature) of every line that tells of damaged media."""
        numbers = [number for number, text in enumerate(self.texts) if not text]
        rows = np.flatnonzero(~np.isin(self._columns["damage"], numbers)).tolist()
        recording, feature = self._cells["recording"], self._cells["feature"]
        return [(self.recordings[recording[row]], self.texts[feature[row]]) for row in rows]

    def lines(self, recording: str, feature: str) -> list[Line]:
        """What the journals said of an item: its newest line, and the publication and deletion that count."""
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
        """The recordings that something was said of for this feature."""
        first = self._features.get(feature)
        return [] if first is None else [self.recordings[number] for number in np.flatnonzero(first >= 0).tolist()]

    def states(self, features: Sequence[str]) -> dict[str, tuple[ItemState | None, ...]]:
        """The newest state and source of every item of some features, by recording."""
        nowhere = np.full(len(self.recordings), -1, np.int64)
        rows = [self._features.get(feature, nowhere) for feature in features]  # the newest line of an item comes first
        if not rows:
            return {}
        anything = np.any([first >= 0 for first in rows], axis=0)
        columns = zip(*(self._column(first) for first in rows), strict=True)
        return dict(itertools.compress(zip(self.recordings, columns, strict=True), anything.tolist()))

    def _column(self, rows: NDArray[np.int64]) -> Iterable[ItemState | None]:
        """State and source at each row, None at -1."""
        states, sources = self._columns["state"][rows], self._columns["source"][rows]
        table: list[ItemState | None] = [None]
        starts = np.zeros(len(STATES), np.int64)
        for state in np.unique(states).tolist():
            starts[state] = len(table)
            table += self._states_of(state)
        places = starts[states] + np.where(sources < 0, len(self._sources) - 1, sources)
        places[rows < 0] = 0
        return map(table.__getitem__, places.tolist())

    def _states_of(self, state: int) -> list[ItemState]:
        """A state with each source there is, and with none as the last: one object for all features of a file."""
        if state not in self._states:
            self._states[state] = list(map(ItemState, itertools.repeat(STATES[state]), self._sources))
        return self._states[state]

    @cached_property
    def _folders(self) -> list[str]:
        """The folder of each source; a base of an earlier aupipe knows none."""
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
        content["edition"] = f"{cells['edition'][row]:08x}" if state == "done" else ""
        content["source"] = self._source(cells["source"][row])
        content["shape"] = self._json(cells["shape"][row])
        content["versions"] = self._json(cells["versions"][row])
        content["media"] = self._json(cells["media"][row])
        content["time_utc"] = self._columns["time_utc"][row].decode()
        return Line((cells["seq"][row], texts[cells["journal"][row]]), bare_record(content))
