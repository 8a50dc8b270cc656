"""Every face of a chunk of frames, in the form the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces import Detect
from aupipe.extract.faces.face_table import COLUMNS, FaceTable
from aupipe.extract.imaging.templates import shrink, shrink_factor
from aupipe.extract.media.video import FrameChunk
from aupipe.extract.meter import Meter
from aupipe.types import Detections, Frames

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
    return as_table(in_places(detect(shrink(rgb, factor))), factor, height, width, max_faces, min_score)


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
        """Chunks with their faces. Those on a device come one late, so that nobody waits for the device's answer."""
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
            return lambda: self._table(in_places(found), factor, height, width)
        wait = self.on_device.start(frames, factor)

        def end() -> FaceTable:
            places = wait()
            if not places.settled.all():  # as rare as crowds: those frames again, by the patient way
                again = np.flatnonzero(~places.settled)
                pictures = on_host(frames.shrunk(factor).permute(0, 2, 3, 1))[again]
                found = places.to_detections()
                for i, one in zip(again, self.detect(pictures), strict=True):
                    found[i] = one
                places = in_places(found)
            return self._table(places, factor, height, width)

        return end

    def _table(self, found: FacePlaces, factor: int, height: int, width: int) -> FaceTable:
        return as_table(found, factor, height, width, self.max_faces, self.min_score)


class FacePlaces(NamedTuple):
    """The faces of B frames in K places each, of which the first ``number`` (B,) hold one.

    ``box`` (B, K, 4) xyxy px, ``landmarks`` (B, K, 5, 2) px, ``score`` (B, K); ``settled`` (B,): whether that is sure.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    score: NDArray[np.float32]
    number: NDArray[np.int64]
    settled: NDArray[np.bool_]

    def to_detections(self) -> list[Detections]:
        """Frame by frame."""
        return [
            Detections(self.box[i, :n], self.landmarks[i, :n], self.score[i, :n]) for i, n in enumerate(self.number)
        ]


def in_places(found: Sequence[Detections]) -> FacePlaces:
    """What was found frame by frame, as one array."""
    number = np.array([len(one.score) for one in found], dtype=np.int64)
    shape = len(found), int(number.max(initial=0))
    places = FacePlaces(
        np.zeros((*shape, 4), np.float32),
        np.zeros((*shape, 5, 2), np.float32),
        np.zeros(shape, np.float32),
        number,
        np.ones(len(found), bool),
    )
    for i, one in enumerate(found):
        for place, values in zip(places[:3], (one.box, one.landmarks, one.score), strict=True):
            place[i, : len(values)] = values
    return places


def as_table(
    found: FacePlaces, factor: int, height: int, width: int, max_faces: int, min_score: float = -np.inf
) -> FaceTable:
    """The faces of frames of ``height`` x ``width`` that were shrunk by ``factor``, largest first, ``max_faces`` each.

    Coordinates are those of the whole frame.
    """
    most = int(found.number.max(initial=0))
    score = found.score[:, :most]
    there = (np.arange(most) < found.number[:, None]) & (score >= min_score)  # (B, K)
    box, points = (enlarged(part[:, :most], factor) for part in (found.box, found.landmarks))
    area = np.prod(box[..., 2:] - box[..., :2], axis=-1)
    order = np.lexsort((-area, ~there), axis=1)[:, :max_faces]
    counts = np.minimum(there.sum(axis=1), max_faces)
    row, place = np.nonzero(np.arange(order.shape[1]) < counts[:, None])
    taken = row, order[row, place]
    rows = np.empty((len(row), COLUMNS), dtype=np.float32)
    rows[:, :4] = box[taken]
    rows[:, 4:14] = points[taken].reshape(-1, 10)  # (n, 5, 2) -> (n, 10)
    rows[:, 14] = score[taken]
    rows[:, 15:] = height, width
    return FaceTable(counts, rows)


def enlarged(coordinates: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Coordinates in a picture shrunk by a whole factor, in the full picture: pixel centres map to block centres."""
    return coordinates * np.float32(factor) + np.float32((factor - 1) / 2)
