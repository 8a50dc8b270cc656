"""Predictions of a trained run for every frame of stored recordings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aupipe.errors import DamageError
from aupipe.store import Store
from aupipe.train.data import columns, load_examples
from aupipe.train.heads import build_head, named_tensors, reads_times
from aupipe.train.inference import score_recordings
from aupipe.train.loader import Streaming
from aupipe.train.predictions import Predictions
from aupipe.train.recipe_tables import recipe_names
from aupipe.train.run import Run, load_run, load_weights
from aupipe.types import FeatureSpec, Recording


def predict(
    run: Run | str | Path,
    store: Store,
    recordings: Sequence[Recording],
    device: str = "cpu",
    threads: int = 1,
    allow_missing: bool = False,
) -> dict[str, Predictions]:
    """Predictions of every frame of every recording, by recording id.

    A frame without a face is predicted from its neighbours and marked (`Predictions.face_found`). Features are those
    that the run was trained on, by id.

    Raises UsageError listing the recordings for which the store lacks one of the run's features, DamageError where the
    files of the run are damaged or the features have other columns than in training.
    """
    run = run if isinstance(run, Run) else load_run(run)
    own = run.recipe.name in recipe_names() and {one.name for one in run.recipe.encoders}.issuperset(run.features)
    command = f"aupipe extract --recipe {run.recipe.name} --task {shlex.quote(run.task.name)}" if own else ""
    examples = load_examples(
        store,
        recordings,
        run.features,
        allow_missing=allow_missing,
        command=command,
        symmetric=run.recipe.symmetric,
    )
    for example in examples:
        if example.dims != run.dims:
            raise DamageError(f"{example.recording}: features of {example.dims} columns, the run has {run.dims}")
    weights, scaling = load_weights(run)
    head = build_head(
        run.recipe.head.kind,
        run.recipe.head.params,
        columns(run.dims),
        run.outputs,
        run.dims,
        run.task.kind,
        tuple(run.features),
        read_weights=False,
    )
    _set_weights(head, weights, run)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loader = Streaming(examples, scaling, device, reads_times(head))
        scores = score_recordings(head.to(device), examples, loader, run.recipe, run.task)
    finally:
        torch.set_num_threads(before)
    by_id = {recording.id: recording for recording in recordings}
    return {
        example.recording: Predictions(
            recording=example.recording,
            task=run.task,
            names=run.names,
            scores=scores[example.recording],
            face_found=example.face_found,
            pts_s=presentation_times(store, by_id[example.recording], run.specs, len(example)),
        )
        for example in examples
    }


def _set_weights(head: nn.Module, weights: Mapping[str, NDArray[Any]], run: Run) -> None:
    own = named_tensors(head)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    stored = {name: value.shape for name, value in weights.items()}
    if shapes != stored:
        wrong = sorted(name for name in shapes.keys() | stored.keys() if shapes.get(name) != stored.get(name))
        raise DamageError(f"{run.path}: weights do not fit head {run.recipe.head.kind!r} at {', '.join(wrong[:3])}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))


def presentation_times(
    store: Store, recording: Recording, specs: Mapping[str, FeatureSpec], frames: int
) -> NDArray[np.float64]:
    """(T,) times in s from the stored clock that the features were computed with; NaN where there is none of T rows."""
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
