"""Training a head, from top to bottom."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aupipe.errors import AupipeError, UsageError
from aupipe.store import Store
from aupipe.train.average import Average
from aupipe.train.data import Example, columns, common_dims, feature_specs, fit_scaling, load_examples, refuse_twins
from aupipe.train.evaluate import Scores, pooled, warn_absent
from aupipe.train.feed import DeviceBatch, Feed, open_feed
from aupipe.train.heads import HEADS, build_head
from aupipe.train.labels import NAMES, check_labels, check_task, official_valid, rates, target_columns
from aupipe.train.losses import JointLoss, build_loss
from aupipe.train.postprocess import best_f1, fit_postprocess
from aupipe.train.predict import outputs, predict, score, state
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import Recipe, describe_missing
from aupipe.train.reproducible import reproducible, versions
from aupipe.train.resume import FILE as RESUME_FILE
from aupipe.train.resume import check_same, load_standing, restore_standing, save_standing, standing_tensors
from aupipe.train.run import Epoch, Run, save_postprocess, save_run, save_weights
from aupipe.train.schedule import Plateau, build_optimiser, rate
from aupipe.train.windows import tile
from aupipe.types import Labels, Recording, Task, Window

log = logging.getLogger(__name__)


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
    also: Mapping[Task, Mapping[str, Labels]] | None = None,
    device: str = "cpu",
    seed: int = 0,
    threads: int = 1,
    allow_missing: bool = False,
    resume: bool = False,
    deterministic: bool = False,
    compiled: bool = False,
    room: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Run:
    """Train a head on cached features and keep the epoch that is best on ``validation``.

    ``features`` maps names to feature ids in ``store``, ``labels`` recording ids to annotations. The run is written to
    the folder ``out``, anew at every better epoch; ``resume`` continues one that was killed there to the very weights
    it would have had (and begins one where there is none). ``progress`` gets a line per epoch. Same arguments, seed and
    ``threads`` on a CPU: the same run; ``deterministic`` promises it (and so what resuming does) on a GPU too, by
    refusing what it cannot compute twice alike. More threads seldom help so small a head, and hurt much on a shared
    machine (docs/training.md, "Speed"). ``compiled`` runs the head through torch.compile. ``room``: bytes the
    standardised features may take on the device, else they are streamed; None: half of what is free. ``also``:
    annotations of the tasks that the recipe trains along; a recording without them trains only the others.

    Raises UsageError for recordings without features or labels (unless ``allow_missing``), for two features that are
    the same numbers, for a task the recipe has no loss for, for recordings in both splits, and when ``out`` holds a run
    already; AupipeError if the loss diverges.
    """
    features = _choose(features, recipe)
    refuse_twins(features)
    standing = load_standing(out) if resume else None
    _check(train, validation, recipe, task, out if standing is None else None)
    specs = feature_specs(store, features)
    beside = _beside(recipe, task, also or {}, train)
    examples = load_examples(store, train, features, labels, allow_missing, beside)
    held_out = load_examples(store, validation, features, labels, allow_missing)
    _check_labelled(examples, task, "training")
    _check_labelled(held_out, task, "validation")
    dims = common_dims([*examples, *held_out])
    scaling = fit_scaling(examples, recipe.center)  # of the training split alone: trap 9
    by_id = {example.recording: example for example in examples}

    with reproducible(seed, threads, device, deterministic):
        rng = np.random.default_rng(seed)
        head = build_head(recipe.head.kind, recipe.head.params, columns(dims), outputs(recipe, task), dims).to(device)
        run_head: Any = torch.compile(head, dynamic=True) if compiled else head  # the same parameters
        feed = open_feed(examples, scaling, device, room)
        # The labels as given: those cut off or without features must show in the coverage.
        annotated = {item.id: labels[item.id] for item in validation if item.id in labels}
        validate = _validate(held_out, open_feed(held_out, scaling, device, room), annotated, recipe, task)
        loss_of = _loss(examples, recipe, task, device)
        _start(head, loss_of.start, lambda: feed.batches(_chunks(_epoch_windows(examples, recipe, None), recipe)), task)
        options = recipe.optimiser
        optimiser = build_optimiser(head, options)
        steps = math.ceil(len(_epoch_windows(examples, recipe, None)) / recipe.batch)  # per epoch, or one more
        steps = min(steps, recipe.steps) if recipe.steps else steps
        average = Average(head, recipe.ema)
        plateau = Plateau()
        run = Run(
            path=out,
            id=uuid.uuid4().hex,
            task=task,
            names=NAMES[task],
            recipe=recipe,
            features=features,
            specs=specs,
            dims=dims,
            seed=seed,
            best_epoch=0,
            scores=validate(run_head)[1],
            train=tuple(by_id),
            validation=tuple(example.recording for example in held_out),
            versions=versions(),
        )
        history: list[Epoch] = []
        step, best = 0, -math.inf
        if standing is not None:
            check_same(standing.run, run)
            run, history = standing.run, list(standing.run.history)
            step, best = standing.content["step"], standing.content["best"]
            rng.bit_generator.state = standing.content["rng"]
            plateau = Plateau(**standing.content["plateau"])
            restore_standing(head, optimiser, average, standing.tensors)
        out.mkdir(parents=True, exist_ok=True)
        for epoch in range(len(history) + 1, recipe.epochs + 1):
            if run.best_epoch and epoch - 1 - run.best_epoch >= recipe.patience:
                break
            began = time.perf_counter()
            losses: list[torch.Tensor] = []  # looked at when the epoch is over: a GPU is not waited for at every step
            head.train()
            windows = _epoch_windows(examples, recipe, rng)[: steps * recipe.batch if recipe.steps else None]
            for batch in feed.batches(_chunks(windows, recipe)):
                factor = rate(step, steps, recipe.epochs, options) * plateau.factor
                if options.warmup_only_first and step >= steps:
                    factor = plateau.factor
                for group in optimiser.param_groups:
                    group["lr"] = options.lr * factor
                with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=recipe.amp):
                    found = run_head(batch.x, batch.mask)  # (B, T, D) -> (B, T, K)
                loss = loss_of(found.float(), batch.targets, batch.valid)  # -> scalar
                losses.append(loss.detach())
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                if options.clip_value:
                    torch.nn.utils.clip_grad_value_(head.parameters(), options.clip_value)
                if options.clip_norm:
                    torch.nn.utils.clip_grad_norm_(head.parameters(), options.clip_norm)
                optimiser.step()
                average.update(head)
                step += 1

            mean = float(torch.stack(losses).double().mean())
            if not math.isfinite(mean):
                raise AupipeError(f"epoch {epoch}: loss {mean}; lower optimiser.lr (now {options.lr:g})")
            if not all(torch.isfinite(value).all() for value in head.parameters()):
                raise AupipeError(f"epoch {epoch}: weights are not finite; lower optimiser.lr (now {options.lr:g})")
            with average.in_place_of(head):
                reached, scores = validate(run_head)
                weights = {name: tensor.detach().cpu().numpy().copy() for name, tensor in state(head).items()}
            plateau.see(reached, options)
            spent = time.perf_counter() - began
            history.append(Epoch(epoch, mean, reached, options.lr * factor, round(spent, 3)))
            if reached > best or run.best_epoch == 0:
                best = reached
                run = replace(run, best_epoch=epoch, scores=scores)
                save_weights(out, run.id, weights, scaling)
                save_run(replace(run, history=tuple(history)))
            content = {"step": step, "best": best, "rng": rng.bit_generator.state, "plateau": plateau.to_json()}
            tensors = standing_tensors(head, optimiser, average)
            save_standing(replace(run, history=tuple(history)), tensors, content)
            if progress:
                progress(_line(history[-1], run, recipe))
    run = replace(run, history=tuple(history), finished=True)
    if task in recipe.postprocess:
        known = predict(run, store, [item for item in validation if item.id in set(run.validation)], device, threads)
        save_postprocess(run, fit_postprocess(known, annotated, task, recipe.postprocess[task]))
    save_run(run)
    (out / RESUME_FILE).unlink(missing_ok=True)
    warn_absent(run.scores)
    return run


def _choose(features: Mapping[str, str], recipe: Recipe) -> dict[str, str]:
    """The features the recipe names, in its order; all of them where it names none."""
    if missing := describe_missing(recipe, list(features)):
        raise UsageError(missing)
    return {name: features[name] for name in recipe.features or features}


def _check(
    train: Sequence[Recording], validation: Sequence[Recording], recipe: Recipe, task: Task, out: Path | None
) -> None:
    check_task(task)
    if task not in recipe.loss:
        raise UsageError(f"recipe {recipe.name!r} has no [loss.{task}] table; it trains {', '.join(recipe.loss)}")
    if out is not None and (out / "run.json").exists():
        raise UsageError(f"{out}: a run is there already: give another folder, remove it, or continue it (resume)")
    for split, recordings in (("training", train), ("validation", validation)):
        if not recordings:
            raise UsageError(f"no {split} recordings given")
    both = {item.id for item in train} & {item.id for item in validation}
    if both:
        raise UsageError(f"{len(both)} recordings are in training and validation, e.g. {min(both)!r}: split them")
    groups = {item.group for item in train} & {item.group for item in validation}
    if groups:
        log.warning(
            "%d groups are in training and validation (e.g. %r): the score will be better than on new people",
            len(groups),
            min(groups),
        )


def _check_labelled(examples: Sequence[Example], task: Task, split: str) -> None:
    """Whether there is anything to learn or to score; recordings that add nothing are named, never silent."""
    for example in examples:
        if example.labels is not None:
            check_labels(example.labels, task, example.recording)
    blank = [item.recording for item in examples if item.labels is None or not item.labels.valid.any()]
    if len(blank) == len(examples):
        raise UsageError(f"no valid {task} label in {len(examples)} {split} recordings: check the annotation folder")
    unseen = [item.recording for item in examples if not item.seen.any()]
    for names, what in ((blank, f"no valid {task} label"), (unseen, "no frame with a face")):
        if names:
            log.warning("%d of %d %s recordings have %s: %s", len(names), len(examples), split, what, _few(names))
    frames, seen = sum(map(len, examples)), sum(int(item.seen.sum()) for item in examples)
    valid = sum(int(official_valid(item.labels).sum()) for item in examples if item.labels)
    log.info("%s: %d frames of %d recordings, %d annotated, %d with a face", split, frames, len(examples), valid, seen)


def _beside(
    recipe: Recipe, task: Task, also: Mapping[Task, Mapping[str, Labels]], train: Sequence[Recording]
) -> list[tuple[Task, Mapping[str, Labels]]]:
    """Annotations of the tasks trained along. Raises UsageError where there is none for any training recording."""
    for other in recipe.beside(task):
        if not any(item.id in also.get(other, {}) for item in train):
            raise UsageError(f"recipe {recipe.name!r} trains {other} along, of which no training recording has labels")
        if hasattr(HEADS.get(recipe.head.kind), "start_from"):
            raise UsageError(f"head {recipe.head.kind!r} starts from the labels of one task: leave out also.{other}")
    return [(other, also[other]) for other in recipe.beside(task)]


def _loss(examples: Sequence[Example], recipe: Recipe, task: Task, device: str) -> Any:
    """The task's loss, or the weighted sum with those of the tasks beside it."""

    def build(one: Task, labels: Iterable[Labels]) -> Any:
        shares = torch.from_numpy(rates(labels, one)).float().to(device)
        return build_loss(recipe.loss[one].kind, recipe.loss[one].params, one, shares)

    own = build(task, (item.labels for item in examples if item.labels))
    beside = recipe.beside(task)
    if not beside:
        return own
    parts = [(own, 1.0, len(NAMES[task]), target_columns(task))]
    for place, (other, weight) in enumerate(beside.items()):
        loss = build(other, (item.also[place] for item in examples))
        parts.append((loss, weight, len(NAMES[other]), target_columns(other)))
    return JointLoss(parts)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _epoch_windows(examples: Sequence[Example], recipe: Recipe, rng: np.random.Generator | None) -> list[Window]:
    """Windows over every training frame, their seams and their order drawn anew."""
    windows = [
        window
        for example in examples
        for window in tile(
            example.recording, len(example), recipe.window, recipe.hop, int(rng.integers(recipe.hop)) if rng else 0
        )
    ]
    return [windows[i] for i in rng.permutation(len(windows))] if rng else windows


