"""One pass over one video: decode, detect, follow, crop, encode, publish. Knows nothing of scheduling."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.ahead import ahead
from aupipe.extract.clock import masked_frames, to_frames
from aupipe.extract.decode import ImageReader, VideoReader, image_rows, in_order
from aupipe.extract.encode import Sink, Warps
from aupipe.extract.encoders import AudioInput, WordsInput
from aupipe.extract.encoders.text.transcript import Transcript, spoken_words
from aupipe.extract.faces.find import find_faces
from aupipe.extract.faces.track import subject_track
from aupipe.extract.job import Loaded, OpenItem, Outcome, Pass, failing, failing_alone, is_of_the_recording
from aupipe.extract.plan import Chain, Job
from aupipe.extract.sound import NoAudioError, read_audio
from aupipe.store.base import ItemRecord, Store
from aupipe.types import FaceTrack, Recording, Waveform

SOUND = ("audio", "text")


def run_job(
    job: Job,
    store: Store,
    loaded: Loaded,
    versions: dict[str, str],
    on_frames: Callable[[int], None] = lambda n: None,
    on_published: Callable[[ItemRecord], None] = lambda record: None,
) -> Outcome:
    """Make every missing item of one video. Bad media fails its own items by name; everything else is published.

    ``on_frames`` hears how many frames were decoded since it last heard, ``on_published`` of every item at once.
    Raises what is nobody's recording's fault: a full disk, missing weights, an interrupt.
    """
    began = time.perf_counter()
    run = Pass(job, store, loaded, on_frames, on_published, versions, Outcome(job))
    with failing(run, job.recordings, "visual", *SOUND):
        clock = _clock_and_detections(run, loaded.parts.chain(job.recordings[0]), job.recordings[0])
        run.outcome.frames = len(clock)
        for recording in job.recordings:
            with failing(run, [recording], "visual"):
                _faces(run, recording)
        _visual(run, clock)
        with failing(run, job.recordings, *SOUND):
            _sound(run, job.recordings[0], clock)
    run.outcome.seconds = time.perf_counter() - began
    return run.outcome


def _clock_and_detections(run: Pass, chain: Chain, recording: Recording) -> NDArray[np.float64]:
    """The clock (T,) of a video, and its faces in the store: one decode for whichever of the two is missing."""
    began = time.perf_counter()
    key = recording.video_id
    clock = None  # of a video whose frames nobody has counted yet
    if not run.job.wants(chain.clock, key):
        clock = run.read_input(recording, chain.clock).astype(np.float64)
    elif recording.video is None:
        clock = _image_clock(recording)
    rows = None
    if chain.detections is not None and run.job.wants(chain.detections, key):
        with failing(run, run.job.recordings, "visual"):  # a detector that breaks leaves the sound alone
            times, rows = _detect(run, recording, clock)
            clock = times if clock is None else clock
    if clock is None:
        assert recording.video is not None
        clock = VideoReader(recording.video).clock(run.on_frames)
    if run.job.wants(chain.clock, key):
        run.publish(recording, chain.clock, clock, began)
    if rows is not None and chain.detections is not None:
        run.publish(recording, chain.detections, rows, began)
    return clock


def _detect(
    run: Pass, recording: Recording, clock: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Times (T,) and detection rows (T, N, 17) of a video."""
    reader = _reader(recording, clock)
    faces = run.loaded.parts.faces
    with closing(ahead(reader)) as chunks:
        times, rows = find_faces(
            chunks,
            run.loaded.detect(),
            detect_px=faces.detect_px,
            max_faces=faces.max_faces,
            min_score=run.loaded.parts.detector.min_score,
            length=len(clock) if clock is not None else 0,
            on_frames=run.on_frames,
        )
    run.outcome.notes += reader.notes
    if clock is not None:
        _same_length(recording, len(rows), len(clock))
    return in_order(times, recording.video or recording.images), rows  # type: ignore[arg-type]


def _reader(recording: Recording, clock: NDArray[np.float64] | None) -> VideoReader | ImageReader:
    """The frames of a recording: of its video, or of its folder of images on a known clock."""
    if recording.video is not None:
        return VideoReader(recording.video)
    if recording.images is None or clock is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    return ImageReader(recording.images, clock)


def _image_clock(recording: Recording) -> NDArray[np.float64]:
    """(T,) times of a folder of images without a video: row / fps."""
    if recording.images is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    if recording.fps is None:
        raise RecordingError(f"{recording.images}: images carry no clock; set [dataset] fps")
    return np.arange(max(image_rows(recording.images)) + 1) / recording.fps


def _same_length(recording: Recording, found: int, clock: int) -> None:
    if found != clock:
        raise RecordingError(f"{recording.video}: gives {found} frames now and gave {clock} before")


