"""One job while it runs: its sources, what was found in its media, what has been published and what has failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.engine.events import EventSink, FramesDecoded, ItemPublished
from aupipe.extract.engine.results import JobResult, SourceChangedError, describe, is_of_the_recording
from aupipe.extract.media.report import MediaReport
from aupipe.extract.planning.features import FeatureSet
from aupipe.extract.planning.plan import Job, source_paths
from aupipe.sources import source_changed, source_identity
from aupipe.store import ItemRecord, ItemWriter, Store
from aupipe.types import FeatureSpec, Recording, SourceIdentity

APPEAR_WAITS_S = (0.0, 1.0, 5.0, 15.0, 45.0)  # attributes are cached for up to a minute


@dataclass(frozen=True)
class OpenItem:
    """One feature of one recording that a job is to make."""

    recording: Recording
    spec: FeatureSpec
    encoder: Any

    @property
    def key(self) -> str:
        return self.recording.key_for(self.spec.modality)


@dataclass
class JobContext:
    """What the stages of one job read and write besides pictures and sound. Pictures and sound use it at once.

    ``versions_of``: what the records of a feature's items name besides ``versions``, those of libraries.
    """

    job: Job
    features: FeatureSet
    store: Store
    versions: dict[str, str]
    versions_of: Callable[[FeatureSpec], dict[str, str]]
    on_event: EventSink
    result: JobResult = field(init=False)
    # Taken once, before anything is read: what a feature is said to come from is what lay there at the beginning.
    sources: dict[tuple[Path, ...], SourceIdentity | None] = field(default_factory=dict)
    reports: dict[str, MediaReport] = field(default_factory=dict)  # "video", "audio" -> what decoding it found
    _began_s: float = field(default_factory=time.perf_counter)
    _resolved: set[tuple[str, str]] = field(default_factory=set)
    # Of this job alone: jobs publish side by side, since to publish is to wait for the disk a dozen times.
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.result = JobResult(self.job.video_id)
        for recording in self.job.recordings:
            for modality in ("clock", "visual", "text"):
                self.source(recording, modality)

    def ended(self) -> JobResult:
        """What came of the job."""
        self.result.seconds = time.perf_counter() - self._began_s
        return self.result

    def on_frames(self, count: int) -> None:
        """Called with the number of frames decoded since the last call."""
        self.on_event(FramesDecoded(count))

    # Sources ----------------------------------------------------------------------------------------------------------

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

    def read_input(self, recording: Recording, spec: FeatureSpec) -> NDArray[Any]:
        """A stored clock, detections or face track. Raises SourceChangedError when it was made from another file."""
        key, paths = recording.key_for(spec.modality), source_paths(recording, spec.modality)
        stored = self._look_for(key, spec.id)
        if self._is_of_another_file(stored, recording, spec.modality, paths):
            self.store.refresh()  # another process has published it anew?
            stored = self.store.published(key, spec.id)
            if self._is_of_another_file(stored, recording, spec.modality, paths):
                raise SourceChangedError(
                    f"{recording.video or recording.images}: changed since this run began; run again"
                )
        return self.store.read(key, spec.id)

    def _look_for(self, key: str, feature: str) -> ItemRecord:
        """The record of an item that was published before this job was handed out. Raises KeyError without one.

        Another process or machine may have published it, and a network file system may show that late.
        """
        for wait_s in APPEAR_WAITS_S:
            with suppress(KeyError):
                return self.store.published(key, feature)
            time.sleep(wait_s)
            self.store.refresh()
        return self.store.published(key, feature)

    def _is_of_another_file(
        self, stored: ItemRecord, recording: Recording, modality: str, paths: tuple[Path, ...]
    ) -> bool:
        return bool(stored.source and self.source(recording, modality) and source_changed(paths, stored.source))

    # What decoding found ----------------------------------------------------------------------------------------------

    def note_media(self, stream: Literal["video", "audio", "text"], report: MediaReport) -> None:
        """Take note of what decoding a stream found: it goes into the record of every item computed from it.

        Raises RecordingError for damage where that is to be a failure.
        """
        before = self.reports.get(stream, MediaReport())
        if before != report:
            self.reports[stream] = report
            for line in _lines_on(stream, before):  # it has been read once more, as far as another encoder reaches
                self.result.notes.remove(line)
            self.result.notes += _lines_on(stream, report)
        if report.is_damaged and self.features.fail_on_damage:
            raise RecordingError(f"{stream} damaged: {report.summary} (--on-damage keep --retry-failed takes it)")

    def recall_media(self, clock: ItemRecord) -> None:
        """Take note of what was found when a stored clock was made; records of old stores say nothing."""
        if "video" in clock.media:
            self.note_media("video", MediaReport.from_json(clock.media["video"]))

    def _about_media(self, modality: str) -> dict[str, Any]:
        """``damage`` and ``media`` of an item's record: the rows are the picture's, whatever they are computed from."""
        reports = {stream: self.reports[stream] for stream in ("video", modality) if stream in self.reports}
        damage = [f"{stream}: {report.summary}" for stream, report in reports.items() if report.is_damaged]
        return {
            "damage": "; ".join(damage),
            "media": {stream: report.to_json() for stream, report in reports.items()},
        }

    # Items ------------------------------------------------------------------------------------------------------------

    def is_resolved(self, item: OpenItem) -> bool:
        """Whether the item has been published, or has failed."""
        return (item.key, item.spec.id) in self._resolved

    def open_items(self, recordings: Iterable[Recording], *modalities: str) -> list[OpenItem]:
        """Items of these modalities that are to be made and are not resolved."""
        found: dict[tuple[str, str], OpenItem] = {}
        for recording in recordings:
            for spec, encoder in self.features.graph(recording).encoders:
                item = OpenItem(recording, spec, encoder)
                if spec.modality in modalities and self.job.wants(spec, item.key) and not self.is_resolved(item):
                    found.setdefault((item.key, spec.id), item)
        return list(found.values())

    def writer(self, item: OpenItem, frames: int, row_shape: tuple[int, ...]) -> ItemWriter:
        """Begin an item of the store."""
        return self.store.writer(
            item.key,
            item.spec,
            frames=frames,
            row_shape=row_shape,
            source=self.source(item.recording, item.spec.modality),
            versions=self.versions | self.versions_of(item.spec),
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
        """Publish what a writer holds."""
        with self._lock:
            record = writer.commit(seconds=seconds, **self._about_media(modality))
            self._resolved.add((record.recording, record.feature))
            self.result.published.append(record)
        self.on_event(ItemPublished(record))

    def fail(self, item: OpenItem, error: BaseException) -> None:
        """Record that an item cannot be made, and why; the first reason stands."""
        source = None if isinstance(error, SourceChangedError) else self.source(item.recording, item.spec.modality)
        with self._lock:
            if not self.is_resolved(item):
                self._resolved.add((item.key, item.spec.id))
                self.result.failed.append(self.store.fail(item.key, item.spec, describe(error), source=source))


def _lines_on(stream: str, report: MediaReport) -> list[str]:
    return [f"DAMAGED {stream}: {report.summary}"] * report.is_damaged + [f"{stream}: {note}" for note in report.notes]


@contextmanager
def failing(context: JobContext, recordings: Iterable[Recording], *modalities: str) -> Iterator[None]:
    """Turn an error of the media, or of code on it, into failures of the items of these modalities still open."""
    recordings = list(recordings)
    try:
        yield
    except Exception as error:
        if not is_of_the_recording(error):
            raise
        for item in context.open_items(recordings, *modalities):
            context.fail(item, error)


@contextmanager
def failing_alone(context: JobContext, item: OpenItem) -> Iterator[None]:
    """Turn an error into the failure of this one item."""
    try:
        yield
    except Exception as error:
        if not is_of_the_recording(error):
            raise
        context.fail(item, error)
