"""A model on disk: the folder of one run, or of an ensemble of several. `predict`, `evaluate` and `tune` take both.

An ensemble is a file ``ensemble.json``: the folders of its members and the rule that combines them. A member is a run
or an ensemble with its own rule, weights, thresholds and smoothing. Weights, votes and routes belong to members, not to
the runs inside a member. Members are combined after their own post-processing, except in means of folds, seeds and
features that were trained together, and in ensembles that an earlier aupipe saved. The post-processing of the whole
ensemble comes last.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, Literal

from aupipe.documents import read_json
from aupipe.errors import DamageError, UsageError
from aupipe.files import as_argument, write_file
from aupipe.tasks import Task, task_from_json
from aupipe.train.combination import Ties
from aupipe.train.folder_lock import REQUEST_FILE
from aupipe.train.postprocess import PostProcess
from aupipe.train.run import Run, holds_run, load_postprocess, load_run

FILE = "ensemble.json"
FORMAT = 3  # 1: every member is a run; 1 and 2: only members that vote are post-processed
Rule = Literal["single", "mean", "vote", "routed"]
RULES = ("mean", "vote", "routed")


@dataclass(frozen=True)
class Model:
    """A run (``rule`` single), or ``members`` and the rule that combines them.

    ``weights``: one per member. ``routes``: value of the column ``by`` of the data set, or where that is '' recording
    id or group, -> index of its member in ``members``; ``default``: the index for all others. ``weighed_on``: ids of
    the recordings that the ``weights`` were fitted on. ``member_post``: members are combined after their own
    post-processing.
    """

    path: Path
    id: str
    task: Task
    members: tuple[Model, ...] = ()
    rule: Rule = "single"
    ties: Ties = "mean"
    weights: tuple[float, ...] = ()
    weighed_on: tuple[str, ...] = ()
    by: str = ""
    routes: Mapping[str, int] | None = None
    default: int | None = None
    member_post: bool = False
    run: Run | None = None  # of rule single

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, also those of members of members."""
        own = (self.run,) if self.run is not None else ()
        return own + tuple(run for member in self.members for run in member.runs)

    @property
    def finished(self) -> bool:
        """Are all runs finished?"""
        return all(run.finished for run in self.runs)

    @property
    def name(self) -> str:
        """The title of a table column; members of weight 0 are not counted."""
        if len(self.members) == 1:
            return self.members[0].name
        if self.rule == "single":
            return self.runs[0].recipe.name
        counted = [member for member, share in zip(self.members, self.shares, strict=True) if share]
        recipes = dict.fromkeys(run.recipe.name for member in counted for run in member.runs)
        return f"{'weighted ' if self.weights else ''}{self.rule} of {len(counted)} {'+'.join(recipes)}"

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights of the members, normalised to a sum of 1."""
        weights = self.weights or (1.0,) * len(self.members)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def post(self) -> PostProcess | None:
        """The post-processing fitted for the whole model, or None."""
        return load_postprocess(self)

    @property
    def member_posts(self) -> tuple[PostProcess, ...]:
        """The post-processing of members, and of their members, that the scores of this model have had."""
        own = [member.post for member in self.members] if self.member_post else []
        below = [post for member in self.members for post in member.member_posts]
        return (*(post for post in own if post is not None), *below)

    @property
    def trained_on(self) -> frozenset[str]:
        """Ids of the recordings that at least one run was trained on."""
        return frozenset(name for run in self.runs for name in run.train)

    @property
    def chosen_on(self) -> frozenset[str]:
        """Ids of the recordings that the epoch of at least one run was chosen on."""
        return frozenset(name for run in self.runs for name in run.validation)

    @property
    def tuned_on(self) -> frozenset[str]:
        """Ids of the recordings that weights, or thresholds and smoothing of members, were fitted on."""
        found = [*(name for post in self.member_posts for name in post.tuned_on), *self.weighed_on]
        return frozenset(found).union(*(member.tuned_on for member in self.members))


def load_model(path: str | Path) -> Model:
    """The model in a folder. Raises UsageError where there is none, DamageError where it is not readable."""
    folder = Path(path)
    file = folder / FILE
    if not file.is_file():
        if (folder / REQUEST_FILE).is_file() and not holds_run(folder):
            raise UsageError(f"{folder}: unfinished: `aupipe train --resume {as_argument(folder)}`")
        return of_run(load_run(folder))
    try:
        content = read_json(file)
        if content.pop("format") > FORMAT:
            raise UsageError(f"{file}: made by a newer aupipe: update aupipe")
        members = [folder / member for member in content.pop("members")]
        for key in ("weights", "weighed_on"):
            content[key] = tuple(content.get(key, ()))
        content["task"] = task_from_json(content["task"])
        content.setdefault("member_post", content["rule"] == "vote")
        model = Model(path=folder, members=tuple(load_model(member) for member in members), **content)
        if _unknown_route(len(members), model.routes, model.default) is not None:
            raise ValueError("a route to a member that does not exist")
        if model.weights and len(model.weights) != len(members):
            raise ValueError(f"{len(model.weights)} weights for {len(members)} members")
        if not _valid_weights(model.weights):
            raise ValueError(f"weights {model.weights}")
        return model
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(
            f"{file}: not readable as an ensemble ({error!r}); create it again with `aupipe ensemble`"
        ) from error


def of_run(run: Run) -> Model:
    """A model of a single run."""
    return Model(run.path, run.id, run.task, run=run)


def mean_of(runs: Sequence[Run]) -> Model:
    """The plain mean of runs, which is not saved."""
    return Model(runs[0].path.parent, "", runs[0].task, tuple(map(of_run, runs)), "mean")


def save_ensemble(
    folder: Path,
    members: Sequence[Model | Run],
    rule: Rule = "mean",
    *,
    ties: Ties = "mean",
    weights: Sequence[float] = (),
    weighed_on: Sequence[str] = (),
    by: str = "",
    routes: Mapping[str, int] | None = None,
    default: int | None = None,
    member_post: bool = True,
) -> Model:
    """Write an ensemble of finished runs and ensembles of one task; it names their folders relative to its own.

    ``weights``: one per member. ``routes`` and ``default``: indices into ``members`` (`Model`).

    Raises UsageError for members of several tasks, for unfinished ones, for weights or routes that do not fit, and
    where the folder already holds an ensemble or a run.
    """
    if rule not in RULES:
        raise UsageError(f"unknown rule {rule!r}: expected {', '.join(RULES)}")
    if not members:
        raise UsageError("an ensemble without members: give at least one run")
    models = [of_run(member) if isinstance(member, Run) else member for member in members]
    task = models[0].task
    if others := {model.task for model in models} - {task}:
        named = sorted({str(one) for one in (task, *others)})
        raise UsageError(f"members of several tasks: {', '.join(named if len(named) > 1 else named * 2)}")
    if rule == "vote" and not task.whole:
        raise UsageError(f"{' and '.join(task.names)} cannot be voted on: use the mean")
    for run in (run for model in models for run in model.runs):
        if not run.finished:
            raise UsageError(f"{run.path}: not finished: `aupipe train --resume {as_argument(run.path)}`")
    if weights and (rule != "mean" or len(weights) != len(members)):
        raise UsageError(f"{len(weights)} weights for {len(members)} members by {rule}: one each, for the mean")
    if not _valid_weights(weights):
        raise UsageError(f"weights {', '.join(f'{weight:g}' for weight in weights)}: expected 0 or more, and not all 0")
    if (rule == "routed") != (routes is not None):
        raise UsageError("routes and the rule 'routed' need each other")
    unknown = _unknown_route(len(members), routes, default)
    if unknown is not None:
        raise UsageError(f"a route to member {unknown + 1} of {len(members)}")
    if (folder / FILE).exists() or holds_run(folder):
        raise UsageError(f"{folder}: already holds a model: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "task": task.to_json(),
        "members": [relpath(model.path.resolve(), folder.resolve()) for model in models],
        "rule": rule,
        "ties": ties,
        "weights": list(weights),
        "weighed_on": list(weighed_on),
        "by": by,
        "routes": dict(routes) if routes is not None else None,
        "default": default,
        "member_post": member_post,
    }
    write_file(folder / FILE, json.dumps(content, indent=1))
    return load_model(folder)


def _valid_weights(weights: Sequence[float]) -> bool:
    """Are the weights finite, none below 0, and not all 0? () stands for equal weights."""
    return not weights or (all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0)


def _unknown_route(members: int, routes: Mapping[str, int] | None, default: int | None) -> int | None:
    """An index in the routes that no member has, or None."""
    indices = (*(routes or {}).values(), default)
    return next((index for index in indices if index is not None and not 0 <= index < members), None)
