"""Training of a head on cached features, from top to bottom."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupipe.errors import AupipeError
from aupipe.store import Store
from aupipe.train.checkpoint import FILE as CHECKPOINT_FILE
from aupipe.train.checkpoint import TrainState, check_same, load_checkpoint
from aupipe.train.data import Example, columns
from aupipe.train.ema import EMA
from aupipe.train.evaluate import Scores, pooled, warn_absent
from aupipe.train.heads import build_head, named_tensors
from aupipe.train.inference import output_columns, score_recordings
from aupipe.train.labels import NAMES, positive_rates, target_columns
from aupipe.train.loader import DeviceBatch, Loader, open_loader
from aupipe.train.losses import JointLoss, build_loss
from aupipe.train.postprocess import fit_postprocess
from aupipe.train.predict import predict
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import Recipe
from aupipe.train.reproducibility import reproducible, versions
from aupipe.train.run import Epoch, Run, save_postprocess, save_run, save_weights
from aupipe.train.schedule import build_optimiser, lr_factor
from aupipe.train.thresholds import best_f1
from aupipe.train.training_data import check_request, load_training_data
from aupipe.train.windows import chunks, tile
from aupipe.types import Labels, Recording, Task, Window


def fit(
    store: Store,
    *,
    train: Sequence[Recording],
    validation: Sequence[Recording],
    labels: Mapping[str, Labels],
    features: Mapping[str, str],
    recipe: Recipe,
    task: Task,
    out: Path,
    aux_labels: Mapping[Task, Mapping[str, Labels]] | None = None,
    device: str = "cpu",
    seed: int = 0,
    threads: int = 1,
    allow_missing: bool = False,
    resume: bool = False,
    deterministic: bool = False,
    compiled: bool = False,
    memory_limit: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Run:
    """Train a head and keep the epoch with the best score on ``validation``.

    ``features``: name -> feature id in ``store``. ``labels``: recording id -> annotations. ``aux_labels``: the same for
    each auxiliary task of the recipe; a recording without them trains the other tasks only. The run is written to the
    folder ``out`` at every better epoch. ``resume`` continues a run that was killed there, to exactly the weights of an
    uninterrupted run, or starts one where there is none. ``progress`` receives a line per epoch.

    The same arguments, ``seed`` and ``threads`` give the same run on a CPU; with ``deterministic`` also on a GPU, where
    operations without a deterministic implementation then raise. More threads seldom make such small heads faster
    (docs/training.md, "Speed"). ``compiled``: the head runs through torch.compile. ``memory_limit``: bytes that the
    standardised features may take on the device, else they are streamed; None: half of what is free.

    Raises UsageError for recordings without features or labels (unless ``allow_missing``), for two features that are
    the same numbers, for a task the recipe has no loss for, for recordings in both splits, and where ``out`` already
    holds a run; AupipeError if the loss diverges.
    """
    checkpoint = load_checkpoint(out) if resume else None
    check_request(recipe, task, out, resumed=checkpoint is not None)
    data = load_training_data(
        store,
        train=train,
        validation=validation,
        labels=labels,
        aux_labels=aux_labels or {},
        features=features,
        recipe=recipe,
        task=task,
        allow_missing=allow_missing,
    )
    with reproducible(seed, threads, device, deterministic):
        rng = np.random.default_rng(seed)
        outputs = output_columns(recipe, task)
        head = build_head(recipe.head.kind, recipe.head.params, columns(data.dims), outputs, data.dims).to(device)
        run_head: Any = torch.compile(head, dynamic=True) if compiled else head  # the same parameters
        loader = open_loader(data.train, data.scaling, device, memory_limit)
        held_out = open_loader(data.validation, data.scaling, device, memory_limit)
        validate = _validator(data.validation, held_out, data.annotated, recipe, task)
        loss_of = _loss(data.train, recipe, task, device)
        windows = epoch_windows(data.train, recipe, None)
        _initialise(head, loss_of.start, lambda: loader.batches(chunks(windows, recipe.batch)), task)
        state = TrainState(head, build_optimiser(head, recipe.optimiser), EMA(head, recipe.ema), rng)
        steps = math.ceil(len(windows) / recipe.batch)  # per epoch; shifted windows can be one more
        steps = min(steps, recipe.steps) if recipe.steps else steps
        run = Run(
            path=out,
            id=uuid.uuid4().hex,
            task=task,
            names=NAMES[task],
            recipe=recipe,
            features=data.features,
            specs=data.specs,
            dims=data.dims,
            seed=seed,
            best_epoch=0,
            scores=validate(run_head)[1],
            train=tuple(example.recording for example in data.train),
            validation=tuple(example.recording for example in data.validation),
            versions=versions(),
        )
        history: list[Epoch] = []
        if checkpoint is not None:
            check_same(checkpoint.run, run)
            run, history = checkpoint.run, list(checkpoint.run.history)
            state.restore(checkpoint)
        out.mkdir(parents=True, exist_ok=True)
        for epoch in range(len(history) + 1, recipe.epochs + 1):
            if run.best_epoch and epoch - 1 - run.best_epoch >= recipe.patience:
                break
            start_s = time.perf_counter()
            windows = epoch_windows(data.train, recipe, rng)[: steps * recipe.batch if recipe.steps else None]
            batches = loader.batches(chunks(windows, recipe.batch))
            loss, lr = _train_epoch(state, run_head, batches, loss_of, recipe, steps)
            _check_finite(epoch, loss, head, recipe)
            with state.ema.applied_to(head):
                score, scores = validate(run_head)
                weights = {name: value.detach().cpu().numpy().copy() for name, value in named_tensors(head).items()}
            state.plateau.update(score, recipe.optimiser)
            history.append(Epoch(epoch, loss, score, lr, round(time.perf_counter() - start_s, 3)))
            if score > state.best or run.best_epoch == 0:
                state.best = score
                run = replace(run, best_epoch=epoch, scores=scores)
                save_weights(out, run.id, weights, data.scaling)
                save_run(replace(run, history=tuple(history)))
            state.save(replace(run, history=tuple(history)))
            if progress:
                progress(_line(history[-1], run, recipe))
    run = replace(run, history=tuple(history), finished=True)
    if task in recipe.postprocess:
        known = predict(run, store, [item for item in validation if item.id in set(run.validation)], device, threads)
        save_postprocess(run, fit_postprocess(known, data.annotated, task, recipe.postprocess[task]))
    save_run(run)
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    warn_absent(run.scores)
    return run


def epoch_windows(examples: Sequence[Example], recipe: Recipe, rng: np.random.Generator | None) -> list[Window]:
    """Windows over every training frame; ``rng`` draws the phase of each recording and the order, None: as they are."""
    windows = [
        window
        for example in examples
        for window in tile(
            example.recording, len(example), recipe.window, recipe.hop, int(rng.integers(recipe.hop)) if rng else 0
        )
    ]
    return [windows[i] for i in rng.permutation(len(windows))] if rng else windows


def _loss(examples: Sequence[Example], recipe: Recipe, task: Task, device: str) -> Any:
    """The loss of the task, or its weighted sum with the losses of the auxiliary tasks."""

    def build(one: Task, labels: Iterable[Labels]) -> Any:
        rates = torch.from_numpy(positive_rates(labels, one)).float().to(device)
        return build_loss(recipe.loss[one].kind, recipe.loss[one].params, one, rates)

    own = build(task, (item.labels for item in examples if item.labels))
    aux = recipe.aux_tasks_for(task)
    if not aux:
        return own
    parts = [(own, 1.0, len(NAMES[task]), target_columns(task))]
    for i, (other, weight) in enumerate(aux.items()):
        loss = build(other, (item.aux_labels[i] for item in examples))
        parts.append((loss, weight, len(NAMES[other]), target_columns(other)))
    return JointLoss(parts)


def _initialise(head: nn.Module, start: Tensor, batches: Callable[[], Iterable[DeviceBatch]], task: Task) -> None:
    """Set the output bias to the best constant output, and let the head initialise itself from training batches."""
    if "out.bias" in dict(head.named_parameters()):
        with torch.no_grad():
            head.get_parameter("out.bias").copy_(start)
    start_from: Any = getattr(head, "start_from", None)
    if start_from is not None:
        start_from(batches, task)


def _train_epoch(
    state: TrainState, run_head: Any, batches: Iterable[DeviceBatch], loss_of: Any, recipe: Recipe, steps: int
) -> tuple[float, float]:
    """One pass over the batches: the mean loss, and the learning rate of the last step."""
    options, optimiser, head = recipe.optimiser, state.optimiser, state.head
    losses: list[Tensor] = []  # read after the epoch: reading one waits for the GPU
    lr = 0.0
    head.train()
    for batch in batches:
        lr = options.lr * (lr_factor(state.step, steps, recipe.epochs, options) * state.plateau.factor)
        for group in optimiser.param_groups:
            group["lr"] = lr
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=recipe.amp):
            out = run_head(batch.x, batch.mask)  # (B, T, D) -> (B, T, K)
        loss = loss_of(out.float(), batch.targets, batch.valid)  # -> scalar
        losses.append(loss.detach())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if options.clip_value:
            nn.utils.clip_grad_value_(head.parameters(), options.clip_value)
        if options.clip_norm:
            nn.utils.clip_grad_norm_(head.parameters(), options.clip_norm)
        optimiser.step()
        state.ema.update(head)
        state.step += 1
    return float(torch.stack(losses).double().mean()), lr


def _check_finite(epoch: int, loss: float, head: nn.Module, recipe: Recipe) -> None:
    remedy = f"lower optimiser.lr (now {recipe.optimiser.lr:g})"
    if not math.isfinite(loss):
        raise AupipeError(f"epoch {epoch}: loss {loss}; {remedy}")
    if not all(torch.isfinite(value).all() for value in head.parameters()):
        raise AupipeError(f"epoch {epoch}: weights are not finite; {remedy}")


def _validator(
    examples: Sequence[Example], loader: Loader, labels: Mapping[str, Labels], recipe: Recipe, task: Task
) -> Callable[[nn.Module], tuple[float, Scores]]:
    """A function that scores a head on whole recordings: the number to compare epochs by, and the scores at 0.5."""

    def validate(head: nn.Module) -> tuple[float, Scores]:
        scores = score_recordings(head, examples, loader, recipe, task)
        predictions = {
            item.recording: Predictions(
                item.recording, task, NAMES[task], scores[item.recording], item.face_found, np.full(len(item), np.nan)
            )
            for item in examples
        }
        found = pooled(predictions, labels, task)
        tuned = recipe.monitor == "tuned" and task == "au"
        return best_f1(predictions, labels) if tuned else found.mean, found

    return validate


def _line(epoch: Epoch, run: Run, recipe: Recipe) -> str:
    best = f"best {run.scores.mean:.3f} (epoch {run.best_epoch})"
    score = f"validation {run.scores.metric} {epoch.score:.3f}"
    return f"epoch {epoch.epoch}/{recipe.epochs}  loss {epoch.loss:.4f}  {score}  {best}  {epoch.seconds:.1f} s"
