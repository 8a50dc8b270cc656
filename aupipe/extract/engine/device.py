"""The device of one engine: the stream its threads share, and where frames are decoded to."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aupipe.extract.media.frame_buffer import FrameBuffer


@dataclass
class Device:
    """A torch device. ``frames_on``: the torch device that frames are decoded to, "" for the host; a CUDA device
    takes its own. ``nvdec``: whether a CUDA device's own decoder is used."""

    name: str
    frames_on: str = ""
    nvdec: bool = False
    _stream: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.name.startswith("cuda"):
            from aupipe.extract.gpu.numerics import compute_as_written

            compute_as_written()
            self.frames_on = self.frames_on or self.name

    def active(self) -> AbstractContextManager[Any]:
        """Inside, the calling thread's work goes to this device. Every thread that detects or encodes enters it.

        FFmpeg brings NVDEC's frames to the host in CUDA's default stream, where each would wait for all batches before
        it; so with NVDEC the work has a stream of its own, one for all threads, since they hand tensors to each other.
        """
        if not self.name.startswith("cuda"):
            return nullcontext()
        import torch

        if not self.nvdec:
            return torch.cuda.device(self.name)
        with self._lock:
            if self._stream is None:
                self._stream = torch.cuda.Stream(self.name)
        context: AbstractContextManager[Any] = torch.cuda.stream(self._stream)  # and its device
        return context

    def frame_buffer(self) -> FrameBuffer:
        """Where the frames of one video are decoded to."""
        if not self.frames_on:
            from aupipe.extract.media.frame_buffer import HostFrameBuffer

            return HostFrameBuffer()
        from aupipe.extract.gpu.frames import DeviceFrameBuffer

        if self.frames_on.startswith("cuda"):
            import torch

            torch.cuda.set_device(self.frames_on)  # of the decoding thread, which would open the first GPU otherwise
        if not self.nvdec:
            return DeviceFrameBuffer(self.frames_on)
        from aupipe.extract.gpu.nvdec import nvdec

        return DeviceFrameBuffer(self.frames_on, nvdec(self.frames_on))
