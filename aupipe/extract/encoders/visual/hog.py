"""Histograms of oriented gradients (Dalal and Triggs, 2005) of the aligned face: no weights, any machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from aupipe.extract.encoders.image_base import TensorEncode
from aupipe.extract.imaging.templates import CropTemplate
from aupipe.tables import Pixels, Range
from aupipe.types import Modality

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Hog:
    """HOG of the grey aligned face: ``bins`` unsigned directions per cell, blocks of 2 x 2 cells normalised (L2-Hys).

    Gives (B, (n - 1)^2 * 4 * bins) with n = size_px / cell_px: 1764 numbers by default.
    """

    size_px: Pixels = 112
    cell_px: Pixels = 14
    bins: Annotated[int, Range(1, 360)] = 9

    modality: ClassVar[Modality] = "visual"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.size_px % self.cell_px or self.size_px < 2 * self.cell_px:
            raise ValueError(f"size_px = {self.size_px} must be a multiple of cell_px = {self.cell_px}, at least two")

    @property
    def reads(self) -> CropTemplate:
        return CropTemplate(self.size_px)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return ((self.size_px // self.cell_px - 1) ** 2 * 4 * self.bins,)

    def identify_weights(self) -> None:
        return None

    def load(self, device: str) -> TensorEncode:
        import torch

        luma = torch.tensor([0.299, 0.587, 0.114], device=device)  # ITU-R BT.601

        def encode(crops: Tensor) -> Tensor:
            grey = (crops.to(torch.float32) @ luma) / 255  # (B, S, S, 3) -> (B, S, S) in [0, 1]
            return hog(grey, self.cell_px, self.bins)

        return TensorEncode(device, encode)


def hog(grey: Tensor, cell_px: int, bins: int) -> Tensor:
    """(B, S, S) in [0, 1] -> (B, (n - 1)^2 * 4 * bins) float32.

    Central differences; each pixel votes its magnitude, shared linearly between the two nearest of ``bins`` directions
    over 180 degrees; cells are summed, blocks of 2 x 2 cells scaled to unit length, clipped at 0.2 and scaled again.
    """
    import math

    import torch
    import torch.nn.functional as F

    batch, size, _ = grey.shape
    n = size // cell_px
    padded = (
        F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0] if batch else grey.new_zeros(0, size + 2, size + 2)
    )
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    magnitude = torch.hypot(dx, dy)
    direction = torch.atan2(dy, dx).remainder(math.pi) * (bins / math.pi) - 0.5  # in bins, bin centres at whole numbers
    low = direction.floor()
    high_share = direction - low
    index = low.long().remainder(bins)
    votes = grey.new_zeros(batch, bins, size, size)
    votes.scatter_(1, index[:, None], (magnitude * (1 - high_share))[:, None])
    votes.scatter_add_(1, ((index + 1) % bins)[:, None], (magnitude * high_share)[:, None])
    cells = votes.reshape(batch, bins, n, cell_px, n, cell_px).sum(dim=(3, 5))  # (B, bins, n, n)
    blocks = torch.stack([cells[:, :, i : n - 1 + i, j : n - 1 + j] for i in (0, 1) for j in (0, 1)], dim=1)
    blocks = blocks.permute(0, 3, 4, 1, 2).reshape(batch, n - 1, n - 1, 4 * bins)  # (B, n-1, n-1, 4 * bins)
    for clip in (0.2, None):
        blocks = blocks / (blocks.square().sum(dim=-1, keepdim=True) + 1e-6).sqrt()
        blocks = blocks if clip is None else blocks.clamp(max=clip)
    return blocks.reshape(batch, (n - 1) ** 2 * 4 * bins)  # counted out, for a batch of none
