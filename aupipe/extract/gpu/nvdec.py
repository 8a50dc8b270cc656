"""Decoding by a GPU's own circuit (NVDEC), through FFmpeg: the software decoder's samples, to the bit.

So only codecs whose standard defines every sample, and only what `aupipe.extract.gpu.yuv` converts: MPEG-1, 2 and 4
and JPEG leave a decoder free to round, and what one gives the other would not. Those are decoded on the processor, and
so is what this GPU's circuit does not know. `VideoReader` compares the first picture of each file. Damage inside a
picture is not told by the circuit: what it makes of that may be other pixels than the processor's.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import av
import torch
from av.codec import Codec
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.reformatter import VideoReformatter

from aupipe.errors import RecordingError, UsageError
from aupipe.extract.gpu.yuv import covers

EXACT = ("h264", "hevc", "vp8", "vp9")  # AV1 would be too, but FFmpeg here gives it to dav1d


@dataclass(frozen=True)
class Nvdec:
    """The circuit of one GPU, for one reader."""

    accel: HWAccel  # what a file is opened with
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def decodes(self, stream: Any) -> bool:
        """Whether it gives the software decoder's samples for a video stream, as frames whose RGB the device makes."""
        context = stream.codec_context
        name = context.codec.canonical_name
        return name in EXACT and covers(context.pix_fmt or "", context.height, context.colorspace)

    def planar(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame as the software decoder gives it: NVDEC's NV12 holds the same samples, the chroma interleaved.

        swscale's RGB of NV12 would be other RGB (it interpolates the chroma). Raises RecordingError for other formats.
        """
        if frame.format.name in ("yuv420p", "yuvj420p"):  # the processor had to do it after all
            return frame
        if frame.format.name != "nv12":
            raise RecordingError(f"pictures turn to {frame.format.name} at {frame.time} s: decode it without --nvdec")
        return self._reformatter.reformat(
            frame,
            format="yuv420p",
            src_color_range=frame.color_range,
            dst_color_range=frame.color_range,
            threads=1,
        )


def nvdec(device: str) -> Nvdec:
    """The circuit of a CUDA device, for files that the calling thread opens.

    Raises UsageError where FFmpeg or the driver has none.
    """
    # torch's context, which this makes the thread's current one: a context of its own for every video would take
    # hundreds of megabytes each, and FFmpeg will not share the primary one with torch's flags.
    torch.zeros(1, device=device)
    return Nvdec(_accel(device))


@lru_cache  # asked once per process, not per video
def _accel(device: str) -> HWAccel:
    """What tells FFmpeg to decode on a device, tried with the codec that every circuit knows."""
    try:  # FFmpeg looks for it at the first frame, and without it decodes on the processor and says nothing
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError as error:
        raise UsageError(
            f"--nvdec: the driver's video part is not here ({error}); a container needs the capability 'video'"
        ) from error
    if "cuda" not in hwdevices_available():
        raise UsageError("--nvdec: this PyAV has an FFmpeg without CUDA; run without it")
    accel = HWAccel("cuda", str(torch.device(device).index or 0), options={"current_ctx": "1"})
    try:
        accel.create(Codec("h264", "r"))
    except av.FFmpegError as error:  # the driver or the device refuses, and strerror says how
        raise UsageError(f"--nvdec: FFmpeg cannot decode on {device} ({error.strerror}); run without it") from error
    return accel
