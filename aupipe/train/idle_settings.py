"""Settings that change nothing: of a task, of a kind of optimiser or smoothing, or because the run is too short."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.tasks import Task
from aupipe.train.postprocess import Options
from aupipe.train.recipe import Recipe
from aupipe.train.schedule import Optimiser

log = logging.getLogger(__name__)

T = TypeVar("T")
USED_BY_SCHEDULE = {
    "final_lr": ("cosine", "restarts", "bounce"),
    "restart_epochs": ("restarts", "bounce"),
    "plateau_patience": ("plateau",),
    "plateau_factor": ("plateau",),
}


def idle_overrides(read: Callable[[Sequence[str]], T], overrides: Sequence[str], used: Callable[[T], Any]) -> list[str]:
    """Those ``key=value`` changes without which the settings in use are the same.

    ``read``: what the changes make of the settings; ``used``: the part of it that is in use.
    """
    found = used(read(overrides))

    def is_idle(i: int) -> bool:
        try:
            return bool(used(read([*overrides[:i], *overrides[i + 1 :]])) == found)
        except UsageError:  # the others need this one
            return False

    return [text for i, text in enumerate(overrides) if is_idle(i)]


def settings_in_use(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The settings of a recipe that a run of ``task`` uses; values that have no effect there are left out."""
    tables: dict[str, Any] = recipe.to_json()
    aux = recipe.aux_tasks_for(task.name)
    own = recipe.loss_for(task)
    post = recipe.postprocess_for(task)
    tables |= {
        "loss": (own, [tables["loss"].get(name) for name in aux]),
        "aux_tasks": aux,
        "optimiser": optimiser_in_use(recipe.optimiser),
        "postprocess": options_in_use(post, task) if post is not None else None,
        "patience": recipe.patience if recipe.patience < recipe.epochs else None,
        "monitor": recipe.monitor if task.kind == "multi_label" else None,
    }
    return tables


def optimiser_in_use(options: Optimiser) -> Mapping[str, Any]:
    """The settings of an optimiser that its kind and its schedule use."""
    idle = {key for key, schedules in USED_BY_SCHEDULE.items() if options.schedule not in schedules}
    idle |= {"momentum", "nesterov"} if options.kind != "sgd" else set()
    idle |= {"nesterov"} if not options.momentum else set()
    idle |= {"warmup_epochs"} if options.warmup_steps else set()
    idle |= {"drop_factor"} if not options.drop_epoch else set()
    return {key: value for key, value in asdict(options).items() if key not in idle}


def options_in_use(options: Options, task: Task) -> Mapping[str, Any]:
    """The settings of a post-processing that this kind of task, and this kind of smoothing, use."""
    idle = {"threshold", "aucorr"} if task.kind != "multi_label" else set()
    idle |= {"match_variance"} if task.whole else set()
    idle |= {"width", "max_gap"} if options.smooth == "none" else set()
    idle |= {"side"} if options.smooth != "average" else set()
    return {key: value for key, value in asdict(options).items() if key not in idle}


def warn_unreached(options: Optimiser, steps: int, epochs: int) -> None:
    """Log what of a schedule a run does not reach (`unreached`)."""
    for line in unreached(options, steps, epochs):
        log.warning("the run of %s is shorter than its schedule: %s", counted(epochs, "epoch"), line)


def unreached(options: Optimiser, steps: int, epochs: int) -> list[str]:
    """What of a schedule a run of ``epochs`` with so many ``steps`` each does not reach, in words."""
    warm = options.warmup_steps / max(steps, 1) if options.warmup_steps else options.warmup_epochs
    found = []
    if warm >= epochs and not options.warmup_only_first:
        found.append(f"the warm-up takes {warm:.3g} epochs: the learning rate never reaches {options.lr:g}")
    if options.schedule == "restarts" and warm + options.restart_epochs >= epochs:
        found.append(f"restart_epochs = {options.restart_epochs:g}: the schedule never restarts")
    if options.schedule == "plateau" and options.plateau_patience + 1 >= epochs:
        found.append(f"plateau_patience = {options.plateau_patience}: the learning rate is never lowered")
    if options.drop_epoch >= epochs:
        found.append(f"drop_epoch = {options.drop_epoch}: the learning rate is never lowered")
    return found
