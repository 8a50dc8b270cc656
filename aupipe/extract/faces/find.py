"""Every face of a chunk of frames, in the form the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aupipe.extract.faces import Detect, DetectTensor
from aupipe.extract.faces.align import shrink, shrink_factor
from aupipe.extract.faces.table import COLUMNS, FaceTable
from aupipe.extract.meter import Meter
from aupipe.types import Detections, Frames

if TYPE_CHECKING:
    from aupipe.extract.decode import Pictures


def find_faces(
    rgb: NDArray[np.uint8], detect: Detect, *, detect_px: int, max_faces: int, min_score: float
) -> FaceTable:
    """The faces of frames (T, H, W, 3), at most ``max_faces`` of each, the largest, in pixels of the whole frame.

    ``detect_px``: frames are shrunk by the smallest whole factor that brings the long side to this or below.
    """
    height, width = rgb.shape[1:3]
    factor = shrink_factor(height, width, detect_px)
    found = [_above(one, min_score) for one in detect(shrink(rgb, factor))]
    return as_table(found, factor, height, width, max_faces)


@dataclass(frozen=True)
class Finder:
    """A detector with what the user asks of it; see `find_faces`.

    ``detect_tensor``: the same detector for pictures on a device; where it has none, shrunk pictures go to the host.
    """

    detect: Detect
    detect_px: int
    max_faces: int
    min_score: float
    detect_tensor: DetectTensor | None = None

    def __call__(self, rgb: NDArray[np.uint8]) -> FaceTable:
        """The faces of frames (T, H, W, 3)."""
        return find_faces(
            rgb, self.detect, detect_px=self.detect_px, max_faces=self.max_faces, min_score=self.min_score
        )

    def over(self, chunks: Iterable[Pictures], meter: Meter) -> Iterator[tuple[Pictures, FaceTable]]:
        """Chunks with their faces. Those on a device come one late, so that nobody waits for the device's answer."""
        late: list[tuple[Pictures, Callable[[], FaceTable]]] = []
        for frames in chunks:
            with meter.timed("detect", len(frames)):
                late.append((frames, self._begin(frames)))
            while len(late) > (0 if isinstance(frames, Frames) else 1):
                yield self._end(late, meter)
        while late:
            yield self._end(late, meter)

    def _end(self, late: list[tuple[Pictures, Callable[[], FaceTable]]], meter: Meter) -> tuple[Pictures, FaceTable]:
        frames, found = late.pop(0)
        with meter.timed("detect"):
            return frames, found()

    def _begin(self, frames: Pictures) -> Callable[[], FaceTable]:
        if isinstance(frames, Frames):
            table = self(frames.rgb)
            return lambda: table
        from aupipe.extract.device.bus import fetch, on_host

        height, width = frames.size
        factor = shrink_factor(height, width, self.detect_px)
        small = frames.shrunk(factor)
        if self.detect_tensor is None:
            found = self.detect(on_host(small.permute(0, 2, 3, 1)))
            return lambda: self._table(found, factor, height, width)
        tensors = self.detect_tensor(small)
        wait = fetch(tensors)

        def end() -> FaceTable:
            box, landmarks, score, number, settled = wait()
            found = [Detections(box[i, :n], landmarks[i, :n], score[i, :n]) for i, n in enumerate(number)]
            if not settled.all():  # as rare as crowds: those frames again, by the patient way
                again = np.flatnonzero(~settled)
                pictures = on_host(small.permute(0, 2, 3, 1))[again]
                for i, one in zip(again, self.detect(pictures), strict=True):
                    found[i] = one
            return self._table(found, factor, height, width)

        return end

    def _table(self, found: list[Detections], factor: int, height: int, width: int) -> FaceTable:
        return as_table([_above(one, self.min_score) for one in found], factor, height, width, self.max_faces)


def as_table(found: Sequence[Detections], factor: int, height: int, width: int, max_faces: int) -> FaceTable:
    """What was found in frames of ``height`` x ``width`` that were shrunk by ``factor``."""
    rows = [face_rows(one, factor, height, width, max_faces) for one in found]
    counts = np.array([len(each) for each in rows], dtype=np.int64)
    return FaceTable(counts, np.concatenate(rows) if rows else np.zeros((0, COLUMNS), np.float32))


def _above(found: Detections, min_score: float) -> Detections:
    keep = found.score >= min_score
    return Detections(found.box[keep], found.landmarks[keep], found.score[keep])


def face_rows(found: Detections, factor: int, height: int, width: int, max_faces: int) -> NDArray[np.float32]:
    """(k, 17) the faces found in a frame shrunk by ``factor``, largest first: box, five points, score, frame size.

    Coordinates are those of the whole frame of ``height`` x ``width``.
    """
    found = enlarged(found, factor)
    area = np.prod(found.box[:, 2:] - found.box[:, :2], axis=1)
    kept = np.argsort(-area, kind="stable")[:max_faces]
    rows = np.empty((len(kept), COLUMNS), dtype=np.float32)
    rows[:, :4] = found.box[kept]
    rows[:, 4:14] = found.landmarks[kept].reshape(-1, 10)  # (k, 5, 2) -> (k, 10)
    rows[:, 14] = found.score[kept]
    rows[:, 15:] = height, width
    return rows


def enlarged(found: Detections, factor: int) -> Detections:
    """Coordinates in a picture shrunk by a whole factor, in the full picture: pixel centres map to block centres."""
    if factor == 1:
        return found
    shift = np.float32((factor - 1) / 2)
    return Detections(found.box * factor + shift, found.landmarks * factor + shift, found.score)
