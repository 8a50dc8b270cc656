"""Decoded frames gathered into chunks: what a chunk and a buffer offer, and the buffer of RGB on the host."""

from __future__ import annotations

from typing import Any, Protocol

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from aupipe.extract.media.display import AS_DECODED, Display
from aupipe.types import Frames

CHUNK_FRAMES = 32
CHUNK_BYTES = 64 << 20  # of RGB: what bounds memory for large pictures


class FrameChunk(Protocol):
    """A chunk of decoded frames: `Frames` on the host, `aupipe.extract.gpu.frames.DeviceFrames` on a device."""

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """(T,) times in seconds."""
        ...

    @property
    def index(self) -> NDArray[np.int64]:
        """(T,) rows of the recording."""
        ...

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        ...

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(T, H, W, 3) on the host."""
        ...

    def select(self, keep: NDArray[np.bool_]) -> FrameChunk:
        """The frames where ``keep`` (T,) is set."""
        ...


class Hardware(Protocol):
    """A decoder beside the processor."""

    @property
    def accel(self) -> HWAccel: ...

    def decodes(self, stream: Any) -> bool:
        """Whether it gives the processor's samples for a video stream."""
        ...

    def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame of its as the processor's decoder would give it."""
        ...


class FrameBuffer(Protocol):
    """Where decoded frames are gathered into a chunk."""

    @property
    def hardware(self) -> Hardware | None:
        """What may decode the frames that come here; None for the processor alone."""
        ...

    def append(self, frame: av.VideoFrame, display: Display = AS_DECODED) -> bool:
        """Put a frame with those before it, upright and in square pixels.

        False where it begins another chunk, and is not put there.
        """
        ...

    def flush(self, pts_s: NDArray[np.float64], index: NDArray[np.int64]) -> FrameChunk:
        """The frames put here since the last flush; there is at least one."""
        ...


class HostFrameBuffer:
    """RGB in host memory: gives `Frames`."""

    hardware = None

    def __init__(self) -> None:
        self.count = 0
        self._reformatter = VideoReformatter()  # one for the whole file: a new one a frame costs more than its work
        self._kind: tuple[int, int, Display] | None = None
        self._chunk: NDArray[np.uint8] = np.empty((0, 0, 0, 3), np.uint8)

    def append(self, frame: av.VideoFrame, display: Display = AS_DECODED) -> bool:
        kind = frame.height, frame.width, display
        if self.count and (self.count == len(self._chunk) or kind != self._kind):
            return False
        size: dict[str, Any] = {}
        if not display.is_square:
            height, width = display.square_size(frame.height, frame.width)
            size = {"height": height, "width": width, "interpolation": "BICUBIC"}
        (plane,) = self._reformatter.reformat(frame, format="rgb24", threads=1, **size).planes
        picture = display.upright(plane_pixels(plane, 3))
        if not self.count:
            self._kind = kind
            self._chunk = np.empty((chunk_length(picture.nbytes), *picture.shape), np.uint8)
        self._chunk[self.count] = picture
        self.count += 1
        return True

    def flush(self, pts_s: NDArray[np.float64], index: NDArray[np.int64]) -> Frames:
        chunk, self.count = self._chunk[: self.count], 0
        self._chunk = self._chunk[:0]
        return Frames(chunk, pts_s, index)


def chunk_length(picture_bytes: int) -> int:
    """How many pictures of this size are decoded, detected and encoded together."""
    return max(1, min(CHUNK_FRAMES, CHUNK_BYTES // picture_bytes))


def plane_pixels(plane: Any, channels: int = 1) -> NDArray[np.uint8]:
    """(H, W) or (H, W, channels) where FFmpeg put them: to be copied before the next frame comes."""
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    pixels = lines[: plane.height, : channels * plane.width]
    return pixels if channels == 1 else pixels.reshape(plane.height, plane.width, channels)
