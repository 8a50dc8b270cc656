"""A data set: its recordings and their annotations, and several data sets as one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from aupipe.annotations import read_annotation
from aupipe.errors import UsageError
from aupipe.file_kinds import VIDEO_SUFFIXES
from aupipe.registry import nearest
from aupipe.tasks import OFFICIAL, Task, join_tasks
from aupipe.types import Labels, Recording


@dataclass(frozen=True)
class Dataset:
    """The recordings of a data set, and their annotations: task -> track -> (split, file).

    A track is the id of a recording, or its name in annotation files (`label_name`).
    ``read``: the labels of a file, for a task and a recording.
    """

    recordings: tuple[Recording, ...]
    annotations: Mapping[str, Mapping[str, tuple[str, Path]]] = field(default_factory=dict)
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=lambda: OFFICIAL)  # the label sets of its annotations, by name
    read: Callable[[Path, Task, Recording], Labels] = lambda path, task, _: read_annotation(path, task)
    ignored: tuple[Path, ...] = ()  # files in the folder that are neither videos nor written by aupipe

    def task(self, name: str) -> Task:
        """The label set of this name. Raises UsageError where the data set has none, with the nearest known one."""
        if name not in self.tasks:
            known = ", ".join(self.tasks)
            raise UsageError(f"unknown task {name!r}.{nearest(name, self.tasks)} This data set has {known}")
        return self.tasks[name]

    def split(self, task: str, name: str) -> list[Recording]:
        """The recordings of ``train``, ``validation`` or ``test``. In Aff-Wild2 the splits differ by task."""
        if name == "test" and task in self.tests:
            wanted = set(self.tests[task])
        else:
            wanted = {track for track, (split, _) in self.annotations.get(task, {}).items() if split == name}
        return [
            recording for recording in self.recordings if not wanted.isdisjoint((recording.id, label_name(recording)))
        ]

    def labels(self, recording: Recording, task: str) -> Labels | None:
        """The annotations of one recording, or None.

        Raises UsageError where the annotated name fits two recordings.
        """
        name = label_name(recording)
        tracks = self.annotations.get(task, {})
        if recording.id in tracks:
            return self.read(tracks[recording.id][1], self.task(task), recording)
        entry = tracks.get(name)
        if entry and len(self._named[name]) > 1:
            raise UsageError(f"{entry[1]} fits {' and '.join(self._named[name])}: remove one of them")
        return self.read(entry[1], self.task(task), recording) if entry else None

    def labels_of(self, recordings: Iterable[Recording], task: str) -> dict[str, Labels]:
        """Recording id -> labels; recordings without annotations are left out."""
        found = {recording.id: self.labels(recording, task) for recording in recordings}
        return {name: labels for name, labels in found.items() if labels is not None}

    @cached_property
    def _named(self) -> dict[str, list[str]]:
        """Name in annotation files -> ids of the recordings it fits."""
        found: dict[str, list[str]] = {}
        for recording in self.recordings:
            found.setdefault(label_name(recording), []).append(recording.id)
        return found

    def within(self, names: Iterable[str]) -> Dataset:
        """The data set with only what ``names`` says: ids of recordings or videos, files, and folders of them.

        Raises UsageError for a name that is nothing of this data set.
        """
        by_name: dict[str, list[Recording]] = {}
        for one in self.recordings:
            paths = {as_written for path in (one.video, one.images) if path for as_written in _spellings(path)}
            for name in {one.id, one.video_id, *paths}:
                by_name.setdefault(name, []).append(one)
        by_id = {one.id for one in self.recordings}
        chosen: dict[str, Recording] = {}
        folders = []
        for name in names:
            found = next((by_name[each] for each in (name, *_spellings(Path(name))) if each in by_name), None)
            if found is None and (folder := Path(name)).is_dir():
                folders.append(folder)
                found = [r for r in self.recordings if any(p and is_inside(p, folder) for p in (r.video, r.images))]
            if not found:
                if Path(name).is_dir():
                    raise UsageError(f"no recording of this data set is in {name}: check [dataset]")
                missing = "" if Path(name).exists() else ", nor is there such a file"
                hint = nearest_recording(name, by_id)
                raise UsageError(f"no recording of this data set is {name}{missing}.{hint}")
            chosen |= {one.id: one for one in found}
        ignored = tuple(path for path in self.ignored if any(is_inside(path, folder) for folder in folders))
        return replace(self, recordings=tuple(one for one in self.recordings if one.id in chosen), ignored=ignored)

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """Column -> the values that recordings have in it."""
        found: dict[str, set[str]] = {}
        for column, value in (pair for recording in self.recordings for pair in recording.columns):
            found.setdefault(column, set()).add(value)
        return {column: sorted(values) for column, values in found.items()}

    def check_values(self, column: str, values: Iterable[str]) -> None:
        """Raise UsageError for a column that no recording has a value in, and for a value that no recording has."""
        if column not in self.columns:
            remedy = f"It has {', '.join(self.columns)}" if self.columns else "Name a CSV file: [dataset] columns"
            raise UsageError(f"no column {column!r} in this data set.{nearest(column, self.columns)} {remedy}")
        known = self.columns[column]
        if unknown := next((value for value in values if value not in known), None):
            raise UsageError(
                f"no recording has {column} = {unknown!r}.{nearest(unknown, known)} Values: {', '.join(known)}"
            )

    def where(
        self, recordings: Sequence[Recording], conditions: Iterable[str]
    ) -> tuple[list[Recording], dict[str, list[Recording]]]:
        """Those of ``recordings`` that fulfil every condition ``column=value``, or ``column=value,value`` for either.

        Also column -> the recordings that were left out because they have no value in it. Raises UsageError for text of
        another form, and as `check_values` does.
        """
        kept, without = list(recordings), dict[str, list[Recording]]()
        for condition in conditions:
            column, equals, text = (part.strip() for part in condition.partition("="))
            values = [value.strip() for value in text.split(",")]
            if not (column and equals and all(values)):
                raise UsageError(f"--where {condition}: expected COLUMN=VALUE, such as scene=reaction")
            self.check_values(column, values)
            if blank := [r for r in kept if not r.value(column)]:
                without[column] = blank
            kept = [r for r in kept if r.value(column) in values]
        return kept, without

    def select(self, ids: Iterable[str]) -> list[Recording]:
        """The recordings of these ids, videos or folders of images, in this order, each once.

        Raises UsageError for what is neither.
        """
        by_id = {recording.id: recording for recording in self.recordings}
        chosen: dict[str, Recording] = {}
        for name in ids:
            found = [by_id[name]] if name in by_id else self._of_file(name)
            if not found:
                raise UsageError(f"no recording {name!r} in this dataset.{nearest_recording(name, by_id)}")
            chosen |= {one.id: one for one in found}
        return list(chosen.values())

    def _of_file(self, name: str) -> list[Recording]:
        """The recordings of a video, or of a folder of images."""
        wanted = {*_spellings(Path(name))}
        return [r for r in self.recordings if any(p and wanted & {*_spellings(p)} for p in (r.video, r.images))]


def label_name(recording: Recording) -> str:
    """The name of a recording in annotation and submission files: its id without the suffix of a video file."""
    path = Path(recording.id)
    is_file_name = recording.video is not None and recording.video.name == path.name  # whatever its suffix
    return str(path.with_suffix("")) if is_file_name or path.suffix.lower() in VIDEO_SUFFIXES else recording.id


def divide(recordings: Sequence[Recording], held_out: Sequence[str], known: Sequence[Recording] = ()) -> dict[str, str]:
    """Recording id -> train or validation: the groups ``held_out``, or every third one, are for validation.

    Raises UsageError for one of ``held_out`` that is no group of these recordings, nor of ``known``.
    """
    groups = sorted({recording.group for recording in recordings})
    named = {*groups, *(recording.group for recording in known)}
    if unknown := sorted(set(held_out) - named):
        raise UsageError(f"[dataset] validation: no subject or recording {unknown[0]!r}.{nearest(unknown[0], named)}")
    chosen = set(held_out or groups[2::3])
    return {r.id: "validation" if r.group in chosen else "train" for r in recordings}


def _spellings(path: Path) -> tuple[str, str]:
    """A path as written, and with links resolved."""
    return os.path.abspath(path), os.path.realpath(path)


def nearest_recording(name: str, known: Iterable[str]) -> str:
    """As `nearest`, but a recording of another person or video is not offered: numbers and sides are the same."""

    def identity(text: str) -> list[str]:
        stem = str(Path(text).with_suffix("")) if Path(text).suffix.lower() in VIDEO_SUFFIXES else text
        return re.findall(r"\d+|_left\b|_right\b", stem)

    return nearest(name, [other for other in known if identity(other) == identity(name)])


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is inside a folder, as written or with links resolved."""
    as_written = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    return as_written or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def join_datasets(parts: Mapping[str, Dataset]) -> Dataset:
    """Several data sets as one: the recording ``id`` of the part ``name`` is ``name/id``.

    A task has the names of all parts that have it (`aupipe.tasks.join_tasks`); what a part does not annotate is
    invalid. Groups, and so folds, stay inside their part.
    """
    recordings = {f"{name}/{r.id}": (part, r) for name, part in parts.items() for r in part.recordings}
    annotations: dict[str, dict[str, tuple[str, Path]]] = {}
    tests: dict[str, tuple[str, ...]] = {}
    tasks: dict[str, list[Task]] = {}
    for name, part in parts.items():
        for task, tracks in part.annotations.items():
            if tracks:
                tasks.setdefault(task, []).append(part.task(task))
            annotations.setdefault(task, {}).update({f"{name}/{track}": entry for track, entry in tracks.items()})
        for task, tracks_of_test in part.tests.items():
            tests[task] = tests.get(task, ()) + tuple(f"{name}/{track}" for track in tracks_of_test)

    def read(path: Path, task: Task, recording: Recording) -> Labels:
        part, own = recordings[recording.id]
        return widen(part.read(path, part.task(task.name), own), task)

    joined = tuple(
        replace(r, id=id_, video_id=f"{_name(id_)}/{r.video_id}", group=f"{_name(id_)}/{r.group}")
        for id_, (_, r) in recordings.items()
    )
    ignored = tuple(path for part in parts.values() for path in part.ignored)
    joint = {name: join_tasks(each) for name, each in tasks.items()}
    return Dataset(joined, annotations, tests, joint, read, ignored)


def _name(joined_id: str) -> str:
    """The part of a joined id."""
    return joined_id.partition("/")[0]


def widen(labels: Labels, task: Task) -> Labels:
    """``labels`` with the columns of ``task``, by name; columns that they do not have are invalid."""
    import numpy as np

    if labels.task.kind == "classes" or labels.names == task.names:
        return replace(labels, task=task, names=task.names)
    shape = (len(labels), len(task.names))
    targets, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
    columns = [task.names.index(name) for name in labels.names]
    targets[:, columns], valid[:, columns] = labels.targets, labels.valid
    return Labels(task, task.names, targets, valid)