def _faces(run: Pass, recording: Recording) -> None:
    chain = run.loaded.parts.chain(recording)
    if chain.faces is None or chain.detections is None or not run.job.wants(chain.faces, recording.id):
        return
    if not run.open_items([recording], "visual"):
        return  # nothing is left that needs it: detection has failed
    began = time.perf_counter()
    params = run.loaded.parts.track
    if recording.subject:
        params = replace(params, subject=recording.subject)
    track = subject_track(run.read_input(recording, chain.detections), params)
    run.publish(recording, chain.faces, track.to_rows(), began)


def _visual(run: Pass, clock: NDArray[np.float64]) -> None:
    """Encode the faces of every recording of a video, all of them in one decode; each fails on its own."""
    tracks: dict[str, FaceTrack] = {}
    filmed: list[Recording] = []
    for recording in run.job.recordings:
        if not run.open_items([recording], "visual"):
            continue
        with failing(run, [recording], "visual"):
            if recording.aligned:
                if recording.images is None:
                    raise RecordingError(f"no cropped_aligned folder for track {recording.id!r}")
                _encode_pictures(run, [recording], ImageReader(recording.images, clock), clock, tracks)
                continue
            faces = run.loaded.parts.chain(recording).faces
            assert faces is not None
            tracks[recording.id] = FaceTrack.from_rows(run.read_input(recording, faces))
            run.outcome.faces[recording.id] = int(tracks[recording.id].valid.sum())
            filmed.append(recording)
    if filmed:
        with failing(run, filmed, "visual"):
            _encode_pictures(run, filmed, _reader(filmed[0], clock), clock, tracks)


def _encode_pictures(
    run: Pass,
    recordings: list[Recording],
    reader: VideoReader | ImageReader,
    clock: NDArray[np.float64],
    tracks: dict[str, FaceTrack],
) -> None:
    """Every open visual feature of these recordings in one decode; an encoder that breaks fails its own item."""
    began = time.perf_counter()
    with ExitStack() as stack:
        chunks = stack.enter_context(closing(ahead(reader)))
        sinks = [
            sink
            for item in run.open_items(recordings, "visual")
            if (sink := _open_sink(run, item, len(clock), stack)) is not None
        ]
        seen = 0
        for frames in chunks:
            warps = {recording.id: Warps(frames, tracks.get(recording.id)) for recording in recordings}
            for sink in list(sinks):
                try:
                    sink.put(*warps[sink.item.recording.id].input_of(sink.item.encoder.reads))
                except Exception as error:
                    if not is_of_the_recording(error):
                        raise
                    sinks.remove(sink)
                    run.fail(sink.item, error)
            run.on_frames(len(frames))
            seen += len(frames)
        if isinstance(reader, VideoReader):
            _same_length(recordings[0], seen, len(clock))
        else:
            run.outcome.notes += reader.notes
        for recording in recordings:
            run.confirm_source(recording, "visual")
        for sink in sinks:
            with failing_alone(run, sink.item):
                sink.finish(len(clock))
                run.published(sink.writer.commit(seconds=time.perf_counter() - began))


def _open_sink(run: Pass, item: OpenItem, length: int, stack: ExitStack) -> Sink | None:
    """A writer for one visual feature, or None when it has failed already."""
    with failing_alone(run, item):
        if item.recording.aligned and item.encoder.reads == "landmarks":
            raise RecordingError(f"{item.spec.name} needs landmarks, and cropped_aligned images carry none")
        encode, shape = run.loaded.encode(item.spec, item.encoder)
        writer = run.store.writer(
            item.key,
            item.spec,
            frames=length,
            row_shape=shape,
            source=run.source(item.recording, "visual"),
            versions=run.versions,
            video_id=item.recording.video_id,
        )
        return Sink(item, encode, shape, stack.enter_context(writer))
    return None


def _sound(run: Pass, recording: Recording, clock: NDArray[np.float64]) -> None:
    """Audio and text features of a video: what was heard and said, brought to the frames.

    Sound is decoded once per sample rate, the transcript read once.
    """
    heard: dict[AudioInput | WordsInput, Waveform | Transcript] = {}
    for item in run.open_items(run.job.recordings, *SOUND):
        with failing_alone(run, item):
            began = time.perf_counter()
            if recording.video is None:
                raise RecordingError(f"no {item.spec.modality}: {recording.id!r} is a folder of images without a video")
            reads = item.encoder.reads
            encode, _ = run.loaded.encode(item.spec, item.encoder)
            try:
                if reads not in heard:
                    heard[reads] = _hear(recording.video, reads)
                rows = to_frames(encode(heard[reads]), clock, item.encoder)
            except NoAudioError:
                if not run.loaded.parts.mask_missing_audio:
                    raise
                rows = masked_frames(encode, reads, clock, item.encoder)
            run.publish(recording, item.spec, rows, began)


def _hear(video: Path, reads: AudioInput | WordsInput) -> Waveform | Transcript:
    return read_audio(video, reads.sample_rate) if isinstance(reads, AudioInput) else spoken_words(video)
