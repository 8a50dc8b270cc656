"""Scores of whole recordings from a head: overlapping windows, averaged per frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aupipe.errors import DivergedError
from aupipe.tasks import Task
from aupipe.train.data import Example
from aupipe.train.heads import context_of, run_head
from aupipe.train.loader import Loader
from aupipe.train.recipe import Recipe
from aupipe.train.windows import chunks, overlap_mean, tile, with_context


@torch.inference_mode()
def score_recordings(
    head: nn.Module, examples: Sequence[Example], loader: Loader, recipe: Recipe, task: Task
) -> dict[str, NDArray[np.float32]]:
    """Scores (T, K) by recording id. Where windows overlap, probabilities are averaged, not decisions.

    Raises DivergedError where the output of the head is not finite.
    """
    context = context_of(head, recipe.margin)
    tiles = {}
    for item in examples:
        windows = tile(item.recording, len(item), *recipe.predict_windows)
        tiles[item.recording] = with_context(windows, context, item)
    batches = chunks(list(chain.from_iterable(tiles.values())), recipe.batch)
    values: list[NDArray[np.float32]] = []
    head.eval()
    for group, batch in zip(batches, loader.batches(batches), strict=True):
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=recipe.amp):
            out = run_head(head, batch)
        table = to_scores(out[..., : len(task.names)].float(), task).cpu().numpy()  # (B, T, K)
        values += [table[row, w.before : w.before + len(w)] for row, w in enumerate(group)]
    scores = {}
    rest = iter(values)
    for example in examples:
        own = tiles[example.recording]
        scores[example.recording] = overlap_mean(len(example), own, list(islice(rest, len(own))))
        if not np.isfinite(scores[example.recording]).all():
            raise DivergedError(f"{example.recording}: the output of the head is not finite; train it again")
    return scores


def to_scores(out: Tensor, task: Task) -> Tensor:
    """The output of a head as probabilities, or numbers clamped to the range that is scored and written."""
    if task.kind == "multi_label":
        return out.sigmoid()
    return out.softmax(dim=-1) if task.kind == "classes" else out.clamp(task.low, task.high)
