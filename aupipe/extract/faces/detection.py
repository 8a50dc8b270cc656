"""Every face of a chunk of frames, in the form the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces import Detect
from aupipe.extract.faces.face_table import FaceTable, PaddedFaces, pad_faces, to_table
from aupipe.extract.imaging.templates import shrink, shrink_factor
from aupipe.extract.media.frame_buffer import FrameChunk
from aupipe.extract.meter import Meter
from aupipe.types import Frames

if TYPE_CHECKING:
    from aupipe.extract.faces.device_detection import DeviceDetector


def detect_faces(
    rgb: NDArray[np.uint8], detect: Detect, *, detect_px: int, max_faces: int, min_score: float
) -> FaceTable:
    """The faces of frames (T, H, W, 3), at most ``max_faces`` of each, the largest, in pixels of the whole frame.

    ``detect_px``: frames are shrunk by the smallest whole factor that brings the long side to this or below.
    """
    height, width = rgb.shape[1:3]
    factor = shrink_factor(height, width, detect_px)
    return to_table(pad_faces(detect(shrink(rgb, factor))), factor, height, width, max_faces, min_score)


@dataclass(frozen=True)
class FaceDetector:
    """A detector with what the user asks of it; see `detect_faces`.

    ``on_device``: the same detector for frames on a device; where it has none, shrunk pictures go to the host.
    """

    detect: Detect
    detect_px: int
    max_faces: int
    min_score: float
    on_device: DeviceDetector | None = None

    def __call__(self, rgb: NDArray[np.uint8]) -> FaceTable:
        """The faces of frames (T, H, W, 3)."""
        return detect_faces(
            rgb, self.detect, detect_px=self.detect_px, max_faces=self.max_faces, min_score=self.min_score
        )

    def over(self, chunks: Iterable[FrameChunk], meter: Meter) -> Iterator[tuple[FrameChunk, FaceTable]]:
        """Chunks with their faces. Those on a device come one late, so that no thread waits for the device's answer."""
        late: list[tuple[FrameChunk, Callable[[], FaceTable]]] = []
        for frames in chunks:
            with meter.timed("detect", len(frames)):
                late.append((frames, self._begin(frames)))
            while len(late) > (0 if isinstance(frames, Frames) else 1):
                yield self._end(late, meter)
        while late:
            yield self._end(late, meter)

    def _end(
        self, late: list[tuple[FrameChunk, Callable[[], FaceTable]]], meter: Meter
    ) -> tuple[FrameChunk, FaceTable]:
        frames, found = late.pop(0)
        with meter.timed("detect"):
            return frames, found()

    def _begin(self, frames: FrameChunk) -> Callable[[], FaceTable]:
        if isinstance(frames, Frames):
            table = self(frames.rgb)
            return lambda: table
        from aupipe.extract.gpu.frames import DeviceFrames
        from aupipe.extract.gpu.transfer import on_host

        assert isinstance(frames, DeviceFrames)
        height, width = frames.size
        factor = shrink_factor(height, width, self.detect_px)
        if self.on_device is None:
            found = self.detect(on_host(frames.shrunk(factor).permute(0, 2, 3, 1)))
            return lambda: self._table(pad_faces(found), factor, height, width)
        wait = self.on_device.start(frames, factor)

        def end() -> FaceTable:
            places = wait()
            if not places.settled.all():  # as rare as crowds: those frames again, by the patient way
                again = np.flatnonzero(~places.settled)
                pictures = on_host(frames.shrunk(factor).permute(0, 2, 3, 1))[again]
                found = places.to_detections()
                for i, one in zip(again, self.detect(pictures), strict=True):
                    found[i] = one
                places = pad_faces(found)
            return self._table(places, factor, height, width)

        return end

    def _table(self, found: PaddedFaces, factor: int, height: int, width: int) -> FaceTable:
        return to_table(found, factor, height, width, self.max_faces, self.min_score)
