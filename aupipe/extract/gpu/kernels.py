"""Two kernels in Triton for what is many steps over whole pictures in torch: downscaling, and crops, from planes.

They give what `aupipe.extract.gpu.yuv` and `aupipe.extract.gpu.warp` give, to the bit. Triton comes with torch's
CUDA builds and needs a C compiler; `usable` says whether they run here, and has compared them.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from aupipe.extract.gpu.warp import shrink, warp_yuv
from aupipe.extract.gpu.yuv import Colour, to_rgb

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for the CPU alone comes without
    triton = None

log = logging.getLogger(__name__)

BLOCK = 256  # pixels of one program

Planes = tuple[Tensor, Tensor, Tensor]


if triton is not None:

    @triton.jit
    def _rgb(y, u, v, zero, luma, red, blue, green_u, green_v):  # type: ignore[no-untyped-def]
        """int32 in 0..255 of int32 samples: `aupipe.extract.gpu.yuv.samples_to_rgb`."""
        grey = ((y - zero) * (8 * luma)) >> 16
        u8, v8 = (u - 128) * 8, (v - 128) * 8
        r = grey + ((v8 * red) >> 16)
        g = grey + ((u8 * -green_u) >> 16) + ((v8 * -green_v) >> 16)
        b = grey + ((u8 * blue) >> 16)
        r = tl.minimum(tl.maximum(r, 0), 255)
        g = tl.minimum(tl.maximum(g, 0), 255)
        b = tl.minimum(tl.maximum(b, 0), 255)
        return r, g, b

    @triton.jit
    def _to_even(x):  # type: ignore[no-untyped-def]
        """Rounded to whole numbers, halves to even, of float32 in 0..2^22: as torch.round."""
        return (x + 8388608.0) - 8388608.0

    @triton.jit
    def _mean(total, share, FACTOR: tl.constexpr):  # type: ignore[no-untyped-def]
        mean = total.to(tl.float32) * share
        # OpenCV rounds halves up for a factor of 2, and to even for all others.
        whole = (mean + 0.5).to(tl.int32) if FACTOR == 2 else _to_even(mean).to(tl.int32)
        return whole.to(tl.uint8)

    @triton.jit
    def _downscale_kernel(  # type: ignore[no-untyped-def]
        luma_at, u_at, v_at, out_at, height, width, rows, columns, share,
        zero, luma, red, blue, green_u, green_v, FACTOR: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        frame = tl.program_id(1).to(tl.int64)
        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        there = place < rows * columns
        row, column = place // columns, place % columns
        half_width = (width + 1) // 2
        luma_at += frame * height * width
        u_at += frame * ((height + 1) // 2) * half_width
        v_at += frame * ((height + 1) // 2) * half_width
        reds = tl.zeros([BLOCK], dtype=tl.int32)
        greens = tl.zeros([BLOCK], dtype=tl.int32)
        blues = tl.zeros([BLOCK], dtype=tl.int32)
        for down in range(FACTOR):
            for across in range(FACTOR):
                y, x = row * FACTOR + down, column * FACTOR + across
                half = (y >> 1) * half_width + (x >> 1)
                grey = tl.load(luma_at + y * width + x, mask=there, other=0).to(tl.int32)
                u = tl.load(u_at + half, mask=there, other=0).to(tl.int32)
                v = tl.load(v_at + half, mask=there, other=0).to(tl.int32)
                r, g, b = _rgb(grey, u, v, zero, luma, red, blue, green_u, green_v)
                reds += r
                greens += g
                blues += b
        out = out_at + frame * 3 * rows * columns + place
        tl.store(out, _mean(reds, share, FACTOR), mask=there)
        tl.store(out + rows * columns, _mean(greens, share, FACTOR), mask=there)
        tl.store(out + 2 * rows * columns, _mean(blues, share, FACTOR), mask=there)

    @triton.jit
    def _crop_kernel(  # type: ignore[no-untyped-def]
        luma_at, u_at, v_at, frame_at, matrix_at, out_at, height, width, size,
        zero, luma, red, blue, green_u, green_v, BLOCK: tl.constexpr,
    ):  # fmt: skip
        face = tl.program_id(1).to(tl.int64)
        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        there = place < size * size
        frame = tl.load(frame_at + face)
        half_width = (width + 1) // 2
        luma_at += frame * height * width
        u_at += frame * ((height + 1) // 2) * half_width
        v_at += frame * ((height + 1) // 2) * half_width
        a = tl.load(matrix_at + face * 6)
        b = tl.load(matrix_at + face * 6 + 1)
        shift_x = tl.load(matrix_at + face * 6 + 2)
        c = tl.load(matrix_at + face * 6 + 3)
        d = tl.load(matrix_at + face * 6 + 4)
        shift_y = tl.load(matrix_at + face * 6 + 5)
        across = (place % size).to(tl.float64) - shift_x
        down = (place // size).to(tl.float64) - shift_y
        determinant = a * d - b * c
        x = (d * across - b * down) / determinant
        y = (a * down - c * across) / determinant
        # Not a number and the infinities are outside, as everything beyond the picture is.
        x = tl.where((x == x) & (tl.abs(x) < 1e300), x, -2.0)
        y = tl.where((y == y) & (tl.abs(y) < 1e300), y, -2.0)
        x = tl.minimum(tl.maximum(x, -2.0), (width + 1).to(tl.float64))
        y = tl.minimum(tl.maximum(y, -2.0), (height + 1).to(tl.float64))
        left, top = tl.floor(x), tl.floor(y)
        part_x, part_y = (x - left).to(tl.float32), (y - top).to(tl.float32)
        left, top = left.to(tl.int32), top.to(tl.int32)
        reds = tl.zeros([BLOCK], dtype=tl.float32)
        greens = tl.zeros([BLOCK], dtype=tl.float32)
        blues = tl.zeros([BLOCK], dtype=tl.float32)
        for step_y in tl.static_range(2):
            for step_x in tl.static_range(2):
                at_x, at_y = left + step_x, top + step_y
                inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
                weight_x = part_x if step_x else 1 - part_x
                weight_y = part_y if step_y else 1 - part_y
                weight = weight_x * weight_y * inside.to(tl.float32)
                at_x = tl.minimum(tl.maximum(at_x, 0), width - 1)
                at_y = tl.minimum(tl.maximum(at_y, 0), height - 1)
                half = (at_y >> 1) * half_width + (at_x >> 1)
                grey = tl.load(luma_at + at_y * width + at_x, mask=there, other=0).to(tl.int32)
                u = tl.load(u_at + half, mask=there, other=0).to(tl.int32)
                v = tl.load(v_at + half, mask=there, other=0).to(tl.int32)
                r, g, b_ = _rgb(grey, u, v, zero, luma, red, blue, green_u, green_v)
                reds += r.to(tl.float32) * weight
                greens += g.to(tl.float32) * weight
                blues += b_.to(tl.float32) * weight
        out = out_at + (face * size * size + place) * 3
        tl.store(out, _to_even(reds).to(tl.int32).to(tl.uint8), mask=there)
        tl.store(out + 1, _to_even(greens).to(tl.int32).to(tl.uint8), mask=there)
        tl.store(out + 2, _to_even(blues).to(tl.int32).to(tl.uint8), mask=there)


def _launch(kernel: Any, planes: Planes, blocks: tuple[int, int], *arguments: Any, **constants: int) -> None:
    # On the planes' device: Triton launches on the current one. And without fusion: torch rounds after each step.
    with torch.cuda.device_of(planes[0]):
        kernel[blocks](*planes, *arguments, **constants, BLOCK=BLOCK, enable_fp_fusion=False)


def downscale_kernel(planes: Planes, colour: Colour, factor: int) -> Tensor:
    """(B, 3, H // factor, W // factor) uint8: `shrink` of `to_rgb` of planes, in one piece."""
    count, height, width = planes[0].shape
    rows, columns = height // factor, width // factor
    out = torch.empty((count, 3, rows, columns), dtype=torch.uint8, device=planes[0].device)
    arguments = out, height, width, rows, columns, 1 / factor**2, *colour.coefficients()
    _launch(_downscale_kernel, planes, (triton.cdiv(rows * columns, BLOCK), count), *arguments, FACTOR=factor)
    return out


def crop_kernel(planes: Planes, frame: Tensor, matrices: Tensor, size: int, colour: Colour) -> Tensor:
    """(K, S, S, 3) uint8: `warp_yuv`, channels last; ``frame`` (K,) int64, ``matrices`` (K, 2, 3) float64."""
    out = torch.empty((len(frame), size, size, 3), dtype=torch.uint8, device=planes[0].device)
    arguments = frame, matrices, out, *planes[0].shape[1:], size, *colour.coefficients()
    _launch(_crop_kernel, planes, (triton.cdiv(size * size, BLOCK), len(frame)), *arguments)
    return out


def downscale(planes: Planes, colour: Colour, factor: int) -> Tensor:
    """(B, 3, H // factor, W // factor) uint8 RGB of planes (B, H, W), (B, h, w), (B, h, w): box averages."""
    if planes[0].is_cuda and usable(planes[0].device):
        return downscale_kernel(planes, colour, factor)
    return shrink(to_rgb(*planes, colour), factor)


def crops(planes: Planes, frame: Tensor, matrices: Tensor, size: int, colour: Colour) -> Tensor:
    """(K, S, S, 3) uint8: the faces ``matrices`` (K, 2, 3) move into place, of the frames ``frame`` (K,) of planes."""
    if planes[0].is_cuda and usable(planes[0].device):
        return crop_kernel(planes, frame, matrices, size, colour)
    return warp_yuv(planes, frame, matrices, size, colour).permute(0, 2, 3, 1)  # (K, 3, S, S) -> (K, S, S, 3)


@lru_cache
def usable(device: torch.device) -> bool:
    """Whether the kernels compile here and give torch's own numbers; tried once per process."""
    if triton is None:
        return False
    try:
        different = differs(device)
    except Exception as error:  # Triton raises what its compiler, the linker and the driver do
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
    else:
        if not different:
            return True
        why = f"{different} are not torch's"
    log.warning("Triton's kernels are not used, torch's are, which are slower: %s", why)
    return False


def differs(device: torch.device | str) -> str:
    """What the kernels give otherwise than torch, on a few random planes; empty where nothing."""
    random = torch.Generator().manual_seed(0)
    shapes = (2, 46, 71), (2, 23, 36), (2, 23, 36)
    y, u, v = (torch.randint(0, 256, shape, generator=random, dtype=torch.uint8).to(device) for shape in shapes)
    planes = y, u, v
    frame = torch.tensor([1, 0, 1], device=device)
    matrices = torch.tensor(
        [[[0.9, -0.3, 4], [0.3, 0.9, -6]], [[2.1, 0.4, -31], [-0.4, 2.1, 5]], [[0, 0, 1], [0, 0, 2]]]
    )
    matrices = matrices.to(device, torch.float64)
    for colour in (Colour(), Colour(709, full_range=True)):
        for factor in (1, 2, 3):
            if not torch.equal(downscale_kernel(planes, colour, factor), shrink(to_rgb(*planes, colour), factor)):
                return f"pictures shrunk by {factor}"
        ours = crop_kernel(planes, frame, matrices, 24, colour)
        if not torch.equal(ours, warp_yuv(planes, frame, matrices, 24, colour).permute(0, 2, 3, 1)):
            return "crops"
    return ""
