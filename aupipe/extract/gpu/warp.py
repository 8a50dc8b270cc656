"""Shrinking and warping of pictures that are tensors already, as OpenCV 5 does it on the host.

Box crops and FFHQ's squares (`BoxCropTemplate`, `FfhqCropTemplate`) are cut on the host: they average, and the factor
differs from face to face.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aupipe.extract.gpu.yuv import Colour, samples_to_rgb


def shrink(pictures: Tensor, factor: int) -> Tensor:
    """(B, C, H // factor, W // factor) uint8 box averages: what `aupipe.extract.imaging.templates.shrink` gives."""
    if factor == 1:
        return pictures
    mean = F.avg_pool2d(pictures.to(torch.float32), factor, divisor_override=1) * (1 / factor**2)
    # OpenCV rounds halves up for a factor of 2, and to even for all others.
    return ((mean + 0.5).floor_() if factor == 2 else mean.round_()).to(torch.uint8)


def warp_yuv(
    planes: tuple[Tensor, Tensor, Tensor], frame: Tensor, matrices: Tensor, size_px: int, colour: Colour
) -> Tensor:
    """(K, 3, S, S) uint8: `cv2.warpAffine` (bilinear, black outside) of K faces, within one grey level of OpenCV 5's.

    ``planes`` (B, H, W), (B, h, w), (B, h, w) uint8, whose RGB is made where it is seen; ``frame`` (K,) which of them
    each face is in, ``matrices`` (K, 2, 3) into the crop.
    """
    luma, u, v = planes
    height, width = luma.shape[1:]
    a, b, shift_x, c, d, shift_y = matrices.to(torch.float64).flatten(1)[..., None, None].unbind(1)  # each (K, 1, 1)
    grid = torch.arange(size_px, device=matrices.device, dtype=torch.float64)
    across, down = grid[None, None, :] - shift_x, grid[None, :, None] - shift_y
    # Positions in double: their whole part decides which pixels are seen, and pictures are thousands of pixels wide.
    determinant = a * d - b * c
    x, y = (d * across - b * down) / determinant, (a * down - c * across) / determinant
    x = x.nan_to_num(-2.0, -2.0, -2.0).clamp_(-2, width + 1)  # beyond that all is black, and indices stay small
    y = y.nan_to_num(-2.0, -2.0, -2.0).clamp_(-2, height + 1)
    left, top = x.floor(), y.floor()
    part_x, part_y = (x - left).to(torch.float32), (y - top).to(torch.float32)
    left, top = left.to(torch.int64), top.to(torch.int64)
    here = frame[:, None, None]
    crop = torch.zeros((), device=matrices.device)
    for step_y in (0, 1):
        for step_x in (0, 1):
            at_x, at_y = left + step_x, top + step_y
            inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
            weight = (part_x if step_x else 1 - part_x) * (part_y if step_y else 1 - part_y) * inside
            at_x, at_y = at_x.clamp(0, width - 1), at_y.clamp(0, height - 1)
            half = at_y >> 1, at_x >> 1
            rgb = samples_to_rgb(luma[here, at_y, at_x], u[here, *half], v[here, *half], colour)  # (K, 3, S, S)
            crop = crop + rgb * weight[:, None]
    return crop.round().to(torch.uint8)


def normalize(crops: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, 3, S, S) uint8 -> ``(x / 255 - mean) / std`` in channels_last; ``mean`` and ``std`` (3,) on the device.

    Computed in float32, as the encoders do, and rounded to ``dtype`` once.
    """
    pixels = crops.to(torch.float32, memory_format=torch.channels_last).div_(255)
    return pixels.sub_(mean.view(1, 3, 1, 1)).div_(std.view(1, 3, 1, 1)).to(dtype)
