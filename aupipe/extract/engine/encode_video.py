"""The second pass: the crops of each recording's subject to the encoders."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.engine.batcher import BatchSlice
from aupipe.extract.engine.crops import Crops, track_crops, whole_crops
from aupipe.extract.engine.job_context import JobContext, OpenItem, failing, failing_alone
from aupipe.extract.engine.job_rows import ItemRows, JobRows
from aupipe.extract.engine.resources import Resources, confirm_length, open_frames
from aupipe.extract.engine.scan_video import VideoScan, frame_buffer_for, publish_input
from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.faces.tracking import subject_track
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.extract.media.clock import length_of
from aupipe.extract.media.frame_buffer import FrameChunk
from aupipe.extract.media.images import ImageReader
from aupipe.extract.media.report import MediaReport
from aupipe.extract.media.video import VideoReader
from aupipe.extract.meter import Meter
from aupipe.types import FaceTrack, Recording

Tracks = Mapping[str, FaceTrack | None]  # recording -> its subject; None where whole pictures are encoded


def encode_video(context: JobContext, resources: Resources, scan: VideoScan, rows: JobRows) -> None:
    """Hand the inputs of every open visual item to the encoders; each recording fails on its own."""
    if not context.open_items(context.job.recordings, "visual"):
        return
    feed = Feed(resources, rows)
    tracks: dict[str, FaceTrack | None] = {}
    with resources.meter.phase(context.job.video_id, "encode", partial(_position, feed, scan.clock)):
        for recording in context.job.recordings:
            with failing(context, [recording], "visual"):
                if recording.aligned:
                    _encode_images(context, feed, recording, scan.clock)
                elif context.open_items([recording], "visual"):
                    tracks[recording.id] = _track(context, resources, scan, rows, recording)
        if tracks:
            from_video = [recording for recording in context.job.recordings if recording.id in tracks]
            with failing(context, from_video, "visual"):
                _encode_frames(context, feed, scan, from_video, tracks)
        feed.row = len(scan.clock)  # after the last face there was nothing to hand over


def _position(feed: Feed, clock: NDArray[np.float64]) -> tuple[float, float]:
    """Seconds of the clock behind the last picture that was handed over, and those of the whole clock."""
    return length_of(clock[: feed.row + 1]), length_of(clock)


class Feed:
    """The way of one job's inputs to the encoders; rows that have come back are written on the way."""

    def __init__(self, resources: Resources, rows: JobRows) -> None:
        self.resources, self.rows = resources, rows
        self.row = 0  # of the last picture whose crops were handed over

    def put(self, item: ItemRows, index: NDArray[np.int64], inputs: Any) -> None:
        """Inputs (n, ...) of rows ``index`` (n,); blocks while the encoder's queue is full."""
        if len(index) and not item.is_resolved:
            self.resources.batcher.put(item.item.spec.id, BatchSlice(item, item.expect(index), inputs))
            self.rows.write_arrived()

    def items(self, context: JobContext, recordings: Sequence[Recording], length: int) -> list[ItemRows]:
        """Every open visual item of these recordings, to be filled."""
        found = []
        for item in context.open_items(recordings, "visual"):
            with failing_alone(context, item):
                _refuse_missing_landmarks(context, item)
                with self.resources.meter.timed("load"):
                    loaded = self.resources.models.encoder(item.spec, item.encoder)
                found.append(self.rows.add(context, item, loaded.row_shape, length))
        return found


@contextmanager
def _filling(items: Sequence[ItemRows]) -> Iterator[None]:
    """Inside, items are fed: when it is left well they are complete, when by an error they are dropped."""
    try:
        yield
    except BaseException:
        for item in items:
            item.discard()
        raise
    for item in items:
        item.is_fed = True


def _refuse_missing_landmarks(context: JobContext, item: OpenItem) -> None:
    if item.encoder.reads == "landmarks" and context.features.graph(item.recording).faces is None:
        kind = "cropped_aligned images" if item.recording.aligned else "whole pictures"
        raise RecordingError(f"{item.spec.name} needs landmarks, and {kind} carry none")


def _track(
    context: JobContext, resources: Resources, scan: VideoScan, rows: JobRows, recording: Recording
) -> FaceTrack | None:
    """The subject's face, from the store or from the faces found; None where whole pictures are encoded."""
    graph = context.features.graph(recording)
    if graph.faces is None or graph.detections is None:
        return None
    began_s = time.perf_counter()
    if not context.job.wants(graph.faces, recording.id):
        track = FaceTrack.from_rows(context.read_input(recording, graph.faces))
    else:
        if scan.faces is None:
            scan.faces = FaceTable.from_dense(context.read_input(recording, graph.detections))
        params = context.features.track
        if recording.subject:
            params = replace(params, subject=recording.subject)
        with resources.meter.timed("align"):
            track = subject_track(scan.faces, params)
        arguments = context, graph.faces, [track.to_rows()], len(track), began_s, "visual"
        rows.publish_first(partial(publish_input, *arguments, recording=recording))
    context.result.faces[recording.id] = int(track.valid.sum())
    return track


