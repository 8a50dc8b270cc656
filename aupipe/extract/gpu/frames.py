"""Decoded frames on a device: planes go there as they are decoded, crops come out, and neither comes back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupipe.extract.gpu import kernels
from aupipe.extract.gpu.cuda_graphs import GraphedFunction
from aupipe.extract.gpu.kernels import Planes
from aupipe.extract.gpu.nvdec import Nvdec
from aupipe.extract.gpu.transfer import on_host, upload
from aupipe.extract.gpu.yuv import Colour, colour_of, covers, to_rgb
from aupipe.extract.imaging.templates import CropTemplate, crop, is_cut_on_host
from aupipe.extract.media.display import AS_DECODED, Display
from aupipe.extract.media.frame_buffer import HostFrameBuffer, chunk_length, plane_pixels
from aupipe.types import Frames

PLACES = 32  # faces are cut in multiples of this many, so that there are few graphs


@dataclass(frozen=True)
class DeviceFrames:
    """`Frames` on a device, as YUV 4:2:0 planes uint8 (T, H, W), (T, h, w), (T, h, w).

    ``arrived``: the event after which the planes are whole; None where they are.
    """

    planes: Planes
    colour: Colour
    pts_s: NDArray[np.float64]
    index: NDArray[np.int64]
    arrived: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def nbytes(self) -> int:
        return sum(plane.nbytes for plane in self.planes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.planes[0].shape[1:]
        return height, width

    @property
    def capacity(self) -> int:
        """How many pictures a full chunk of this size holds, as many as on the host."""
        height, width = self.size
        return chunk_length(3 * height * width)

    def on_current_stream(self) -> Planes:
        """The planes, for the current stream: it waits for them to arrive, and they outlive its use of them."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(self.planes[0].device)
            stream.wait_event(self.arrived)
            for plane in self.planes:
                plane.record_stream(stream)
        return self.planes

    def select(self, keep: NDArray[np.bool_]) -> DeviceFrames:
        """The frames where ``keep`` (T,) is set."""
        if keep.all():
            return self
        y, u, v = (plane[upload(np.flatnonzero(keep), plane.device)] for plane in self.on_current_stream())
        return DeviceFrames((y, u, v), self.colour, self.pts_s[keep], self.index[keep])

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(T, H, W, 3) on the host, for what only the host can do; waits for the device."""
        return on_host(to_rgb(*self.on_current_stream(), self.colour).permute(0, 2, 3, 1))  # from (T, 3, H, W)

    def shrunk(self, factor: int) -> Tensor:
        """(T, 3, H // factor, W // factor) uint8 RGB, box averages."""
        return kernels.downscale(self.on_current_stream(), self.colour, factor)

    def crop(
        self,
        at: NDArray[np.int64],
        boxes: NDArray[np.floating],
        landmarks: NDArray[np.floating],
        template: CropTemplate,
    ) -> Tensor | NDArray[np.uint8]:
        """(K, S, S, 3) uint8: faces of the frames ``at`` (K,), as `aupipe.extract.imaging.templates.crop` cuts them.

        A tensor on the device; templates that average are cut on the host, where their crops stay.
        """
        device = self.planes[0].device
        if is_cut_on_host(template):
            which, again = np.unique(at, return_inverse=True)
            rgb = self.select(np.isin(np.arange(len(self)), which)).rgb
            return crop(rgb[again], boxes, landmarks, template)
        matrices = upload(template.matrices(landmarks), device)
        places = -(-len(at) // PLACES) * PLACES
        inputs = *self.on_current_stream(), upload(at, device), matrices
        return _crops(template.size_px, self.colour)(inputs, (self.capacity,) * 3 + (places,) * 2, len(at))


@lru_cache
def _crops(size_px: int, colour: Colour) -> GraphedFunction:
    return GraphedFunction(lambda y, u, v, at, matrices: kernels.crops((y, u, v), at, matrices, size_px, colour))


@dataclass(frozen=True)
class _Kind:
    """What the frames of one chunk have in common."""

    format: str
    height: int
    width: int
    display: Display
    space: int
    range: int


class DeviceFrameBuffer:
    """Puts the planes of decoded frames on a device, where `covers` holds; other frames become RGB on the host, and so
    do those whose pixels are not square.

    On CUDA the planes of a chunk are gathered in pinned memory and go over in a stream for that alone. ``hardware``:
    what decodes the frames that come here, where it can.
    """

    def __init__(self, device: str, hardware: Nvdec | None = None) -> None:
        self.hardware = hardware
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._stream = _copies(self._device) if self._cuda else None
        self._host = HostFrameBuffer()
        self._kind: _Kind | None = None
        self._planes: tuple[Tensor, ...] = ()
        self._arrays: list[NDArray[np.uint8]] = []  # the same memory
        self._count = 0

    def append(self, frame: av.VideoFrame, display: Display = AS_DECODED) -> bool:
        """Put a frame with those before it; False where it begins another chunk, and is not put there."""
        kind = _Kind(
            frame.format.name,
            frame.height,
            frame.width,
            display,
            int(frame.colorspace),
            int(frame.color_range),
        )
        if not _covered(kind):
            return not self._count and self._host.append(frame, display)
        if self._host.count or (self._count and (kind != self._kind or self._count == len(self._arrays[0]))):
            return False
        pictures = [display.upright(plane_pixels(plane)) for plane in frame.planes]
        if not self._count:
            self._kind = kind
            length = chunk_length(3 * kind.height * kind.width)  # as many as on the host
            self._planes = tuple(
                torch.empty((length, *picture.shape), dtype=torch.uint8, pin_memory=self._cuda) for picture in pictures
            )
            self._arrays = [plane.numpy() for plane in self._planes]
        for array, picture in zip(self._arrays, pictures, strict=True):
            array[self._count] = picture
        self._count += 1
        return True

    def flush(self, pts_s: NDArray[np.float64], index: NDArray[np.int64]) -> Frames | DeviceFrames:
        """The frames put here since the last flush; there is at least one."""
        if not self._count:
            return self._host.flush(pts_s, index)
        assert self._kind is not None
        y, u, v = (plane[: self._count] for plane in self._planes)
        colour = colour_of(self._kind.format, self._kind.space, self._kind.range)
        self._planes, self._arrays, self._count = (), [], 0
        if self._stream is None:
            return DeviceFrames((y.to(self._device), u.to(self._device), v.to(self._device)), colour, pts_s, index)
        with torch.cuda.stream(self._stream):
            # The allocator of pinned memory does not reuse it before the copies are done.
            y, u, v = (plane.to(self._device, non_blocking=True) for plane in (y, u, v))
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        return DeviceFrames((y, u, v), colour, pts_s, index, arrived)


@lru_cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream of a process in which frames go over: the bus takes one after another anyway."""
    return torch.cuda.Stream(device)


def _covered(kind: _Kind) -> bool:
    """Turned or mirrored, a chroma sample stands for other pixels unless the width is even."""
    fits = kind.display.is_square and (kind.display.is_upright or kind.width % 2 == 0)
    return fits and covers(kind.format, kind.height, kind.space)
