"""The stages the pictures of one video go through: decode, detect, follow, align. Knows nothing of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.engine.batcher import Batcher, BatchSlice
from aupipe.extract.engine.crops import Crops, KeptCrops, track_crops, whole_crops
from aupipe.extract.engine.item_writer import Sink
from aupipe.extract.engine.job_context import JobContext, failing, failing_alone
from aupipe.extract.faces.face_table import FaceTable
from aupipe.extract.faces.sparse_detection import SparseDetection
from aupipe.extract.faces.tracking import subject_track
from aupipe.extract.imaging.templates import CropTemplate, is_cut_on_host
from aupipe.extract.media.images import ImageReader, image_length
from aupipe.extract.media.prefetch import ahead
from aupipe.extract.media.video import FrameBuffer, FrameChunk, HostFrameBuffer, VideoReader, in_order
from aupipe.extract.memory import KEPT_BYTES, KEPT_ON_DEVICE_BYTES, RING_BYTES, Budget
from aupipe.extract.meter import Meter
from aupipe.extract.planning.features import FeatureGraph
from aupipe.types import FaceTrack, FeatureSpec, Recording

SOUND = ("audio", "text")


@dataclass
class Stages:
    """What the videos of one process share: pools of inputs, memory, the meter, and the way to the writer."""

    batches: Batcher[Sink]
    write: Callable[[Callable[[], None]], None]  # have the writer's thread do something, in order; may wait
    meter: Meter = field(default_factory=Meter)
    ring: Budget = field(default_factory=lambda: Budget(RING_BYTES))
    kept: Budget = field(default_factory=lambda: Budget(KEPT_BYTES))
    kept_on_device: Budget = field(default_factory=lambda: Budget(KEPT_ON_DEVICE_BYTES))

    def frames_of(self, reader: VideoReader | ImageReader, run: JobContext) -> Any:
        """The chunks of a reader, decoded ahead within the ring's bytes; a context manager."""
        return closing(ahead(reader, self.ring, self.meter, run.on_frames, run.job.video_id))


def film(run: JobContext, stages: Stages, hear: Callable[[NDArray[np.float64]], None]) -> None:
    """Everything visual of one video, up to the encoders' pools; ``hear`` gets its clock for the sound.

    Bad media fails its own items by name. Raises what no recording is the reason of: a full disk, missing weights.
    """
    video = _Video(run, stages)
    with failing(run, run.job.recordings, "visual", *SOUND):
        try:
            clock = video.scan()
            run.outcome.frames = len(clock)
            hear(clock)
            video.encode(clock)
        finally:
            video.kept.drop()


