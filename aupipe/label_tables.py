"""Label sets with one table for all recordings: its rows as the labels of a recording, frame by frame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupipe.dataset_model import Dataset, divide, label_name, nearest_recording
from aupipe.errors import UsageError
from aupipe.quantities import counted, first_of
from aupipe.task_tables import LabelSource
from aupipe.tasks import Task
from aupipe.types import Labels, Recording

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aupipe.label_rows import LabelFile, LabelRows

log = logging.getLogger(__name__)

Clock = Callable[[Recording], "NDArray[np.float64] | None"]  # (T,) times of the frames in s; None: not known
SHOWN = 3  # unknown recordings
MILLISECONDS = "the times look like milliseconds; time_s is in seconds"
LEAST_MS, MOST_MS = 300, 1500  # more than numbers of frames, at up to 300 a second; labels may end earlier, or later
MOST_FRAMES = 10_000_000  # of a recording whose frames are not counted: 46 hours at 60 frames a second


def no_clock(recording: Recording) -> None:
    """Of no recording are the times of its frames known."""


def part_clock(name: str, clock: Clock) -> Clock:
    """``clock`` for the data set ``name`` of a joint one: there its recordings have other names."""
    return lambda one: clock(replace(one, id=f"{name}/{one.id}", video_id=f"{name}/{one.video_id}"))


def add_label_tables(
    dataset: Dataset, tasks: Sequence[tuple[Task, LabelSource]], held_out: Sequence[str], clock: Clock
) -> Dataset:
    """The data set with the label sets that have a file for all recordings. A file is read when it is first asked for.

    ``held_out``: groups of the validation split, where a file has no column of splits; () for every third one.
    """
    tables = {
        task.name: LabelTable(task, source, source.file, dataset.recordings, tuple(held_out), clock)
        for task, source in tasks
        if source.file is not None
    }
    if not tables:
        return dataset

    def read(path: Path, task: Task, recording: Recording) -> Labels:
        table = tables.get(task.name)
        return dataset.read(path, task, recording) if table is None else table.labels(recording)

    annotations = {**dataset.annotations, **{name: _Tracks(table) for name, table in tables.items()}}
    own = {name: table.task for name, table in tables.items()}
    return replace(dataset, annotations=annotations, tasks={**dataset.tasks, **own}, read=read)


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The labels of a task in one file. Raises UsageError, naming file and line, where it holds none of it."""

    task: Task
    source: LabelSource
    file: Path
    recordings: tuple[Recording, ...]
    held_out: tuple[str, ...]
    clock: Clock

    @cached_property
    def tracks(self) -> dict[str, tuple[str, Path]]:
        """Id of a recording -> its split, and the file."""
        found = [recording for recording in self.recordings if recording.id in self._rows]
        splits = {self._ids[name]: split for name, split in self._content.splits.items() if name in self._ids}
        splits = splits or divide(found, self.held_out, self.recordings)
        return {one.id: (splits[one.id], self.file) for one in found}

    def labels(self, recording: Recording) -> Labels:
        """The labels of an annotated recording: a row for each of its frames, as far as they are known."""
        import numpy as np

        rows, times = self._rows[recording.id], self.clock(recording)
        if self._content.timed:
            at = self._nearest_rows(rows, times, recording.id)  # (T,)
            valid = rows.valid[at] & (at >= 0)[:, None]
            return Labels(self.task, self.task.names, np.where(valid, rows.targets[at], np.float32(0)), valid)
        if times is None and rows.at[-1] > MOST_FRAMES:
            most = f"frame is {rows.at[-1]:.0f}: a recording has at most {MOST_FRAMES}"
            raise UsageError(f"{self.file}, line {rows.lines[-1]}: {most}")
        frames = int(rows.at[-1]) if times is None else len(times)
        within = int(np.searchsorted(rows.at, frames, side="right"))
        self._compare_times(rows, within, times, recording.id)
        self._warn(rows, slice(within, None), recording.id, f"for frames after its last, {frames}")
        shape = (frames, self.task.columns)
        targets, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
        at = rows.at[:within].astype(np.int64) - 1
        targets[at], valid[at] = rows.targets[:within], rows.valid[:within]
        return Labels(self.task, self.task.names, targets, valid)

    def _compare_times(self, rows: LabelRows, within: int, times: NDArray[np.float64] | None, name: str) -> None:
        """Raise UsageError where a row has a frame, and a time that is not that of the frame.

        ``within``: how many rows have a frame of the recording; ``times``: those of its frames, if known.
        """
        import numpy as np

        stated = ~np.isnan(rows.times[:within])
        if not stated.any():
            return
        if times is None:
            why = "and not compared with their times, as those of its frames are not stored (`aupipe extract`)"
            several = f"{counted(int(stated.sum()), 'row')} of {name} taken by frame"
            log.warning("%s: %s, %s", self.file, several, why)
            return
        at = times[rows.at[:within].astype(np.int64) - 1]
        most = max(_half_frame(times), self.source.tolerance_s or 0)
        far = stated & ~(abs(rows.times[:within] - at) <= most)
        if far.any():
            k = int(far.argmax())
            hint = MILLISECONDS if _are_milliseconds(rows.times[:within], at) else "frames are counted from 1"
            frame = f"frame {rows.at[k]:.0f} of {name} is at {at[k]:.3f} s"
            raise UsageError(
                f"{self.file}, line {rows.lines[k]}: {frame}, and the time of the row is {rows.times[k]:.3f}: leave "
                f"out the column that is wrong; {hint}"
            )

    def _nearest_rows(self, rows: LabelRows, times: NDArray[np.float64] | None, name: str) -> NDArray[np.int64]:
        """(T,) the row nearest in time to each frame, the earlier of two; -1 where none is near enough."""
        import numpy as np

        if times is None or not len(times):
            self._warn(rows, slice(None), name, "as the times of its frames are not stored (`aupipe extract`)")
            return np.zeros(0, np.int64)
        half = _half_frame(times)
        most = half if self.source.tolerance_s is None else self.source.tolerance_s
        beyond = max(most, half)
        outside = (rows.at < times[0] - beyond) | (rows.at > times[-1] + beyond)
        hint = f" ({MILLISECONDS})" if _are_milliseconds(rows.at, times) else ""
        self._warn(rows, outside, name, f"outside of its times, {times[0]:.3f} to {times[-1]:.3f} s{hint}")
        after = np.minimum(np.searchsorted(rows.at, times), len(rows.at) - 1)
        before = np.maximum(after - 1, 0)
        near = np.where(abs(times - rows.at[before]) <= abs(rows.at[after] - times), before, after)
        at = np.where(abs(rows.at[near] - times) <= most, near, -1)
        taken = np.isin(np.arange(len(rows.at)), at)
        if not taken.any():
            given = f"its times are {rows.at[0]:.3f} to {rows.at[-1]:.3f} s"
            log.warning("%s: no frame of %s is annotated: %s", self.file, name, given)
        self._warn(rows, ~outside & ~taken, name, f"as no frame within {most:.3f} s takes them")
        return at

    def _warn(self, rows: LabelRows, chosen: Any, name: str, why: str) -> None:
        """Log how many of a recording's rows are left out, and why."""
        if len(lines := rows.lines[chosen]):
            several = f"{counted(len(lines), 'row')} of {name} left out"
            log.warning("%s: %s, %s: the first in line %d", self.file, several, why, min(lines))

    @cached_property
    def _content(self) -> LabelFile:
        from aupipe.label_rows import read_label_file

        return read_label_file(self.file, self.task, self.source.column, self.source.marked)

    @cached_property
    def _ids(self) -> dict[str, str]:
        """Name that the file has for a recording -> its id. Rows of unknown recordings are counted in a warning."""
        names = {one.id: [one.id] for one in self.recordings}
        for one in self.recordings:
            if (name := label_name(one)) != one.id:
                names.setdefault(name, []).append(one.id)
        given = self._content.rows
        if unknown := [name for name in given if name not in names]:
            why = f"no recording of this data set is {first_of(unknown, SHOWN)}.{nearest_recording(unknown[0], names)}"
            if len(unknown) == len(given):
                raise UsageError(f"{self.file}: none of its rows is used: {why}")
            log.warning("%s: %s left out: %s", self.file, counted(sum(len(given[n].at) for n in unknown), "row"), why)
        found: dict[str, str] = {}
        for name in given.keys() - set(unknown):
            if len(fitting := names[name]) > 1:
                several = f"recording {name} fits {' and '.join(fitting)}: write one of them"
                raise UsageError(f"{self.file}, line {min(given[name].lines)}: {several}")
            found[name] = fitting[0]
        return found

    @cached_property
    def _rows(self) -> dict[str, LabelRows]:
        """Id of a recording -> its rows."""
        found: dict[str, LabelRows] = {}
        for name, rows in sorted(self._content.rows.items(), key=lambda item: int(min(item[1].lines))):
            if (own := self._ids.get(name)) is None:
                continue
            if (first := found.setdefault(own, rows)) is not rows:
                raise UsageError(
                    f"{self.file}, line {min(rows.lines)}: line {min(first.lines)} has another name of {own}"
                )
        return found


def _half_frame(times: NDArray[np.float64]) -> float:
    """Half the time of a frame in s, and a little more: times in tables are often rounded."""
    import numpy as np

    return float(np.median(np.diff(times))) * 0.501 if len(times) > 1 else 0.5


def _are_milliseconds(given: NDArray[np.float64], times: NDArray[np.float64]) -> bool:
    """Is the last time of a table evidently 1000 times that of the video, as far as the table goes?"""
    last, end = (float(one[-1]) if len(one) else 0.0 for one in (given, times))
    return end > 0 and LEAST_MS <= last / end <= MOST_MS


class _Tracks(Mapping[str, tuple[str, Path]]):
    """The tracks of a table, which is read when they are asked for."""

    def __init__(self, table: LabelTable) -> None:
        self.table = table

    def __getitem__(self, name: str) -> tuple[str, Path]:
        return self.table.tracks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.tracks)

    def __len__(self) -> int:
        return len(self.table.tracks)
