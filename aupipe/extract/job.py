"""One job under way: what is loaded, what has been published, and how an error becomes a failure of some items."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aupipe.dataset import source_changed, source_identity
from aupipe.errors import AupipeError, DamageError, RecordingError
from aupipe.extract.encoders import AudioInput, Encode
from aupipe.extract.faces.align import CropTemplate
from aupipe.extract.faces.find import Finder
from aupipe.extract.plan import Job, Parts, source_paths
from aupipe.store.base import ItemRecord, ItemWriter, Store
from aupipe.types import FeatureSpec, Recording, SourceIdentity, Waveform

if TYPE_CHECKING:  # the run that only hears of jobs needs no decoder
    from aupipe.extract.decode import Canvas

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crew:
    """How many threads each stage has. ``decoders``: videos looked at side by side."""

    decoders: int = 1
    encoders: int = 1


@dataclass
class Loaded:
    """Detector and encoders of one process, loaded on first use; asked by any of its threads."""

    parts: Parts
    device: str
    frames_on: str = ""  # the torch device that frames are decoded to; "" for the host. A CUDA device takes its own
    on_load: Callable[[FeatureSpec, CropTemplate, Encode], None] = lambda spec, template, encode: None
    _local: threading.local = field(default_factory=threading.local)
    _encode: dict[str, tuple[Encode, tuple[int, ...]]] = field(default_factory=dict)
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _tried: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.device.startswith("cuda"):
            self.frames_on = self.frames_on or self.device

    def prepare(self, job: Job) -> None:
        """Load and try once what a job needs, before its threads do: libraries that several threads import at the same
        time break each other's imports. Errors are left to whoever needs the thing, who can say for which recording.
        """
        for item in job.items:
            if item.spec.id in self._tried:
                continue
            self._tried.add(item.spec.id)
            with suppress(Exception):
                if item.spec.modality == "detections" and self.parts.detector is not None:
                    self.canvas()
                    self.finder()
                for recording in job.recordings:
                    for spec, encoder in self.parts.chain(recording).encoders:
                        if spec.id == item.spec.id:
                            function, _ = self.encode(spec, encoder)
                            if isinstance(encoder.reads, AudioInput):
                                rate = encoder.reads.sample_rate
                                function(Waveform(np.zeros(rate, np.float32), rate))

    def canvas(self) -> Canvas:
        """What the frames of one video are decoded to."""
        if not self.frames_on:
            from aupipe.extract.decode import HostCanvas

            return HostCanvas()
        from aupipe.extract.device.frames import DeviceCanvas

        return DeviceCanvas(self.frames_on)

    def finder(self) -> Finder:
        """A detector of the calling thread's own: most are not made to be shared, and all are small."""
        if not hasattr(self._local, "finder"):
            detector, faces = self.parts.detector, self.parts.faces
            assert detector is not None  # or there would be no detections to make
            with self._loading:
                load = getattr(detector, "load_tensor", None) if self.frames_on else None
                self._local.finder = Finder(
                    detector.load(self.device),
                    faces.detect_px,
                    faces.max_faces,
                    detector.min_score,
                    load(self.frames_on) if load else None,
                )
        finder: Finder = self._local.finder
        return finder

    def encode(self, spec: FeatureSpec, encoder: Any) -> tuple[Encode, tuple[int, ...]]:
        """An encoder's function, which threads may share, and the shape of one row of it."""
        with self._loading:
            if spec.id not in self._encode:
                function = encoder.load(self.device)
                if not (hasattr(function, "start") or getattr(encoder, "shareable", False)):
                    function = _one_at_a_time(function)
                reads = encoder.reads
                shape: tuple[int, ...] = ()
                if isinstance(reads, CropTemplate):
                    shape = function(np.zeros((1, reads.size_px, reads.size_px, 3), np.uint8)).shape[1:]
                    self.on_load(spec, reads, function)
                elif reads == "landmarks":
                    shape = function(np.zeros((1, 5, 2), np.float32)).shape[1:]
                self._encode[spec.id] = (function, shape)
            return self._encode[spec.id]


def _one_at_a_time(function: Encode) -> Encode:
    """The same function for several threads: what is not known to bear two at once (OpenCV's networks do not) waits."""
    lock = threading.Lock()

    def encode(inputs: Any) -> Any:
        with lock:
            return function(inputs)

    return encode


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
        key = recording.key_for(spec.modality)
        with self.store_lock:
            made_from, source = self.store.published(key, spec.id).source, self.source(recording, spec.modality)
            if made_from and source and (made_from.size, made_from.digest) != (source.size, source.digest):
                raise SourceChangedError(
                    f"{recording.video or recording.images}: changed since this run began; run again"
                )
            return self.store.read(key, spec.id)

    def writer(self, item: OpenItem, frames: int, row_shape: tuple[int, ...]) -> ItemWriter:
        """Begin an item of the store."""
        with self.store_lock:
            return self.store.writer(
                item.key,
                item.spec,
                frames=frames,
                row_shape=row_shape,
                source=self.source(item.recording, item.spec.modality),
                versions=self.versions,
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
            self.commit(writer, seconds=time.perf_counter() - began_s)

    def commit(self, writer: ItemWriter, *, seconds: float) -> None:
        """Publish what a writer holds, and take note of it."""
        with self.store_lock:
            record = writer.commit(seconds=seconds)
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
    """False for what is nobody's recording's fault: a full disk, missing weights."""
    if isinstance(error, RecordingError | DamageError):
        return True
    return not isinstance(error, AupipeError | OSError)


def describe(error: BaseException) -> str:
    """One line for the user: the stage and the reason; an error nobody foresaw is logged whole."""
    words = " ".join(str(error).split())
    if not isinstance(error, AupipeError):
        log.info("unforeseen error", exc_info=error)
        words = f"{type(error).__name__}: {words}"
    stage = getattr(error, "stage", "")
    return f"{stage}: {words}" if stage else words
