"""What the jobs of one engine share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import RecordingError
from aupipe.extract.engine.batcher import Batcher
from aupipe.extract.engine.job_rows import ItemRows
from aupipe.extract.engine.models import ModelCache
from aupipe.extract.media.frame_buffer import FrameBuffer
from aupipe.extract.media.images import ImageReader
from aupipe.extract.media.prefetch import prefetch
from aupipe.extract.media.video import VideoReader
from aupipe.extract.memory import KEPT_BYTES, KEPT_ON_DEVICE_BYTES, PREFETCH_BYTES, Budget
from aupipe.extract.meter import Meter
from aupipe.types import Recording


@dataclass
class Resources:
    """Models, encoder queues, budgets of memory, and the meter."""

    models: ModelCache
    batcher: Batcher[ItemRows]
    meter: Meter = field(default_factory=Meter)
    prefetched: Budget = field(default_factory=lambda: Budget(PREFETCH_BYTES))
    kept: Budget = field(default_factory=lambda: Budget(KEPT_BYTES))
    kept_on_device: Budget = field(default_factory=lambda: Budget(KEPT_ON_DEVICE_BYTES))

    def chunks(self, reader: VideoReader | ImageReader, video_id: str, on_frames: Callable[[int], None]) -> Any:
        """The chunks of a reader, decoded ahead within the prefetch budget; a context manager."""
        return closing(prefetch(reader, self.prefetched, self.meter, on_frames, video_id))


def open_frames(
    recording: Recording, clock: NDArray[np.float64] | None, frame_buffer: Callable[[], FrameBuffer]
) -> VideoReader | ImageReader:
    """The frames of a recording: of its video, or of its folder of images on a known clock."""
    if recording.video is not None:
        return VideoReader(recording.video, frame_buffer=frame_buffer, stream=recording.streams.video)
    if recording.images is None or clock is None:
        raise RecordingError(f"no video or image folder for {recording.id!r}")
    return ImageReader(recording.images, clock)


def confirm_length(recording: Recording, found: int, clock: int) -> None:
    """Raises RecordingError where a video gives another number of frames than its clock has rows."""
    if found != clock:
        raise RecordingError(
            f"{recording.video}: gives {found} frames now and gave {clock} before: aupipe extract --force"
        )
