"""The first pass over a video: how many frames it has and when, where the faces are, and crops of them all.

One decode for all that is missing. The crops are kept, as far as there is memory, until the subject is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.engine.crops import KeptCrops
from aupipe.extract.engine.job_context import JobContext, failing
from aupipe.extract.engine.job_rows import JobRows
from aupipe.extract.engine.resources import Resources, confirm_length, open_frames
from aupipe.extract.faces.detection import FaceDetector
from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.faces.sparse_detection import SparseDetection
from aupipe.extract.imaging.templates import CropTemplate, is_cut_on_host
from aupipe.extract.media.frame_buffer import FrameBuffer, FrameChunk, HostFrameBuffer
from aupipe.extract.media.images import ImageReader, image_length
from aupipe.extract.media.video import VideoReader
from aupipe.extract.meter import Meter
from aupipe.types import FeatureSpec, Recording

SOUND = ("audio", "text")


@dataclass
class VideoScan:
    """``clock`` (T,): seconds. ``faces``: of every frame, where this pass has looked for them. ``kept``: crops.
    ``publish_clock``: to be called before anything on this clock is published; any thread may, it is done once."""

    clock: NDArray[np.float64]
    faces: FaceTable | None
    kept: KeptCrops
    publish_clock: Callable[[], None]


def scan_video(context: JobContext, resources: Resources, kept: KeptCrops, rows: JobRows) -> VideoScan:
    """The clock, the faces and the crops of a job's video.

    What is missing of clock and detections is published before any item that is computed from them, but not here, where
    others wait for their turn to decode.
    """
    first, job = context.job.recordings[0], context.job
    graph, key = context.features.graph(first), first.video_id
    began_s = time.perf_counter()
    clock = faces = None
    if not job.wants(graph.clock, key):
        clock = context.read_input(first, graph.clock).astype(np.float64)
        context.recall_media(context.store.published(key, graph.clock.id))
    elif first.video is None:
        clock = image_clock(first)
    if graph.detections is not None and job.wants(graph.detections, key):
        with failing(context, job.recordings, "visual"):  # a detector that breaks leaves the sound alone
            clock, faces = _detect(context, resources, kept, clock)
    if clock is None:
        clock = _count(context, resources, kept)
    publish_clock = once()
    if job.wants(graph.clock, key):
        arguments = context, graph.clock, [clock], len(clock), began_s, "visual", *SOUND
        publish_clock = once(partial(publish_input, *arguments))
        rows.publish_first(publish_clock)
    if faces is not None and graph.detections is not None:
        blocks = faces.dense(context.features.faces.max_faces)
        rows.publish_first(partial(publish_input, context, graph.detections, blocks, len(clock), began_s, "visual"))
    return VideoScan(clock, faces, kept, publish_clock)


def once(*wanted: Callable[[], None]) -> Callable[[], None]:
    """A function that makes these calls the first time; who calls it meanwhile waits for that."""
    lock, calls = threading.Lock(), list(wanted)

    def call_once() -> None:
        with lock:
            while calls:
                calls.pop()()

    return call_once


def publish_input(
    context: JobContext,
    spec: FeatureSpec,
    blocks: Iterable[NDArray[Any]],
    frames: int,
    began_s: float,
    *needed_by: str,
    recording: Recording | None = None,
) -> None:
    """Publish an item that others are computed from; when it cannot be written, those fail.

    ``recording``: whose item it is; None for one that all recordings of the video share.
    """
    owner = recording or context.job.recordings[0]
    with failing(context, [owner] if recording else context.job.recordings, *needed_by):
        context.publish(owner, spec, blocks, frames, began_s)


def crops_to_keep(context: JobContext, resources: Resources) -> KeptCrops:
    """Crops for every template that is cut from the video itself; none yet."""
    templates = list(dict.fromkeys(item.encoder.reads for item in _cropped_items(context)))
    return KeptCrops(templates, resources.kept, resources.kept_on_device)


def frame_buffer_for(context: JobContext, resources: Resources, kept: KeptCrops) -> Callable[[], FrameBuffer]:
    """Where frames are decoded to: the device, unless all that is cut from them is cut or read on the host."""
    first = context.job.recordings[0]
    if context.features.graph(first).faces is None:
        return HostFrameBuffer
    if kept.templates and not any(_is_cut_on_device(item, resources) for item in _cropped_items(context)):
        return HostFrameBuffer
    return resources.models.device.frame_buffer


def _cropped_items(context: JobContext) -> list[Any]:
    recordings = [recording for recording in context.job.recordings if not recording.aligned]
    items = context.open_items(recordings, "visual")
    return [item for item in items if isinstance(item.encoder.reads, CropTemplate)]


def _is_cut_on_device(item: Any, resources: Resources) -> bool:
    return not is_cut_on_host(item.encoder.reads) and resources.models.encoder(item.spec, item.encoder).is_on_device


def _count(context: JobContext, resources: Resources, kept: KeptCrops) -> NDArray[np.float64]:
    """The clock of a video, and its whole pictures where no face is asked for."""
    first = context.job.recordings[0]
    assert first.video is not None
    reader = VideoReader(first.video, stream=first.streams.video)
    keep = bool(kept.templates) and context.features.graph(first).faces is None
    reader.wanted = lambda row: keep and not kept.full
    with _scanning(context, resources, reader) as chunks:
        for frames in chunks:
            with resources.meter.timed("align", len(frames)):
                kept.add_whole(frames)
    context.note_media("video", reader.report)
    return reader.ordered_clock()


@contextmanager
def _scanning(context: JobContext, resources: Resources, reader: VideoReader | ImageReader) -> Iterator[Any]:
    """The chunks of a reader, and the phase in which they are read."""
    video = context.job.video_id
    with (
        resources.meter.phase(video, "scan", reader.position),
        resources.chunks(reader, video, context.on_frames) as chunks,
    ):
        yield chunks


def _detect(
    context: JobContext, resources: Resources, kept: KeptCrops, clock: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], FaceTable]:
    """The clock of a video and its faces; crops are kept while there is memory."""
    first, meter = context.job.recordings[0], resources.meter
    every = context.features.faces.detect_every
    buffer = HostFrameBuffer if every > 1 else frame_buffer_for(context, resources, kept)
    reader = open_frames(first, clock, buffer)
    with resources.models.face_detector() as detector:
        sparse = SparseDetection(every, detector) if every > 1 else None
        rows, table = np.zeros(0, np.int64), FaceTable.joined([])
        with _scanning(context, resources, reader) as chunks:
            if sparse is None:
                rows, table = detect_chunks(chunks, detector, meter, kept)
            else:
                for frames in chunks:
                    with meter.timed("detect", len(frames)):
                        sparse.push(frames)
        if isinstance(reader, VideoReader):
            context.note_media("video", reader.report)
            if clock is None:
                clock = reader.ordered_clock()
            confirm_length(first, reader.decoded, len(clock))
        assert clock is not None  # a folder of images is read on a known one
        if sparse is None:
            return clock, table.spread(rows, len(clock))
        with meter.timed("detect"):
            return clock, sparse.finish(len(clock))


def detect_chunks(
    chunks: Iterable[FrameChunk], detector: FaceDetector, meter: Meter, kept: KeptCrops
) -> tuple[NDArray[np.int64], FaceTable]:
    """The rows (n,) that have a picture, and the faces of each; their crops go to ``kept``."""
    tables: list[FaceTable] = []
    rows: list[NDArray[np.int64]] = []
    for frames, faces in detector.over(chunks, meter):
        tables.append(faces)
        rows.append(frames.index)
        if kept.templates:
            with meter.timed("align", len(frames)):
                kept.add_faces(frames, faces)
    return np.concatenate(rows) if rows else np.zeros(0, np.int64), FaceTable.joined(tables)


def image_clock(recording: Recording) -> NDArray[np.float64]:
    """(T,) times of a folder of images without a video: row / fps."""
    if recording.images is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    if recording.fps is None:
        raise RecordingError(f"{recording.images}: images carry no clock; set [dataset] fps")
    return np.arange(image_length(recording.images)) / recording.fps