@dataclass
class _Video:
    """One video on its way: what the first look at it left for the second."""

    run: JobContext
    stages: Stages
    faces: FaceTable | None = None  # of every frame, when this pass has found them
    kept: KeptCrops = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.run.job.recordings[0]
        self.graph: FeatureGraph = self.run.loaded.parts.graph(self.first)
        self.kept = KeptCrops(self._templates(), self.stages.kept, self.stages.kept_on_device)

    def _templates(self) -> list[CropTemplate]:
        """What the crops are wanted for that are cut from the video itself."""
        recordings = [recording for recording in self.run.job.recordings if not recording.aligned]
        reads = [item.encoder.reads for item in self.run.open_items(recordings, "visual")]
        return list(dict.fromkeys(read for read in reads if isinstance(read, CropTemplate)))

    def _canvas(self) -> Callable[[], FrameBuffer]:
        """Where frames are decoded to: the device, unless all that is cut from them is cut on the host."""
        on_host = self.graph.faces is None or (self.kept.templates and all(map(is_cut_on_host, self.kept.templates)))
        return HostFrameBuffer if on_host else self.run.loaded.frame_buffer

    # The first look: how many frames, when, and where the faces are ---------------------------------------------------

    def scan(self) -> NDArray[np.float64]:
        """The clock (T,), the faces and, as far as there is room, the crops: one decode for all that is missing."""
        run, graph, key = self.run, self.graph, self.first.video_id
        began = time.perf_counter()
        clock = None  # of a video whose frames nobody has counted yet
        if not run.job.wants(graph.clock, key):
            clock = run.read_input(self.first, graph.clock).astype(np.float64)
            run.recall_media(run.store.published(key, graph.clock.id))
        elif self.first.video is None:
            clock = _image_clock(self.first)
        if graph.detections is not None and run.job.wants(graph.detections, key):
            with failing(run, run.job.recordings, "visual"):  # a detector that breaks leaves the sound alone
                clock = self._detect(clock)
        if clock is None:
            clock = self._count()
        if run.job.wants(graph.clock, key):
            self._publish(graph.clock, [clock], len(clock), began, "visual", *SOUND)
        if self.faces is not None and graph.detections is not None:
            blocks = self.faces.dense(run.loaded.parts.faces.max_faces)
            self._publish(graph.detections, blocks, len(clock), began, "visual")
        return clock

    def _publish(
        self,
        spec: FeatureSpec,
        blocks: Iterable[NDArray[Any]],
        frames: int,
        began_s: float,
        *needed_by: str,
        recording: Recording | None = None,
    ) -> None:
        """Have an item written that others are computed from; when it cannot be, those fail."""
        run = self.run
        owner = recording or self.first

        def publish() -> None:
            with failing(run, [owner] if recording else run.job.recordings, *needed_by):
                run.publish(owner, spec, blocks, frames, began_s)
            run.end()

        run.begin()
        self.stages.write(publish)

    def _count(self) -> NDArray[np.float64]:
        """The clock of a video, and its whole pictures where no face is asked for."""
        assert self.first.video is not None
        reader = VideoReader(self.first.video)
        keep = bool(self.kept.templates) and self.graph.faces is None
        reader.wanted = lambda row: keep and not self.kept.full
        with self.stages.frames_of(reader, self.run) as chunks:
            for frames in chunks:
                with self.stages.meter.timed("align", len(frames)):
                    self.kept.add_whole(frames)
        self.run.note_media("video", reader.report)
        return in_order(np.array(reader.times_s), self.first.video)

    def _detect(self, clock: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Find the faces of a video and keep their crops while there is room; its clock."""
        run, meter = self.run, self.stages.meter
        every = run.loaded.parts.faces.detect_every
        reader = _reader(self.first, clock, HostFrameBuffer if every > 1 else self._canvas())
        with meter.timed("load"):
            find = run.loaded.finder()
        sparse = SparseDetection(every, find) if every > 1 else None
        tables: list[FaceTable] = []
        rows: list[NDArray[np.int64]] = []
        with self.stages.frames_of(reader, self.run) as chunks:
            if sparse is not None:
                for frames in chunks:
                    with meter.timed("detect", len(frames)):
                        sparse.push(frames)
            else:
                for frames, found in find.over(chunks, meter):
                    tables.append(found)
                    rows.append(frames.index)
                    if self.kept.templates:
                        with meter.timed("align", len(frames)):
                            self.kept.add_faces(frames, found)
        if isinstance(reader, VideoReader):
            run.note_media("video", reader.report)
            if clock is None:
                clock = in_order(np.array(reader.times_s), reader.path)
            _same_length(self.first, reader.decoded, len(clock))
        assert clock is not None  # a folder of images is read on a known one
        if sparse is not None:
            with meter.timed("detect"):
                self.faces = sparse.finish(len(clock))
        else:
            index = np.concatenate(rows) if rows else np.zeros(0, np.int64)
            self.faces = FaceTable.joined(tables).spread(index, len(clock))
        return clock

    # The second look: the subject's crops to the encoders -------------------------------------------------------------

    def encode(self, clock: NDArray[np.float64]) -> None:
        """Hand the inputs of every open visual item to the encoders; each recording fails on its own."""
        run = self.run
        tracks: dict[str, FaceTrack | None] = {}
        for recording in run.job.recordings:
            with failing(run, [recording], "visual"):
                if recording.aligned:
                    self._encode_images(recording, clock)
                elif run.open_items([recording], "visual"):
                    tracks[recording.id] = self._track(recording)
        if tracks:
            filmed = [recording for recording in run.job.recordings if recording.id in tracks]
            with failing(run, filmed, "visual"):
                self._encode_video(filmed, clock, tracks)

    def _track(self, recording: Recording) -> FaceTrack | None:
        """The subject's face, from the store or from the faces found; None where whole pictures are encoded."""
        run, graph = self.run, self.run.loaded.parts.graph(recording)
        if graph.faces is None or graph.detections is None:
            return None
        began = time.perf_counter()
        if not run.job.wants(graph.faces, recording.id):
            track = FaceTrack.from_rows(run.read_input(recording, graph.faces))
        else:
            if self.faces is None:
                self.faces = FaceTable.from_dense(run.read_input(recording, graph.detections))
            params = run.loaded.parts.track
            if recording.subject:
                params = replace(params, subject=recording.subject)
            with self.stages.meter.timed("align"):
                track = subject_track(self.faces, params)
            self._publish(graph.faces, [track.to_rows()], len(track), began, "visual", recording=recording)
        run.outcome.faces[recording.id] = int(track.valid.sum())
        return track

    def _encode_images(self, recording: Recording, clock: NDArray[np.float64]) -> None:
        """Aligned crops somebody else has made, as they are."""
        if recording.images is None:
            raise RecordingError(f"no cropped_aligned folder for track {recording.id!r}")
        reader = ImageReader(recording.images, clock)
        sinks = self._sinks([recording], len(clock))
        with self._filling(sinks), self.stages.frames_of(reader, self.run) as chunks:
            for frames in chunks:
                self._put_chunk(sinks, frames, {recording.id: None})
            self.run.outcome.notes += reader.notes

    def _encode_video(
        self, recordings: list[Recording], clock: NDArray[np.float64], tracks: dict[str, FaceTrack | None]
    ) -> None:
        """The kept crops of the subjects, and from where those end, a second decode of the frames that are wanted."""
        sinks = self._sinks(recordings, len(clock))
        with self._filling(sinks):
            cropped = []
            wanted = np.zeros(len(clock), dtype=bool)
            for sink in sinks:
                track = tracks[sink.item.recording.id]
                if isinstance(sink.item.encoder.reads, CropTemplate):
                    cropped.append(sink)
                    wanted |= True if track is None else track.valid
                elif track is not None:  # landmarks need no picture
                    self._put(sink, index := np.flatnonzero(track.valid), track.landmarks[index])
            self._put_kept(cropped, tracks, len(clock))
            wanted[: self.kept.complete] = False
            if cropped and wanted.any():
                self._put_decoded(cropped, tracks, clock, wanted)

    def _put_kept(self, sinks: list[Sink], tracks: dict[str, FaceTrack | None], length: int) -> None:
        everybody = np.zeros(length, np.int64)  # of whole pictures there is one in each frame, the first
        choices = {
            name: everybody if track is None or self.faces is None else self.faces.chosen(track.box)
            for name, track in tracks.items()
        }
        picked = [(choices[sink.item.recording.id], sink.item.encoder.reads) for sink in sinks]
        for pieces in self.kept.chosen(picked):
            for sink, (index, crops) in zip(sinks, pieces, strict=True):
                self._put(sink, index, crops)

    def _put_decoded(
        self,
        sinks: list[Sink],
        tracks: dict[str, FaceTrack | None],
        clock: NDArray[np.float64],
        wanted: NDArray[np.bool_],
    ) -> None:
        reader = _reader(self.first, clock, self._canvas())
        if isinstance(reader, VideoReader):
            reader.wanted = lambda row: row < len(wanted) and bool(wanted[row])
        with self.stages.frames_of(reader, self.run) as chunks:
            for frames in chunks:
                frames = frames.those(wanted[frames.index])
                self._put_chunk(sinks, frames, tracks)
        if isinstance(reader, VideoReader):
            self.run.note_media("video", reader.report)  # news where the stored clock is of an older aupipe
            _same_length(self.first, len(reader.times_s), len(clock))

    def _put_chunk(self, sinks: list[Sink], frames: FrameChunk, tracks: dict[str, FaceTrack | None]) -> None:
        """The crops of a chunk, one for each recording and template; whole pictures where there is no track."""
        made: dict[tuple[str, CropTemplate], tuple[NDArray[np.int64], Crops]] = {}
        for sink in sinks:
            name, template = key = sink.item.recording.id, sink.item.encoder.reads
            if key not in made:
                track = tracks[name]
                with self.stages.meter.timed("align", len(frames)):
                    made[key] = (
                        (frames.index, whole_crops(frames, template))
                        if track is None
                        else track_crops(frames, track, template)
                    )
            self._put(sink, *made[key])

    def _put(self, sink: Sink, index: NDArray[np.int64], inputs: Any) -> None:
        if len(index) and not sink.dead:
            self.stages.batches.put(sink.item.spec.id, BatchSlice(sink, sink.expect(index), inputs))

    def _sinks(self, recordings: list[Recording], length: int) -> list[Sink]:
        """A place for the rows of every open visual item."""
        run = self.run
        sinks = []
        for item in run.open_items(recordings, "visual"):
            with failing_alone(run, item):
                if item.encoder.reads == "landmarks" and run.loaded.parts.graph(item.recording).faces is None:
                    kind = "cropped_aligned images" if item.recording.aligned else "whole pictures"
                    raise RecordingError(f"{item.spec.name} needs landmarks, and {kind} carry none")
                with self.stages.meter.timed("load"):
                    _, shape = run.loaded.encode(item.spec, item.encoder)
                run.begin()
                sinks.append(Sink(run, item, shape, length))
        return sinks

    @contextmanager
    def _filling(self, sinks: list[Sink]) -> Iterator[None]:
        """Fill sinks inside: left well they are finished, left by an error they are given up."""
        try:
            yield
        except BaseException:
            for sink in sinks:
                self.stages.write(sink.abandon)
            raise
        for sink in sinks:
            self.stages.write(sink.finish)


def _reader(
    recording: Recording, clock: NDArray[np.float64] | None, frame_buffer: Callable[[], FrameBuffer]
) -> VideoReader | ImageReader:
    """The frames of a recording: of its video, or of its folder of images on a known clock."""
    if recording.video is not None:
        return VideoReader(recording.video, frame_buffer=frame_buffer)
    if recording.images is None or clock is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    return ImageReader(recording.images, clock)


def _image_clock(recording: Recording) -> NDArray[np.float64]:
    """(T,) times of a folder of images without a video: row / fps."""
    if recording.images is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    if recording.fps is None:
        raise RecordingError(f"{recording.images}: images carry no clock; set [dataset] fps")
    return np.arange(image_length(recording.images)) / recording.fps


def _same_length(recording: Recording, found: int, clock: int) -> None:
    if found != clock:
        raise RecordingError(
            f"{recording.video}: gives {found} frames now and gave {clock} before: aupipe extract --force"
        )
