"""One pass over one video: decode, detect, follow, crop, encode, publish. Knows nothing of scheduling."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.dataset import source_identity
from aupipe.errors import AupipeError, RecordingError
from aupipe.extract.ahead import ahead
from aupipe.extract.clock import align
from aupipe.extract.decode import ImageReader, VideoReader, image_rows
from aupipe.extract.encode import Sink, encode_chunk
from aupipe.extract.encoders import AudioInput, Encode
from aupipe.extract.faces import Detect
from aupipe.extract.faces.align import CropTemplate
from aupipe.extract.faces.find import find_faces
from aupipe.extract.faces.track import subject_track
from aupipe.extract.plan import Chain, Job, Parts, audio_rates, source_path
from aupipe.extract.sound import read_audio
from aupipe.store.base import ItemRecord, Store
from aupipe.types import FaceTrack, FeatureSpec, Recording, SourceIdentity

log = logging.getLogger(__name__)


# Loading imports libraries, and several of them (PyAV, torchvision) break when two threads import them at once.
LOADING = threading.Lock()


@dataclass
class Loaded:
    """Detector and encoders of one worker, loaded on first use."""

    parts: Parts
    device: str
    _detect: Detect | None = None
    _encode: dict[str, tuple[Encode, tuple[int, ...]]] = field(default_factory=dict)

    def detect(self) -> Detect:
        if self._detect is None:
            with LOADING:
                self._detect = self.parts.detector.load(self.device)
        return self._detect

    def encode(self, spec: FeatureSpec, encoder: Any) -> tuple[Encode, tuple[int, ...]]:
        """An encoder's function and the shape of one row of it."""
        if spec.id not in self._encode:
            with LOADING:
                function = encoder.load(self.device)
            reads = encoder.reads
            shape: tuple[int, ...] = ()
            if isinstance(reads, CropTemplate):
                shape = function(np.zeros((1, reads.size_px, reads.size_px, 3), np.uint8)).shape[1:]
            elif reads == "landmarks":
                shape = function(np.zeros((1, 5, 2), np.float32)).shape[1:]
            self._encode[spec.id] = (function, shape)
        return self._encode[spec.id]


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


@dataclass
class Pass:
    """The state of one job while it runs."""

    job: Job
    store: Store
    loaded: Loaded
    on_frames: Callable[[int], None]
    versions: dict[str, str]
    outcome: Outcome

    def publish(self, key: str, spec: FeatureSpec, rows: NDArray[Any], source: SourceIdentity, began: float) -> None:
        record = self.store.publish(
            key, spec, rows, source=source, seconds=time.perf_counter() - began, versions=self.versions
        )
        self.outcome.published.append(record)

    def fail(self, key: str, spec: FeatureSpec, reason: str, source: SourceIdentity | None) -> None:
        log.debug("%s %s: %s", key, spec.id, reason)
        self.outcome.failed.append(self.store.fail(key, spec, reason, source=source))


def run_job(
    job: Job, store: Store, loaded: Loaded, versions: dict[str, str], on_frames: Callable[[int], None] = lambda n: None
) -> Outcome:
    """Make every missing item of one video. Bad media fails its own items by name; everything else is published.

    Raises what is nobody's recording's fault: a full disk, missing weights, an interrupt.
    """
    began = time.perf_counter()
    run = Pass(job, store, loaded, on_frames, versions, Outcome(job))
    chain = loaded.parts.chain(job.recordings[0])
    first = job.recordings[0]
    with _failing(run, job.recordings, visual=True, audio=True):
        clock, source = _clock_and_detections(run, chain, first)
        run.outcome.frames = len(clock)
        for recording in job.recordings:
            with _failing(run, [recording], visual=True, audio=False):
                _faces(run, recording, source)
        ready = [
            r for r in job.recordings if any(run.job.wants(s, r.id) and s.modality == "visual" for s in _specs(run, r))
        ]
        if ready:
            _visual(run, ready, clock)
        with _failing(run, job.recordings, visual=False, audio=True):
            _audio(run, first, clock)
    run.outcome.seconds = time.perf_counter() - began
    return run.outcome


