"""Non-maximum suppression of whole batches on a device.

`torchvision.ops.nms` does not serve here: its output has as many rows as boxes are kept, so the host waits for the
device and no CUDA graph can hold it; and its rounding is not that of OpenCV's `NMSBoxes`, which the other routes use.
"""

from __future__ import annotations

import torch
from torch import Tensor


def suppress(corners: Tensor, valid: Tensor, threshold: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Which of (B, K, 4) boxes xyxy, best first, no better kept one overlaps by more than ``threshold``: (B, K) bool.

    ``valid`` (B, K): False where a place holds no box. The greedy rule is iterated as a fixed point: after n rounds
    the decision is final for every box whose chain of better, overlapping boxes is shorter than n. The second value
    (B,) says where nothing would change any more; there the result is that of the greedy loop.
    """
    width, height = (corners[..., 2:] - corners[..., :2]).to(torch.float64).unbind(-1)
    area = width * height  # (B, K)
    low = torch.maximum(corners[:, :, None, :2], corners[:, None, :, :2])
    high = torch.minimum(corners[:, :, None, 2:], corners[:, None, :, 2:])
    width, height = (high - low).clamp_(min=0).to(torch.float64).unbind(-1)
    common, total = width * height, area[:, :, None] + area[:, None]  # (B, K, K)
    # As OpenCV rounds it, so that what lies on the threshold falls to the same side; two boxes of no area overlap.
    apart = torch.where(total > 0, 1 - common / (total - common), 0).to(torch.float32)
    better = (1 - apart > threshold).triu_(diagonal=1)  # [b, i, j]: i is better than j and overlaps it
    kept = valid
    for _ in range(rounds):
        before = kept
        kept = valid & ~(before[:, :, None] & better).any(dim=1)
    return kept, (kept == before).all(dim=1)
