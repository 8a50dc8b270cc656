"""One job under way: what has been published, and how an error becomes a failure of some items."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from aupipe.errors import AupipeError, DamageError, RecordingError, is_exhausted
from aupipe.extract.loaded import Loaded
from aupipe.extract.media_report import MediaReport
from aupipe.extract.plan import Job, source_paths
from aupipe.sources import source_changed, source_identity
from aupipe.store import ItemRecord, ItemWriter, Store
from aupipe.types import FeatureSpec, Recording, SourceIdentity

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What came of one job: records published, failures (feature id -> reason), words of warning."""

    job: Job
    frames: int = 0
    faces: dict[str, int] = field(default_factory=dict)  # recording -> frames with the subject's face
    published: list[ItemRecord] = field(default_factory=list)
    failed: list[ItemRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __add__(self, other: Outcome) -> Outcome:
        """What came of two attempts at one video, one after the other."""
        return Outcome(
            self.job,
            max(self.frames, other.frames),
            self.faces | other.faces,
            self.published + other.published,
            self.failed + other.failed,
            list(dict.fromkeys(self.notes + other.notes)),
            self.seconds + other.seconds,
        )


class SourceChangedError(RecordingError):
    """A source is not the file it was when the run was planned, or when this job began; the next run tries again."""


@dataclass
class Pass:
    """The state of one job while it runs: what it reads, what it has published, what has failed.

    Its parts run in several threads. ``store_lock`` is one for all passes over a store; ``on_end`` is told when the
    last part has ended (`begin`, `end`).
    """

    job: Job
    store: Store
    loaded: Loaded
    on_frames: Callable[[int], None]
    on_published: Callable[[ItemRecord], None]
    versions: dict[str, str]
    outcome: Outcome
    store_lock: threading.RLock = field(default_factory=threading.RLock)
    on_end: Callable[[Outcome], None] = lambda outcome: None
    # Taken once, before anything is read: what a feature is said to come from is what lay there at the beginning.
    sources: dict[tuple[Path, ...], SourceIdentity | None] = field(default_factory=dict)
    began_s: float = field(default_factory=time.perf_counter)
    reports: dict[str, MediaReport] = field(default_factory=dict)  # "video", "audio" -> what decoding it found
    _said: set[tuple[str, str]] = field(default_factory=set)
    _parts: int = 0

    def __post_init__(self) -> None:
        for recording in self.job.recordings:
            for modality in ("clock", "visual", "text"):
                self.source(recording, modality)

    def source(self, recording: Recording, modality: str) -> SourceIdentity | None:
        """The identity of what a feature of this modality is computed from, None where that cannot be read."""
        paths = source_paths(recording, modality)
        if paths not in self.sources:
            try:
                self.sources[paths] = source_identity(*paths) if paths else None
            except RecordingError:
                self.sources[paths] = None
        return self.sources[paths]

    def confirm_source(self, recording: Recording, modality: str) -> None:
        """Raise SourceChangedError unless what was read is what lay there when the job began."""
        paths, source = source_paths(recording, modality), self.source(recording, modality)
        if source is None or source_changed(paths, source):
            raise SourceChangedError(f"{paths[-1] if paths else recording.id}: changed while it was read; run again")

    def begin(self) -> None:
        """A part of this pass begins."""
        with self.store_lock:
            self._parts += 1

    def end(self) -> None:
        """A part of this pass has ended; with the last one the outcome is told."""
        with self.store_lock:
            self._parts -= 1
            last = not self._parts
        if last:
            self.outcome.seconds = time.perf_counter() - self.began_s
            self.on_end(self.outcome)

    def is_said(self, item: OpenItem) -> bool:
        """Whether the item has been published, or failed."""
        return (item.key, item.spec.id) in self._said

    def open_items(self, recordings: Iterable[Recording], *modalities: str) -> list[OpenItem]:
        """Items of these modalities that are to be made and of which nothing has been said yet."""
        found: dict[tuple[str, str], OpenItem] = {}
        for recording in recordings:
            for spec, encoder in self.loaded.parts.chain(recording).encoders:
                item = OpenItem(recording, spec, encoder)
                if spec.modality in modalities and self.job.wants(spec, item.key) and not self.is_said(item):
                    found.setdefault((item.key, spec.id), item)
        return list(found.values())

    def read_input(self, recording: Recording, spec: FeatureSpec) -> NDArray[Any]:
        """A stored clock, detections or face track. Raises SourceChangedError when it was made from another file."""
        key, paths = recording.key_for(spec.modality), source_paths(recording, spec.modality)
        with self.store_lock:
            if self.store.record(key, spec.id) is None:  # another worker has published it since this one began
                self.store.refresh()
            made_from = self.store.published(key, spec.id).source
            if made_from and self.source(recording, spec.modality) and source_changed(paths, made_from):
                raise SourceChangedError(
                    f"{recording.video or recording.images}: changed since this run began; run again"
                )
            return self.store.read(key, spec.id)

    def note_media(self, stream: Literal["video", "audio"], report: MediaReport) -> None:
        """Take note of what decoding a stream found: it goes into the record of every item computed from it.

        Raises RecordingError for damage where that is to be a failure.
        """
        if self.reports.get(stream) != report:
            self.reports[stream] = report
            self.outcome.notes += [f"DAMAGED {stream}: {report.summary}"] * report.is_damaged + report.notes
        if report.is_damaged and self.loaded.parts.fail_on_damage:
            raise RecordingError(f"{stream} damaged: {report.summary} (--on-damage keep --retry-failed takes it)")

    def recall_media(self, clock: ItemRecord) -> None:
        """Take note of what was found when a stored clock was made; records of old stores say nothing."""
        if "video" in clock.media:
            self.note_media("video", MediaReport.from_json(clock.media["video"]))

    def about_media(self, modality: str) -> dict[str, Any]:
        """``damage`` and ``media`` of an item's record: the rows are the picture's, whatever they are computed from."""
        streams = ("video", "audio") if modality == "audio" else ("video",)
        reports = {stream: self.reports[stream] for stream in streams if stream in self.reports}
        damage = [f"{stream}: {report.summary}" for stream, report in reports.items() if report.is_damaged]
        return {
            "damage": "; ".join(damage),
            "media": {stream: report.to_json() for stream, report in reports.items()},
        }

    def writer(self, item: OpenItem, frames: int, row_shape: tuple[int, ...]) -> ItemWriter:
        """Begin an item of the store."""
        with self.store_lock:
            return self.store.writer(
                item.key,
                item.spec,
                frames=frames,
                row_shape=row_shape,
                source=self.source(item.recording, item.spec.modality),
                versions=self.versions | self.loaded.made_by.get(item.spec.id, {}),
                video_id=self.job.video_id,
            )

    def publish(
        self, recording: Recording, spec: FeatureSpec, blocks: Iterable[NDArray[Any]], frames: int, began_s: float
    ) -> None:
        """Publish an item of ``frames`` rows, given in blocks, if its source is still what it was."""
        self.confirm_source(recording, spec.modality)
        blocks = iter(blocks)
        first = next(blocks)
        with self.writer(OpenItem(recording, spec, None), frames, first.shape[1:]) as writer:
            writer.append(first)
            for block in blocks:
                writer.append(block)
            self.commit(writer, spec.modality, seconds=time.perf_counter() - began_s)

    def commit(self, writer: ItemWriter, modality: str, *, seconds: float) -> None:
        """Publish what a writer holds, and take note of it."""
        with self.store_lock:
            record = writer.commit(seconds=seconds, **self.about_media(modality))
            self._said.add((record.recording, record.feature))
            self.outcome.published.append(record)
        self.on_published(record)

    def fail(self, item: OpenItem, error: BaseException) -> None:
        """Record that an item cannot be made, and why; the first reason stands."""
        source = None if isinstance(error, SourceChangedError) else self.source(item.recording, item.spec.modality)
        with self.store_lock:
            if not self.is_said(item):
                self._said.add((item.key, item.spec.id))
                self.outcome.failed.append(self.store.fail(item.key, item.spec, describe(error), source=source))


@dataclass(frozen=True)
class OpenItem:
    """One feature of one recording that a job is to make."""

    recording: Recording
    spec: FeatureSpec
    encoder: Any

    @property
    def key(self) -> str:
        return self.recording.key_for(self.spec.modality)


@contextmanager
def failing(run: Pass, recordings: Iterable[Recording], *modalities: str) -> Iterator[None]:
    """Turn an error of the media, or of code on it, into failures of the items of these modalities still open."""
    recordings = list(recordings)
    try:
        yield
    except Exception as error:
        if not is_of_the_recording(error):
            raise
        for item in run.open_items(recordings, *modalities):
            run.fail(item, error)


@contextmanager
def failing_alone(run: Pass, item: OpenItem) -> Iterator[None]:
    """Turn an error into the failure of this one item."""
    try:
        yield
    except Exception as error:
        if not is_of_the_recording(error):
            raise
        run.fail(item, error)


def is_of_the_recording(error: Exception) -> bool:
    """False for what no recording is the reason of: a full disk, missing weights, too little memory."""
    if isinstance(error, RecordingError | DamageError):
        return True
    return not isinstance(error, AupipeError | OSError) and not is_exhausted(error)


def describe(error: BaseException) -> str:
    """One line for the user: the stage and the reason; an error nobody foresaw is logged whole."""
    words = " ".join(str(error).split())
    if not isinstance(error, AupipeError):
        log.info("unforeseen error", exc_info=error)
        words = f"{type(error).__name__}: {words}"
    stage = getattr(error, "stage", "")
    return f"{stage}: {words}" if stage else words
