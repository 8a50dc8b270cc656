"""YUV 4:2:0 to RGB as FFmpeg's swscale does it on x86, bit for bit (tests/extract/test_device.py).

Covered: ``yuv420p`` and ``yuvj420p`` of even height and any width, untagged, BT.601 and BT.709, limited and full range.
Odd heights, 10 bit, 4:2:2, 4:4:4, NV12 and other matrices take other roads through swscale: `covers` is False, convert
on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# libswscale/yuv2rgb.c: contributions of V to red, U to blue, U and V to green; 65536 is 1.
MATRICES = {601: (104597, 132201, 25675, 53279), 709: (117489, 138438, 13975, 34925)}
TAGS: dict[int, Literal[601, 709]] = {1: 709, 2: 601, 5: 601, 6: 601}  # of AVFrame.colorspace; 2 is untagged


@dataclass(frozen=True)
class Colour:
    """How a picture's YUV is meant. The numbers are 13-bit fractions, as in swscale's x86 code."""

    matrix: Literal[601, 709] = 601
    full_range: bool = False

    def coefficients(self) -> tuple[int, int, int, int, int, int]:
        """Luma's zero, then the factors of luma, V to red, U to blue, U to green, V to green."""
        chroma = [c * 224 / 255 if self.full_range else c for c in MATRICES[self.matrix]]
        luma = 65536.0 if self.full_range else 65536 * 255 / 219
        scaled = [int(value / 8 + 0.5) for value in (luma, *chroma)]
        return (0 if self.full_range else 16, *scaled)  # type: ignore[return-value]


def covers(pixel_format: str, height: int, colourspace: int) -> bool:
    """Whether `to_rgb` gives swscale's pixels for frames of this format, height and AVFrame.colorspace."""
    return pixel_format in ("yuv420p", "yuvj420p") and height % 2 == 0 and colourspace in TAGS


def colour_of(pixel_format: str, colourspace: int, colour_range: int) -> Colour:
    """The `Colour` of a frame by its tags (AVFrame.colorspace, AVFrame.color_range). KeyError where not covered."""
    return Colour(TAGS[colourspace], pixel_format == "yuvj420p" or colour_range == 2)


def to_rgb(y: Tensor, u: Tensor, v: Tensor, colour: Colour) -> Tensor:
    """(B, 3, H, W) uint8 RGB of planes uint8: ``y`` (B, H, W), ``u`` and ``v`` (B, (H + 1) // 2, (W + 1) // 2)."""
    height, width = y.shape[1:]
    u, v = (plane.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width] for plane in (u, v))
    return samples_to_rgb(y, u, v, colour).to(torch.uint8)


def samples_to_rgb(y: Tensor, u: Tensor, v: Tensor, colour: Colour) -> Tensor:
    """(B, 3, ...) int32 in 0..255 of uint8 samples (B, ...), each with its own chroma."""
    zero, luma, red, blue, green_u, green_v = colour.coefficients()
    y, u, v = (plane.to(torch.int32) for plane in (y, u, v))
    y = ((y - zero) * (8 * luma)) >> 16  # arithmetic shift: towards minus infinity, as the processor's does
    u, v = (u - 128) * 8, (v - 128) * 8
    rgb = [y + ((v * red) >> 16), y + ((u * -green_u) >> 16) + ((v * -green_v) >> 16), y + ((u * blue) >> 16)]
    return torch.stack(rgb, dim=1).clamp_(0, 255)
