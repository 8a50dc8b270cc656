"""The files of an analysis: which there are, and writing them, one recording after the other."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from aupipe.dataset import label_name
from aupipe.errors import RecordingError, UsageError
from aupipe.extract.planning.features import FeatureSet
from aupipe.files import PRIVATE, write_file
from aupipe.quantities import counted
from aupipe.registry import nearest, optional_package
from aupipe.report.analysis.table import Layout, read_table
from aupipe.report.analysis.table_files import TABLES, columns_csv, open_table, refuse_long, require_packages
from aupipe.report.analysis.tiers import EVENT_COLUMNS, Rules, Tiers, find_tiers
from aupipe.store import Store
from aupipe.train.occurrence_files import eaf_document, textgrid_document
from aupipe.train.predictions import Predictions
from aupipe.types import Recording
from aupipe.video_folders import ABOUT_SUFFIX

INTERVALS = {".eaf": "eaf", ".textgrid": "textgrid"}  # by the suffix in small letters


@dataclass(frozen=True)
class Targets:
    """The files to write. ``tables``: one for all recordings, each. ``about``: what the columns of a table are.

    ``intervals`` and ``pictures``: by recording. ``no_picture``: why there are none, although they are asked for.
    """

    tables: tuple[Path, ...]
    about: tuple[Path, ...]
    intervals: Mapping[str, tuple[Path, ...]]
    pictures: Mapping[str, Path]
    no_picture: str = ""

    @property
    def files(self) -> list[Path]:
        intervals = [path for own in self.intervals.values() for path in own]
        return [*self.tables, *self.about, *intervals, *self.pictures.values()]

    def kind(self, path: Path) -> str:
        return "table" if path in self.tables else "columns" if path in self.about else ""


@dataclass
class Written:
    """``rows`` and ``notes``: by recording. ``left_out``: recording -> why it is in no file."""

    files: list[Path] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def find_targets(outs: Sequence[Path], recordings: Sequence[Recording], pictures: bool) -> Targets:
    """The files that these names ask for; pictures beside the first of them, where ``pictures``.

    Raises UsageError for a suffix that is no format, a folder that is a file, a package that is not installed, and
    where two recordings would be one file.
    """
    tables: list[Path] = []
    intervals: dict[str, list[Path]] = {}
    for out in outs:
        suffix = out.suffix.lower()
        if suffix not in (*TABLES, *INTERVALS):
            known = (*TABLES, ".eaf", ".TextGrid")
            raise UsageError(f"--out {out}: unknown suffix.{nearest(out.suffix, known)} Accepted: {', '.join(known)}")
        there = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
        if not there.is_dir():
            raise UsageError(f"--out {out}: {there} is no folder")
        require_packages(out)
        if suffix in TABLES:
            tables.append(out)
        else:
            for name, path in _each(out, recordings).items():
                intervals.setdefault(name, []).append(path)
    about = dict.fromkeys(out.with_suffix(ABOUT_SUFFIX) for out in tables if out.suffix.lower() != ".xlsx")
    no_picture = ""
    drawn: dict[str, Path] = {}
    if pictures:
        try:
            optional_package("matplotlib", "a picture")
            drawn = _each(outs[0].with_suffix(".png"), recordings)
        except UsageError as error:
            no_picture = f"{error}, or --no-picture"
    if twice := next((path for path in tables if tables.count(path) > 1), None):
        raise UsageError(f"--out {twice} is named twice")
    return Targets(
        tuple(tables), tuple(about), {name: tuple(own) for name, own in intervals.items()}, drawn, no_picture
    )


def _each(out: Path, recordings: Sequence[Recording]) -> dict[str, Path]:
    """Recording -> its file: ``out`` itself of a single one, else the name of the recording is put into its name."""
    if len(recordings) == 1:
        return {recordings[0].id: out}
    spelt = [
        {one.id: re.sub(r"[^\w.-]+", "_", name) for one, name in zip(recordings, each, strict=True)}
        for each in ([label_name(one) for one in recordings], [one.id for one in recordings])
    ]
    names = next((each for each in spelt if not _collide(each)), None)
    if names is None:
        one, other = _collide(spelt[-1])
        raise UsageError(f"{one} and {other} would be one file: analyse them one by one, each with its own --out")
    return {name: out.with_name(f"{out.stem}-{own}{out.suffix}") for name, own in names.items()}


def _collide(names: Mapping[str, str]) -> tuple[str, ...]:
    """Two recordings whose files would be one, also where case is ignored; () where there are none."""
    owners: dict[str, str] = {}
    for recording, name in names.items():
        other = owners.setdefault(unicodedata.normalize("NFC", name).casefold(), recording)
        if other != recording:
            return other, recording
    return ()


def write_analysis(
    targets: Targets,
    layout: Layout,
    features: FeatureSet,
    store: Store,
    recordings: Sequence[Recording],
    predictions: Mapping[str, Mapping[str, Predictions]],
    rules: Rules,
    overwrite: bool,
) -> Written:
    """Write the tables, and the intervals and the picture of each recording; none of the tables where that fails.

    ``predictions``: of models, by name and recording. Raises UsageError for more rows than a sheet of .xlsx holds,
    RecordingError where no recording has rows.
    """
    clock = features.graph(recordings[0]).clock
    frames = {record.recording: record.frames for record in store.all_published(clock.id)}
    for path in targets.tables:
        refuse_long(path, sum(frames.get(one.video_id, 0) for one in recordings), len(layout.columns))
    written = Written()
    events: list[tuple[object, ...]] = [EVENT_COLUMNS]
    wanted_events = any(path.suffix.lower() == ".xlsx" for path in targets.tables)
    wanted_tiers = wanted_events or targets.intervals or targets.pictures
    with ExitStack() as stack:
        tables = [stack.enter_context(open_table(path, layout, overwrite, lambda: events)) for path in targets.tables]
        for recording in recordings:
            table = read_table(layout, features, store, recording, predictions)
            if isinstance(table, str) or not len(table):
                written.left_out[recording.id] = table if isinstance(table, str) else "it has no frames"
                continue
            for append in tables:
                append(table)
            written.rows[recording.id] = len(table)
            written.notes[recording.id] = list(table.notes)
            if not wanted_tiers:
                continue
            tiers = find_tiers(layout, table, predictions, rules)
            if wanted_events:
                events += tiers.rows()
            for path in targets.intervals.get(recording.id, ()):
                write_file(path, _document(path, recording, tiers), overwrite, PRIVATE)
                written.files.append(path)
            if recording.id in targets.pictures:
                from aupipe.report.analysis.picture import draw_picture

                path = targets.pictures[recording.id]
                write_file(path, draw_picture(layout, table, tiers), overwrite, PRIVATE)
                written.files.append(path)
        if not written.rows:
            raise RecordingError(_none_written(written.left_out))
    for path in targets.about:
        write_file(path, columns_csv(layout), overwrite, PRIVATE)
    written.files[:0] = [*targets.tables, *targets.about]
    return written


def _none_written(left_out: Mapping[str, str]) -> str:
    name, reason = next(iter(left_out.items()))
    if len(left_out) == 1:
        return f"{name} could not be analysed: {reason}"
    return f"nothing could be analysed of {counted(len(left_out), 'video')}; the first is {name}: {reason}"


def _document(path: Path, recording: Recording, tiers: Tiers) -> str:
    """The intervals of a recording as the file name asks: for ELAN or for Praat."""
    if path.suffix.lower() == ".textgrid":
        return textgrid_document(tiers.from_zero(), tiers.end_s)
    return eaf_document(tiers.from_zero(), path.parent, recording.video, tiers.said_by)