def _encode_images(context: JobContext, feed: Feed, recording: Recording, clock: NDArray[np.float64]) -> None:
    """Aligned crops somebody else has made, as they are."""
    if recording.images is None:
        raise RecordingError(f"no cropped_aligned folder for track {recording.id!r}")
    reader = ImageReader(recording.images, clock)
    items = feed.items(context, [recording], len(clock))
    with _filling(items), feed.resources.chunks(reader, context.job.video_id, context.on_frames) as chunks:
        for frames in chunks:
            _put_chunk(feed, items, frames, {recording.id: None})
        context.result.notes += reader.notes


def _encode_frames(
    context: JobContext, feed: Feed, scan: VideoScan, recordings: Sequence[Recording], tracks: Tracks
) -> None:
    """The kept crops of the subjects, and from where those end, a second decode of the frames that are wanted."""
    items = feed.items(context, recordings, len(scan.clock))
    with _filling(items):
        cropped = []
        wanted = np.zeros(len(scan.clock), dtype=bool)
        for item in items:
            track = tracks[item.item.recording.id]
            if isinstance(item.item.encoder.reads, CropTemplate):
                cropped.append(item)
                wanted |= True if track is None else track.valid
            elif track is not None:  # landmarks need no picture
                index = np.flatnonzero(track.valid)
                feed.put(item, index, track.landmarks[index])
        _put_kept(feed, cropped, scan, tracks)
        wanted[: scan.kept.complete] = False
        if cropped and wanted.any():
            _put_decoded(context, feed, cropped, scan, tracks, wanted)


def _put_kept(feed: Feed, items: Sequence[ItemRows], scan: VideoScan, tracks: Tracks) -> None:
    everybody = np.zeros(len(scan.clock), np.int64)  # of whole pictures there is one in each frame, the first
    choices = {
        name: everybody if track is None or scan.faces is None else scan.faces.chosen(track.box)
        for name, track in tracks.items()
    }
    picked = [(choices[item.item.recording.id], item.item.encoder.reads) for item in items]
    for pieces in scan.kept.chosen(picked):
        for item, (index, crops) in zip(items, pieces, strict=True):
            feed.put(item, index, crops)
            feed.row = max(feed.row, int(index[-1]) if len(index) else 0)


def _put_decoded(
    context: JobContext,
    feed: Feed,
    items: Sequence[ItemRows],
    scan: VideoScan,
    tracks: Tracks,
    wanted: NDArray[np.bool_],
) -> None:
    first = context.job.recordings[0]
    reader = open_frames(first, scan.clock, frame_buffer_for(context, feed.resources, scan.kept))
    if isinstance(reader, VideoReader):
        reader.wanted = lambda row: row < len(wanted) and bool(wanted[row])
    with feed.resources.chunks(reader, context.job.video_id, context.on_frames) as chunks:
        for frames in chunks:
            _put_chunk(feed, items, frames.select(wanted[frames.index]), tracks)
    if isinstance(reader, VideoReader):
        context.note_media("video", reader.report)  # news where the stored clock is of an older aupipe
        confirm_length(first, len(reader.times_s), len(scan.clock))
        _confirm_pictures(context, first, reader.report)


def _confirm_pictures(context: JobContext, recording: Recording, report: MediaReport) -> None:
    """Raises RecordingError where stored boxes lie in pictures that were neither mirrored nor stretched, as before."""
    graph = context.features.graph(recording)
    if graph.detections is None or context.job.wants(graph.detections, recording.video_id):
        return
    stored = context.store.published(recording.video_id, graph.detections.id).media.get("video", {})
    was = MediaReport.from_json(stored)
    if (was.mirrored, was.pixel_aspect) != (report.mirrored, report.pixel_aspect):
        raise RecordingError(
            f"{recording.video}: its faces were found by an earlier version in pictures that were not mirrored or "
            "stretched as the file says: aupipe extract --force"
        )


def _put_chunk(feed: Feed, items: Sequence[ItemRows], frames: FrameChunk, tracks: Tracks) -> None:
    """The crops of a chunk, one for each recording and template."""
    made: dict[tuple[str, CropTemplate], tuple[NDArray[np.int64], Crops]] = {}
    for item in items:
        name, template = key = item.item.recording.id, item.item.encoder.reads
        if key not in made:
            made[key] = crop_chunk(frames, tracks[name], template, feed.resources.meter)
        feed.put(item, *made[key])
    feed.row = max(feed.row, int(frames.index[-1]) if len(frames) else 0)


def crop_chunk(
    frames: FrameChunk, track: FaceTrack | None, template: CropTemplate, meter: Meter
) -> tuple[NDArray[np.int64], Crops]:
    """Rows (n,) of a chunk and their crops (n, S, S, 3): of the subject, or whole pictures where there is no track."""
    with meter.timed("align", len(frames)):
        if track is None:
            return frames.index, whole_crops(frames, template)
        return track_crops(frames, track, template)
