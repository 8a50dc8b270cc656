"""Training of a head on cached features, from top to bottom."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aupipe.errors import DivergedError, UsageError
from aupipe.store import Store
from aupipe.tasks import Task
from aupipe.train.checkpoint import TrainState, load_checkpoint
from aupipe.train.context import Context
from aupipe.train.data import Example, columns
from aupipe.train.data_identity import check_same, identify_fit_data
from aupipe.train.ema import averaged_model
from aupipe.train.evaluate import pooled, warn_absent
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.folder_lock import lock_folder
from aupipe.train.heads import build_head, context_of, reads_times, require_weights, run_head
from aupipe.train.idle_settings import warn_unreached
from aupipe.train.inference import score_recordings
from aupipe.train.labels import positive_rates
from aupipe.train.loader import DeviceBatch, open_loader
from aupipe.train.losses import JointLoss, build_loss
from aupipe.train.postprocess import fit_where_possible
from aupipe.train.predict import predict
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import Recipe, describe_missing
from aupipe.train.reproducibility import reproducible, versions
from aupipe.train.run import Epoch, Run, holds_run, load_run, save_postprocess, save_run
from aupipe.train.schedule import build_optimiser, lr_factor
from aupipe.train.scores import Scores
from aupipe.train.thresholds import best_f1
from aupipe.train.training_data import TrainingData, check_request, load_training_data
from aupipe.train.windows import chunks, tile, with_context
from aupipe.types import Labels, Window

NO_CONTEXT = Context()


def fit(
    store: Store,
    data: FitData,
    config: FitConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Run:
    """Train a head and keep the epoch with the best score on the validation recordings; without any, the last epoch.

    The run is written to the folder ``out`` after every epoch, all of it in one file. ``resume`` continues a run that
    was killed there, to exactly the weights of an uninterrupted one, returns a finished one, and starts one where there
    is none. ``progress`` receives a line per epoch.

    Raises UsageError for recordings without features or labels (unless ``allow_missing``), for two features that are
    the same numbers, for a task the recipe has no loss for, for recordings in both splits, where ``out`` already holds
    a run, also one of other arguments or data, and where another training runs there; DivergedError if the loss does.
    """
    recipe, task = config.recipe, config.task
    check_request(recipe, task)
    aux_tasks = data.aux_tasks(recipe.aux_tasks_for(task.name))
    for other in aux_tasks:
        check_request(recipe, other)
    before = load_run(out) if holds_run(out) else None
    if before is not None:
        if not resume:
            raise UsageError(f"{out}: already holds a run: give another folder, remove it, or resume it")
        check_same(before, store, data, config)
        if before.finished:
            return before
    elif not describe_missing(recipe, list(data.features)):
        require_weights(recipe.head.kind, recipe.head.params)
    loaded = load_training_data(
        store,
        train=data.train,
        validation=data.validation,
        labels=data.labels,
        aux_labels=[(other, data.aux_labels.get(other.name, {})) for other in aux_tasks],
        features=data.features,
        recipe=recipe,
        task=task,
        allow_missing=config.allow_missing,
        command=data.command,
    )
    with lock_folder(out), reproducible(config.seed, config.threads, config.device, config.deterministic):
        checkpoint = load_checkpoint(out)
        if checkpoint is not None and before is None:
            raise UsageError(f"{out}: another training has written a run there meanwhile: give another folder")
        if checkpoint is not None and checkpoint.run.finished:  # by another process, since it was looked at
            return checkpoint.run
        rng = np.random.default_rng(config.seed)
        outputs = sum(len(one.names) for one in (task, *aux_tasks))
        kind, params, names = recipe.head.kind, recipe.head.params, tuple(loaded.features)
        width, new = columns(loaded.dims), checkpoint is None
        head = build_head(kind, params, width, outputs, loaded.dims, task.kind, names, new).to(config.device)
        context, timed = context_of(head, recipe.margin), reads_times(head)
        called: Any = torch.compile(head, dynamic=True) if config.compiled else head  # the same parameters
        loader = open_loader(loaded.train, loaded.scaling, config.device, config.memory_limit, timed)
        validate = _validator(loaded, config, timed) if loaded.validation else None
        loss_of = _loss(loaded.train, config, aux_tasks)
        start = loss_of.start if recipe.bias_at_rates else None
        _initialise(
            head, start, lambda: loader.batches(chunks(epoch_windows(loaded.train, recipe, None), recipe.batch)), task
        )
        average = averaged_model(head, recipe.ema) if recipe.ema else None
        state = TrainState(head, build_optimiser(head, recipe.optimiser), average, rng)
        if checkpoint is None:
            scores = validate(head)[1] if validate else None
            run = replace(_new_run(out, store, data, loaded, config, scores), aux_tasks=aux_tasks)
        else:
            run = checkpoint.run
            state.restore(checkpoint)
        for epoch in range(len(run.history) + 1, recipe.epochs + 1):
            if run.best_epoch and epoch - 1 - run.best_epoch >= recipe.patience:  # not without validation
                break
            start_s = time.perf_counter()
            windows = epoch_windows(loaded.train, recipe, rng, context)
            batches = chunks(windows, recipe.batch)[: recipe.steps or None]
            if epoch == 1:
                warn_unreached(recipe.optimiser, len(batches), recipe.epochs)
            loss, lr = _train_epoch(state, called, loader.batches(batches), loss_of, recipe, epoch, len(batches))
            _check_finite(epoch, loss, head, recipe)
            score, scores = validate(state.scored) if validate else (None, None)
            if score is not None:
                state.plateau.update(score, recipe.optimiser)
            if score is None or score > state.best or run.best_epoch == 0:
                state.keep(score or 0.0)
                run = replace(run, best_epoch=epoch, scores=scores)
            done = Epoch(epoch, loss, score, lr, round(time.perf_counter() - start_s, 3))
            run = replace(run, history=(*run.history, done))
            save_run(run, state.weights, loaded.scaling, state.arrays(), state.progress())
            if progress:
                progress(_line(done, run, recipe))
        if (options := recipe.postprocess_for(task)) is not None:
            held_out = [item for item in data.validation if item.id in set(run.validation)]
            known = predict(run, store, held_out, config.device, config.threads) if held_out else {}
            if (post := fit_where_possible(known, loaded.annotated, task, options)) is not None:
                save_postprocess(run, post)
        run = replace(run, finished=True)
        save_run(run, state.weights, loaded.scaling)
    if run.scores is not None:
        warn_absent(run.scores)
    return run


def epoch_windows(
    examples: Sequence[Example], recipe: Recipe, rng: np.random.Generator | None, context: Context = NO_CONTEXT
) -> list[Window]:
    """Windows over every training frame; ``rng`` draws the phase of each recording and the order, None: as they are."""
    windows: list[Window] = []
    for example in examples:
        phase = int(rng.integers(recipe.hop)) if rng and recipe.shift else 0
        own = tile(example.recording, len(example), recipe.window, recipe.hop, phase)
        windows += with_context(own, context, example)
    return [windows[i] for i in rng.permutation(len(windows))] if rng else windows


def _new_run(
    out: Path, store: Store, data: FitData, loaded: TrainingData, config: FitConfig, scores: Scores | None
) -> Run:
    """A run before its first epoch; ``scores`` of the initial weights."""
    used = {example.recording for example in (*loaded.train, *loaded.validation)}
    train, validation = ([r for r in split if r.id in used] for split in (data.train, data.validation))
    return Run(
        path=out,
        id=uuid.uuid4().hex,
        task=config.task,
        recipe=config.recipe,
        features=loaded.features,
        specs=loaded.specs,
        dims=loaded.dims,
        seed=config.seed,
        best_epoch=0,
        scores=scores,
        train=tuple(recording.id for recording in train),
        validation=tuple(recording.id for recording in validation),
        versions=versions(),
        data=identify_fit_data(store, train, validation, loaded.features, data),
    )


def _loss(examples: Sequence[Example], config: FitConfig, aux_tasks: Sequence[Task]) -> Any:
    """The loss of the task, or its weighted sum with the losses of the auxiliary tasks."""

    def build(one: Task, labels: Iterable[Labels]) -> Any:
        loss = config.recipe.loss_for(one)
        assert loss is not None  # checked before the data was loaded
        rates = torch.from_numpy(positive_rates(labels, one)).float().to(config.device)
        return build_loss(loss.kind, loss.params, one, rates)

    own = build(config.task, (item.labels for item in examples if item.labels))
    if not aux_tasks:
        return own
    parts = [(own, 1.0, len(config.task.names), config.task.columns)]
    for i, other in enumerate(aux_tasks):
        loss = build(other, (item.aux_labels[i] for item in examples))
        parts.append((loss, config.recipe.aux_tasks[other.name], len(other.names), other.columns))
    return JointLoss(parts)


def _initialise(
    head: nn.Module, start: Tensor | None, batches: Callable[[], Iterable[DeviceBatch]], task: Task
) -> None:
    """Set the output bias to ``start`` (K,), and let the head initialise itself from training batches."""
    last = getattr(head, "then", head)
    if start is not None and "out.bias" in dict(last.named_parameters()):
        with torch.no_grad():
            last.get_parameter("out.bias").copy_(start)
    start_from: Any = getattr(head, "start_from", None)
    if start_from is not None:
        start_from(batches, task)


def _train_epoch(
    state: TrainState,
    called: Any,
    batches: Iterable[DeviceBatch],
    loss_of: Any,
    recipe: Recipe,
    epoch: int,
    steps: int,
) -> tuple[float, float]:
    """One pass over the ``steps`` batches: the mean loss, and the learning rate of the last step."""
    options, optimiser, head = recipe.optimiser, state.optimiser, state.head
    losses: list[Tensor] = []  # read after the epoch: reading one waits for the GPU
    branches = {"branches": True} if getattr(head, "branches", 0) else {}
    lr = 0.0
    head.train()
    for step, batch in enumerate(batches):
        lr = options.lr * lr_factor(epoch - 1 + step / steps, steps, recipe.epochs, options) * state.plateau.factor
        for group in optimiser.param_groups:
            group["lr"] = lr * group["scale"]
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=recipe.amp):
            outputs = run_head(called, batch, **branches)  # (B, T, D) -> (B, T, K); with branches (1 + n, B, T, K)
        each = [loss_of(out.float(), batch.targets, batch.valid) for out in (outputs if branches else (outputs,))]
        loss = each[0] if len(each) == 1 else torch.stack(each).mean()  # -> scalar
        losses.append(loss.detach())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if options.clip_value:
            nn.utils.clip_grad_value_(head.parameters(), options.clip_value)
        if options.clip_norm:
            nn.utils.clip_grad_norm_(head.parameters(), options.clip_norm)
        optimiser.step()
        if state.average is not None:
            state.average.update_parameters(head)
    return float(torch.stack(losses).double().mean()), lr


def _check_finite(epoch: int, loss: float, head: nn.Module, recipe: Recipe) -> None:
    remedy = f"lower optimiser.lr (now {recipe.optimiser.lr:g})"
    if not math.isfinite(loss):
        raise DivergedError(f"epoch {epoch}: loss {loss}; {remedy}")
    if not all(torch.isfinite(value).all() for value in head.parameters()):
        raise DivergedError(f"epoch {epoch}: weights are not finite; {remedy}")


def _validator(loaded: TrainingData, config: FitConfig, timed: bool) -> Callable[[nn.Module], tuple[float, Scores]]:
    """A function that scores a head on whole recordings: the number to compare epochs by, and the scores at 0.5."""
    recipe, task, examples = config.recipe, config.task, loaded.validation
    loader = open_loader(examples, loaded.scaling, config.device, config.memory_limit, timed)

    def validate(head: nn.Module) -> tuple[float, Scores]:
        scores = score_recordings(head, examples, loader, recipe, task)
        predictions = {
            item.recording: Predictions(
                item.recording, task, task.names, scores[item.recording], item.face_found, np.full(len(item), np.nan)
            )
            for item in examples
        }
        found = pooled(predictions, loaded.annotated, task)
        tuned = recipe.monitor == "tuned" and task.kind == "multi_label"
        return best_f1(predictions, loaded.annotated) if tuned else found.mean, found

    return validate


def _line(epoch: Epoch, run: Run, recipe: Recipe) -> str:
    score = ""
    if run.scores is not None:
        best = f"best {run.scores.mean:.3f} (epoch {run.best_epoch})"
        score = f"  validation {run.scores.metric} {epoch.score:.3f}  {best}"
    return f"epoch {epoch.epoch}/{recipe.epochs}  loss {epoch.loss:.4f}{score}  {epoch.seconds:.1f} s"
