"""Exponential moving average of a head's weights, which often scores better than the weights of the last step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged_model(head: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``head`` whose parameters are averaged by ``update_parameters``; its buffers are those of the head.

    ``decay``: the share of the average that is kept at each step. At step n at most n / (n + 9) is kept, so that the
    random initial weights are forgotten.
    """

    @torch.no_grad()
    def mix(average: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        step = int(averaged.n_averaged)  # on the host; the argument is on the device, which would be waited for
        kept = min(decay, step / (step + 9))
        for mean, value in zip(average, current, strict=True):
            mean.lerp_(value, 1 - kept)

    averaged = AveragedModel(head, multi_avg_fn=mix)
    averaged.update_parameters(head)  # the first call copies: step 1 is the next one
    return averaged
