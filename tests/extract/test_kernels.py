"""The kernels, interpreted on the processor: torch's numbers to the bit, on any size. Compiled they need a GPU."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch

from aupipe.extract.gpu import kernels
from aupipe.extract.gpu.kernels import crops, downscale, usable
from aupipe.extract.gpu.warp import shrink, warp_yuv
from aupipe.extract.gpu.yuv import Colour, to_rgb

INTERPRETED = """
import torch
from aupipe.extract.gpu.kernels import crop_kernel, differs, downscale_kernel
from aupipe.extract.gpu.warp import shrink, warp_yuv
from aupipe.extract.gpu.yuv import Colour, to_rgb

assert differs("cpu") == "", differs("cpu")
random = torch.Generator().manual_seed(1)
for height, width in ((2, 2), (16, 33), (26, 18)):
    half = (height + 1) // 2, (width + 1) // 2
    shapes = (3, height, width), (3, *half), (3, *half)
    y, u, v = (torch.randint(0, 256, shape, generator=random, dtype=torch.uint8) for shape in shapes)
    for colour in (Colour(709), Colour(601, full_range=True)):
        for factor in (1, 2, 5):
            if min(height, width) >= factor:
                ours = downscale_kernel((y, u, v), colour, factor)
                assert torch.equal(ours, shrink(to_rgb(y, u, v, colour), factor)), (height, width, factor)
        at = torch.tensor([0, 2, 1, 2])
        matrices = torch.randn((4, 2, 3), generator=random, dtype=torch.float64)
        matrices[..., 2] *= 20
        matrices[3] = float("nan")  # a face that cannot be aligned
        ours = crop_kernel((y, u, v), at, matrices, 19, colour)
        assert torch.equal(ours, warp_yuv((y, u, v), at, matrices, 19, colour).permute(0, 2, 3, 1)), (height, width)
print("the same")
"""

needs_triton = pytest.mark.skipif(kernels.triton is None, reason="this torch comes without Triton")


@needs_triton
def test_downscaled_pictures_and_crops_are_torchs_to_the_bit() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": ""}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr


@needs_triton
@pytest.mark.parametrize("wrong", ["no compiler", "other numbers"])
def test_where_they_do_not_compile_or_differ_torch_does_it_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    def compare(device: torch.device) -> str:
        if wrong == "no compiler":
            raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nand more")
        return "crops"

    monkeypatch.setattr(kernels, "differs", compare)
    usable.cache_clear()
    with caplog.at_level(logging.WARNING, "aupipe"):
        assert not usable(torch.device("cpu"))
        assert not usable(torch.device("cpu"))
    usable.cache_clear()
    (said,) = [record.message for record in caplog.records]  # once
    assert "Triton's kernels are not used" in said
    assert ("Failed to find C compiler" if wrong == "no compiler" else "crops are not torch's") in said


def test_without_a_gpu_torch_does_it() -> None:
    y, u, v = (torch.full(shape, 90, dtype=torch.uint8) for shape in ((2, 8, 8), (2, 4, 4), (2, 4, 4)))
    assert torch.equal(downscale((y, u, v), Colour(), 2), shrink(to_rgb(y, u, v, Colour()), 2))
    at, matrices = torch.tensor([1]), torch.eye(2, 3, dtype=torch.float64)[None]
    expected = warp_yuv((y, u, v), at, matrices, 6, Colour()).permute(0, 2, 3, 1)
    assert torch.equal(crops((y, u, v), at, matrices, 6, Colour()), expected)