class _failing:
    """Turns an error of the media, or of one encoder on it, into failures of the items that hung on it."""

    def __init__(self, run: Pass, recordings: list[Recording], *, visual: bool, audio: bool) -> None:
        self.run, self.recordings = run, recordings
        self.modalities = (("faces", "visual") if visual else ()) + (("audio", "text") if audio else ())

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or not _is_of_the_recording(error):
            return False
        reason = describe(error)
        published = {(record.recording, record.feature) for record in self.run.outcome.published}
        failed = {(record.recording, record.feature) for record in self.run.outcome.failed}
        for recording in self.recordings:
            for spec in _specs(self.run, recording):
                key = recording.key_for(spec.modality)
                known = (key, spec.id) in published or (key, spec.id) in failed
                if spec.modality in self.modalities and self.run.job.wants(spec, key) and not known:
                    failed.add((key, spec.id))
                    self.run.fail(key, spec, reason, _identity(recording, spec.modality))
        return True


def _is_of_the_recording(error: BaseException) -> bool:
    if isinstance(error, RecordingError):
        return True
    # A full disk or missing weights are nobody's recording's fault; an encoder that breaks on this picture is.
    return isinstance(error, Exception) and not isinstance(error, AupipeError | OSError | MemoryError)


def describe(error: BaseException) -> str:
    """One line for the user; an error nobody foresaw is logged whole."""
    if isinstance(error, AupipeError):
        return " ".join(str(error).split())
    log.error("unforeseen error", exc_info=error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _specs(run: Pass, recording: Recording) -> list[FeatureSpec]:
    return [spec for spec, _ in run.loaded.parts.chain(recording).encoders]


def _identity(recording: Recording, modality: str) -> SourceIdentity | None:
    path = source_path(recording, modality)
    try:
        return source_identity(path) if path else None
    except RecordingError:
        return None


def _clock_and_detections(run: Pass, chain: Chain, recording: Recording) -> tuple[NDArray[np.float64], SourceIdentity]:
    """The recording's clock, and its faces in the store: one decode for whichever of the two is missing."""
    began = time.perf_counter()
    path = recording.video or recording.images
    if path is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    source = source_identity(path)
    key = recording.video_id
    wants_clock = run.job.wants(chain.clock, key)
    wants_faces = chain.detections is not None and run.job.wants(chain.detections, key)
    clock = None if wants_clock else run.store.read(key, chain.clock.id).astype(np.float64)
    if recording.video is None and clock is None:
        clock = _image_clock(recording)
    if not wants_faces:
        if clock is None:
            assert recording.video is not None
            clock = VideoReader(recording.video).clock()
    else:
        assert chain.detections is not None
        reader = VideoReader(recording.video) if recording.video else ImageReader(path, _known(clock))
        faces = run.loaded.parts.faces
        times, rows = find_faces(
            ahead(reader),
            run.loaded.detect(),
            detect_px=faces.detect_px,
            max_faces=faces.max_faces,
            min_score=run.loaded.parts.detector.min_score,
            length=len(clock) if clock is not None else 0,
            on_frames=run.on_frames,
        )
        run.outcome.notes += reader.notes
        if clock is None:
            clock = times
        _same_length(recording, len(rows), len(clock))
    if wants_clock:
        run.publish(key, chain.clock, clock, source, began)
    if wants_faces and chain.detections is not None:
        run.publish(key, chain.detections, rows, source, began)
    return clock, source


def _known(clock: NDArray[np.float64] | None) -> NDArray[np.float64]:
    assert clock is not None
    return clock


def _image_clock(recording: Recording) -> NDArray[np.float64]:
    """(T,) times of a folder of images without a video: row / fps."""
    assert recording.images is not None
    if recording.fps is None:
        raise RecordingError(f"{recording.images}: images carry no clock; set [dataset] fps")
    return np.arange(max(image_rows(recording.images)) + 1) / recording.fps


def _same_length(recording: Recording, found: int, clock: int) -> None:
    if found != clock:
        raise RecordingError(
            f"{recording.video}: gives {found} frames now and gave {clock} before; is it still written to?"
        )


def _faces(run: Pass, recording: Recording, source: SourceIdentity) -> None:
    chain = run.loaded.parts.chain(recording)
    if chain.faces is None or chain.detections is None or not run.job.wants(chain.faces, recording.id):
        return
    began = time.perf_counter()
    params = run.loaded.parts.track
    if recording.subject:
        params = replace(params, subject=recording.subject)
    track = subject_track(run.store.read(recording.video_id, chain.detections.id), params)
    run.publish(recording.id, chain.faces, track.to_rows(), source, began)


def _visual(run: Pass, recordings: list[Recording], clock: NDArray[np.float64]) -> None:
    """Encode the faces of every recording of a video in one decode; each recording fails on its own."""
    given = [recording for recording in recordings if recording.aligned]
    for recording in given:
        with _failing(run, [recording], visual=True, audio=False):
            if recording.images is None:
                raise RecordingError(f"no cropped_aligned folder for track {recording.id!r}")
            _encode_pictures(run, [recording], ImageReader(recording.images, clock), clock, {})
    filmed = [recording for recording in recordings if not recording.aligned]
    tracks = {}
    for recording in filmed:
        faces = run.loaded.parts.chain(recording).faces
        assert faces is not None
        tracks[recording.id] = FaceTrack.from_rows(run.store.read(recording.id, faces.id))
        run.outcome.faces[recording.id] = int(tracks[recording.id].valid.sum())
    if filmed:
        with _failing(run, filmed, visual=True, audio=False):
            first = filmed[0]
            reader = VideoReader(first.video) if first.video else ImageReader(first.images or _nowhere(first), clock)
            _encode_pictures(run, filmed, reader, clock, tracks)


def _nowhere(recording: Recording) -> Any:
    raise RecordingError(f"no video or image folder for {recording.id!r}")


def _encode_pictures(
    run: Pass,
    recordings: list[Recording],
    reader: VideoReader | ImageReader,
    clock: NDArray[np.float64],
    tracks: dict[str, FaceTrack],
) -> None:
    began = time.perf_counter()
    with ExitStack() as stack:
        sinks = {recording.id: _open_sinks(run, recording, len(clock), stack) for recording in recordings}
        seen = 0
        for frames in ahead(reader):
            for recording in recordings:
                if sinks[recording.id]:
                    encode_chunk(sinks[recording.id], frames, tracks.get(recording.id))
            run.on_frames(len(frames))
            seen += len(frames)
        if isinstance(reader, VideoReader):
            _same_length(recordings[0], seen, len(clock))
        else:
            run.outcome.notes += reader.notes
        for recording in recordings:
            for sink in sinks[recording.id]:
                sink.finish(len(clock))
                seconds = time.perf_counter() - began
                run.outcome.published.append(sink.writer.commit(seconds=seconds))


def _open_sinks(run: Pass, recording: Recording, length: int, stack: ExitStack) -> list[Sink]:
    """A writer for every visual feature of the recording that is to be made."""
    sinks = []
    for spec, encoder in run.loaded.parts.chain(recording).encoders:
        if spec.modality != "visual" or not run.job.wants(spec, recording.id):
            continue
        source = _identity(recording, "visual")
        if recording.aligned and encoder.reads == "landmarks":
            reason = f"{spec.name} needs landmarks, and cropped_aligned images carry none"
            run.fail(recording.id, spec, reason, source)
            continue
        encode, shape = run.loaded.encode(spec, encoder)
        writer = run.store.writer(
            recording.id, spec, frames=length, row_shape=shape, source=source, versions=run.versions
        )
        sinks.append(Sink(spec, encoder, encode, shape, stack.enter_context(writer)))
    return sinks


def _audio(run: Pass, recording: Recording, clock: NDArray[np.float64]) -> None:
    """Decode the sound once per sample rate, encode it, and bring the rows to the frames."""
    for sample_rate, wanted in audio_rates(run.job, run.loaded.parts).items():
        if recording.video is None:
            raise RecordingError(f"no audio: {recording.id!r} is a folder of images without a video")
        source = source_identity(recording.video)
        waveform = read_audio(recording.video, sample_rate)
        for spec, encoder in wanted:
            began = time.perf_counter()
            assert isinstance(encoder.reads, AudioInput)
            encode, _ = run.loaded.encode(spec, encoder)
            rows = align(encode(waveform), clock, encoder.align)
            run.publish(recording.video_id, spec, rows, source, began)
