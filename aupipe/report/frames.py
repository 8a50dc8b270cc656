"""The pictures of a recording beside the faces that the store holds of them, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from aupipe.errors import UsageError
from aupipe.extract.engine.resources import confirm_length, open_frames
from aupipe.extract.media.frame_buffer import HostFrameBuffer
from aupipe.extract.media.video import VideoReader
from aupipe.extract.planning.features import FeatureSet
from aupipe.report.drawing import Picture
from aupipe.report.faces import RecordingFaces, read_faces
from aupipe.sources import source_identity
from aupipe.store import Store
from aupipe.types import Recording


def stored_faces(store: Store, features: FeatureSet, recording: Recording) -> RecordingFaces:
    """The faces of a recording. Raises UsageError where they are not stored, or are of another file than there is."""
    if recording.aligned:
        raise UsageError(f"{recording.id} has aligned crops: no face was looked for in them")
    faces = read_faces(store, features, recording)
    if faces is None or not len(faces):
        raise UsageError(f"{recording.id}: no faces are stored: aupipe extract --modality visual")
    refuse_changed(store, features, recording)
    return faces


def refuse_changed(store: Store, features: FeatureSet, recording: Recording) -> None:
    """Raises UsageError where the stored clock is that of another file than there is."""
    known = store.published(recording.video_id, features.graph(recording).clock.id).source
    path = recording.video or recording.images
    if known is not None and path is not None and source_identity(path, like=known.digest).digest != known.digest:
        raise UsageError(f"{recording.id}: {path} has changed since its faces were found: aupipe extract")


def pictures(
    recording: Recording, faces: RecordingFaces, wanted: Callable[[int], bool] = lambda row: True
) -> Iterator[tuple[int, Picture]]:
    """The rows that are wanted, with their pictures (H, W, 3) RGB, upright. Missing images of a folder are left out.

    Raises RecordingError where the video cannot be decoded, or, at its end, has another number of frames than rows.
    """
    reader = open_frames(recording, np.asarray(faces.times_s), HostFrameBuffer)
    if isinstance(reader, VideoReader):
        reader.wanted = wanted
    for chunk in reader:
        for row, picture in zip(chunk.index, chunk.rgb, strict=True):
            if row < len(faces) and wanted(int(row)):
                yield int(row), picture
    if isinstance(reader, VideoReader):
        confirm_length(recording, reader.decoded, len(faces))
