"""One pass over one video: decode, detect, follow, crop, encode, publish. Knows nothing of scheduling."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aupipe.dataset import source_identity
from aupipe.errors import RecordingError
from aupipe.extract.ahead import ahead
from aupipe.extract.clock import align
from aupipe.extract.decode import ImageReader, VideoReader, image_rows
from aupipe.extract.encode import Sink, encode_chunk
from aupipe.extract.encoders import AudioInput
from aupipe.extract.faces.find import find_faces
from aupipe.extract.faces.track import subject_track
from aupipe.extract.job import Loaded, Outcome, Pass, failing, identity_of
from aupipe.extract.plan import Chain, Job, audio_rates
from aupipe.extract.sound import read_audio
from aupipe.store.base import Store
from aupipe.types import FaceTrack, Recording, SourceIdentity


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
    with failing(run, job.recordings, visual=True, audio=True):
        clock, source = _clock_and_detections(run, chain, first)
        run.outcome.frames = len(clock)
        for recording in job.recordings:
            with failing(run, [recording], visual=True, audio=False):
                _faces(run, recording, source)
        wanted = [recording for recording in job.recordings if run.wants_visual(recording)]
        if wanted:
            _visual(run, wanted, clock)
        with failing(run, job.recordings, visual=False, audio=True):
            _audio(run, first, clock)
    run.outcome.seconds = time.perf_counter() - began
    return run.outcome


def _clock_and_detections(run: Pass, chain: Chain, recording: Recording) -> tuple[NDArray[np.float64], SourceIdentity]:
    """The recording's clock, and its faces in the store: one decode for whichever of the two is missing."""
    began = time.perf_counter()
    path = recording.video or recording.images
    if path is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    source = source_identity(path)
    key = recording.video_id
    clock = None  # of a video whose frames nobody has counted yet
    if not run.job.wants(chain.clock, key):
        clock = run.store.read(key, chain.clock.id).astype(np.float64)
    elif recording.video is None:
        clock = _image_clock(recording)
    rows = None
    if run.job.wants(chain.detections, key):
        reader = _reader(recording, clock)
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
        clock = times if clock is None else clock
        _same_length(recording, len(rows), len(clock))
    elif clock is None:
        assert recording.video is not None
        clock = VideoReader(recording.video).clock()
    if run.job.wants(chain.clock, key):
        run.publish(key, chain.clock, clock, source, began)
    if rows is not None and chain.detections is not None:
        run.publish(key, chain.detections, rows, source, began)
    return clock, source


def _reader(recording: Recording, clock: NDArray[np.float64] | None) -> VideoReader | ImageReader:
    """The frames of a recording: of its video, or of its folder of images on a known clock."""
    if recording.video is not None:
        return VideoReader(recording.video)
    if recording.images is None or clock is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    return ImageReader(recording.images, clock)


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
        with failing(run, [recording], visual=True, audio=False):
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
        with failing(run, filmed, visual=True, audio=False):
            _encode_pictures(run, filmed, _reader(filmed[0], clock), clock, tracks)


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
        source = identity_of(recording, "visual")
        if recording.aligned and encoder.reads == "landmarks":
            reason = f"{spec.name} needs landmarks, and cropped_aligned images carry none"
            run.fail(recording.id, spec, reason, source)
            continue
        encode, shape = run.loaded.encode(spec, encoder)
        writer = run.store.writer(
            recording.id,
            spec,
            frames=length,
            row_shape=shape,
            source=source,
            versions=run.versions,
            video_id=recording.video_id,
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
