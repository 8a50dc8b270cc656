"""Non-maximum suppression of whole batches, without a word between device and host."""

from __future__ import annotations

import torch
from torch import Tensor


def suppress(corners: Tensor, valid: Tensor, threshold: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Which of (B, K, 4) boxes xyxy, best first, no better kept one overlaps by more than ``threshold``: (B, K) bool.

    ``valid`` (B, K): False where a place holds no box. The greedy rule is iterated as a fixed point: after n rounds
    the decision is final for every box whose chain of better, overlapping boxes is shorter than n. The second value
    (B,) says where nothing would change any more; there the result is that of the greedy loop.
    """
    width, height = (corners[..., 2:] - corners[..., :2]).unbind(-1)
    area = width * height  # (B, K)
    low = torch.maximum(corners[:, :, None, :2], corners[:, None, :, :2])
    high = torch.minimum(corners[:, :, None, 2:], corners[:, None, :, 2:])
    width, height = (high - low).clamp_(min=0).unbind(-1)
    common = width * height  # (B, K, K)
    overlap = common > threshold * (area[:, :, None] + area[:, None] - common)
    better = overlap.triu_(diagonal=1).to(corners.dtype)  # [b, i, j]: i is better than j and overlaps it
    kept = valid
    for _ in range(rounds):
        before = kept
        kept = valid & (torch.matmul(before[:, None].to(corners.dtype), better)[:, 0] == 0)
    return kept, (kept == before).all(dim=1)
