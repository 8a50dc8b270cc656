"""Scores for every frame of a recording: overlapping windows, averaged per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aupipe.errors import AupipeError, DamageError
from aupipe.store import Store
from aupipe.train.data import Example, columns, load_examples
from aupipe.train.feed import Feed, Streamed
from aupipe.train.heads import build_head
from aupipe.train.labels import NAMES
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import Recipe
from aupipe.train.run import Run, load_run, load_weights
from aupipe.train.windows import overlap_mean, tile
from aupipe.types import FeatureSpec, Recording, Task


def predict(
    run: Run | str | Path,
    store: Store,
    recordings: Sequence[Recording],
    device: str = "cpu",
    threads: int = 1,
    allow_missing: bool = False,
) -> dict[str, Predictions]:
    """Predictions of every frame of every recording, by recording id.

    A frame without a face is predicted from its neighbours and marked (`Predictions.seen`). Audio and other features
    are the very ones the run was trained on, by id.

    Raises UsageError listing the recordings for which the store lacks one of the run's features, DamageError when the
    run's files or a recording's features are not what was trained on.
    """
    run = run if isinstance(run, Run) else load_run(run)
    examples = load_examples(store, recordings, run.features, allow_missing=allow_missing)
    for example in examples:
        if example.dims != run.dims:
            raise DamageError(f"{example.recording}: features of {example.dims} columns, the run has {run.dims}")
    weights, scaling = load_weights(run)
    head = build_head(
        run.recipe.head.kind, run.recipe.head.params, columns(run.dims), outputs(run.recipe, run.task), run.dims
    )
    _restore(head, weights, run)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scores = score(head.to(device), examples, Streamed(examples, scaling, device), run.recipe, run.task)
    finally:
        torch.set_num_threads(before)
    by_id = {recording.id: recording for recording in recordings}
    return {
        example.recording: Predictions(
            recording=example.recording,
            task=run.task,
            names=run.names,
            scores=scores[example.recording],
            seen=example.seen,
            pts_s=clock(store, by_id[example.recording], run.specs, len(example)),
        )
        for example in examples
    }


@torch.inference_mode()
def score(
    head: nn.Module, examples: Sequence[Example], feed: Feed, recipe: Recipe, task: Task
) -> dict[str, NDArray[np.float32]]:
    """Scores (T, K) of whole recordings: where windows overlap their probabilities are averaged, not decisions."""
    tiles = {item.recording: tile(item.recording, len(item), *recipe.predict_windows) for item in examples}
    windows = list(chain.from_iterable(tiles.values()))
    chunks = [windows[at : at + recipe.batch] for at in range(0, len(windows), recipe.batch)]
    values: list[NDArray[np.float32]] = []
    head.eval()
    for chunk, batch in zip(chunks, feed.batches(chunks), strict=True):
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=recipe.amp):
            out = head(batch.x, batch.mask)
        table = _link(out[..., : len(NAMES[task])].float(), task).cpu().numpy()  # (B, T, K)
        values += [table[row, : len(window)] for row, window in enumerate(chunk)]
    scores = {}
    rest = iter(values)
    for example in examples:
        own = tiles[example.recording]
        scores[example.recording] = overlap_mean(len(example), own, list(islice(rest, len(own))))
        if not np.isfinite(scores[example.recording]).all():
            raise AupipeError(f"{example.recording}: the head's output is not finite; train it anew")
    return scores


def outputs(recipe: Recipe, task: Task) -> int:
    """Columns of a head's output: those of the task, and behind them those of the tasks trained along."""
    return len(NAMES[task]) + sum(len(NAMES[other]) for other in recipe.beside(task))


def _link(out: torch.Tensor, task: Task) -> torch.Tensor:
    """A head's output as scores. Valence and arousal are bounded here, so that what is scored is what is handed in."""
    if task == "au":
        return out.sigmoid()
    return out.softmax(dim=-1) if task == "expr" else out.clamp(-1.0, 1.0)


def state(head: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each once (a published TCN registers its layers twice)."""
    return dict(chain(head.named_parameters(), head.named_buffers()))


def _restore(head: nn.Module, weights: Mapping[str, NDArray[Any]], run: Run) -> None:
    own = state(head)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    stored = {name: value.shape for name, value in weights.items()}
    if shapes != stored:
        wrong = sorted(name for name in shapes.keys() | stored.keys() if shapes.get(name) != stored.get(name))
        raise DamageError(f"{run.path}: weights do not fit head {run.recipe.head.kind!r} at {', '.join(wrong[:3])}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))


def clock(store: Store, recording: Recording, specs: Mapping[str, FeatureSpec], frames: int) -> NDArray[np.float64]:
    """(T,) presentation times from the stored clock the features came from; NaN where there is none of T frames."""
    named = {feature_id for spec in specs.values() for feature_id in spec.inputs.values()}
    clocks = [spec for spec in store.features() if spec.modality == "clock"]
    for spec in sorted(clocks, key=lambda spec: spec.id not in named):
        try:
            rows = store.read(recording.key_for("clock"), spec.id)
        except KeyError:
            continue
        if len(rows) == frames:
            return np.array(rows, dtype=np.float64).reshape(frames, -1)[:, 0]  # (T, 1) -> (T,)
    if recording.video is None and recording.fps:
        return np.arange(frames, dtype=np.float64) / recording.fps
    return np.full(frames, np.nan)