def _start(
    head: torch.nn.Module, start: torch.Tensor, batches: Callable[[], Iterable[DeviceBatch]], task: Task
) -> None:
    """What a head may know of the training split before the first step: rates, and whatever it asks for itself."""
    if "out.bias" in dict(head.named_parameters()):
        with torch.no_grad():
            head.get_parameter("out.bias").copy_(start)
    start_from: Any = getattr(head, "start_from", None)
    if start_from is not None:
        start_from(batches, task)


def _chunks(windows: Sequence[Window], recipe: Recipe) -> list[Sequence[Window]]:
    return [windows[at : at + recipe.batch] for at in range(0, len(windows), recipe.batch)]


def _validate(
    examples: Sequence[Example], feed: Feed, labels: Mapping[str, Labels], recipe: Recipe, task: Task
) -> Callable[[torch.nn.Module], tuple[float, Scores]]:
    """How a head does on whole recordings: what epochs are compared by, and the scores at a threshold of 0.5.

    Overlaps averaged, each valid frame counted once.
    """

    def validate(head: torch.nn.Module) -> tuple[float, Scores]:
        scores = score(head, examples, feed, recipe, task)
        predictions = {
            item.recording: Predictions(
                item.recording, task, NAMES[task], scores[item.recording], item.seen, np.full(len(item), np.nan)
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
