"""A video of a recording with its boxes drawn in, frame k of it row k of the store, at the recording's own times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aupipe.errors import UsageError
from aupipe.files import PRIVATE, refuse_existing, staged_file
from aupipe.report.drawing import Faces, Picture, draw_row
from aupipe.report.faces import RecordingFaces
from aupipe.report.frames import pictures
from aupipe.report.video_file import even, read_sound, write_mp4
from aupipe.types import Recording


def write_overlay(
    recording: Recording,
    stored: RecordingFaces,
    path: Path,
    faces: Faces = "show",
    height: int = 0,
    overwrite: bool = False,
) -> int:
    """Write an mp4 (H.264, AAC) whose k-th frame is row k; returns the number of frames.

    ``height`` in pixels, 0: as the video. With ``faces="none"`` there is no sound either. Raises UsageError for a path
    that exists, unless ``overwrite``, and for one that is no .mp4; RecordingError where the video cannot be decoded.
    """
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"{path}: the video is an mp4: choose a name that ends in .mp4")
    refuse_existing(path, overwrite)

    def drawn() -> Iterator[tuple[float, Picture]]:
        for row, picture in pictures(recording, stored):
            scale = height / picture.shape[0] if height else 1.0
            yield float(stored.times_s[row]), even(draw_row(picture, stored, row, faces), scale)

    sound = read_sound(recording) if faces != "none" else None
    start_s = min(float(stored.times_s[0]), sound.start_s if sound is not None else np.inf)
    with staged_file(path, overwrite, PRIVATE) as staged:
        return write_mp4(staged, drawn(), sound, start_s, {"crf": "20"})
