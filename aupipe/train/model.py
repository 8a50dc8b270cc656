"""What predicts: one run, or several together, in a folder that `predict`, `evaluate` and `tune` take alike.

An ensemble is ``ensemble.json``: its members' folders and the rule that joins them. A member is a run or an ensemble
with a rule of its own; weights, votes and routes are of members, never of the runs inside them. Votes are cast by each
member behind its own post-processing; means and routes join raw scores. A post-processing of the whole follows either.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, Literal

from aupipe.documents import read_json
from aupipe.errors import DamageError, UsageError
from aupipe.files import write_file
from aupipe.store import Store
from aupipe.train.ensemble import Ties, mean, routed, vote
from aupipe.train.postprocess import PostProcess, apply_postprocess
from aupipe.train.predictions import Predictions, Threshold
from aupipe.train.run import Run, load_postprocess, load_run
from aupipe.types import Recording, Task

FILE = "ensemble.json"
FORMAT = 2  # 1: every member is a run
Rule = Literal["single", "mean", "vote", "routed"]
RULES = ("mean", "vote", "routed")


@dataclass(frozen=True)
class Model:
    """A run (``rule`` single), or ``members`` and how they are joined.

    ``weights``: one per member. ``routes``: recording id or group -> place of its member in ``members``.
    ``weighed_on``: the recordings that chose the ``weights``, if any did.
    """

    path: Path
    id: str
    task: Task
    members: tuple[Model, ...] = ()
    rule: Rule = "single"
    ties: Ties = "mean"
    weights: tuple[float, ...] = ()
    weighed_on: tuple[str, ...] = ()
    routes: Mapping[str, int] | None = None
    default: int | None = None
    run: Run | None = None  # of rule single

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run in it, those of its members' members too."""
        own = (self.run,) if self.run is not None else ()
        return own + tuple(run for member in self.members for run in member.runs)

    @property
    def finished(self) -> bool:
        """Are all of its runs?"""
        return all(run.finished for run in self.runs)

    @property
    def name(self) -> str:
        """For the head of a table; who counts for nothing is not named."""
        if self.rule == "single":
            return self.runs[0].recipe.name
        counted = [member for member, share in zip(self.members, self.shares, strict=True) if share]
        recipes = dict.fromkeys(run.recipe.name for member in counted for run in member.runs)
        return f"{'weighted ' if self.weights else ''}{self.rule} of {len(counted)} {'+'.join(recipes)}"

    @property
    def shares(self) -> tuple[float, ...]:
        """How much of the whole each member is; together 1."""
        weights = self.weights or (1.0,) * len(self.members)
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def post(self) -> PostProcess | None:
        """What was fitted for the whole, if anything."""
        return load_postprocess(self)

    @property
    def trained_on(self) -> frozenset[str]:
        """Recordings some member was trained on."""
        return frozenset(name for run in self.runs for name in run.train)

    @property
    def chosen_on(self) -> frozenset[str]:
        """Recordings that chose some member's epoch."""
        return frozenset(name for run in self.runs for name in run.validation)

    @property
    def tuned_on(self) -> frozenset[str]:
        """Recordings that chose a voter's thresholds or smoothing, or the members' weights."""
        posts = [member.post for member in self.members] if self.rule == "vote" else []
        found = [*(name for post in posts if post for name in post.tuned_on), *self.weighed_on]
        return frozenset(found).union(*(member.tuned_on for member in self.members))


def load_model(path: str | Path) -> Model:
    """The model in a folder. Raises UsageError where there is none, DamageError where it is not readable."""
    folder = Path(path)
    file = folder / FILE
    if not file.is_file():
        return of_run(load_run(folder))
    try:
        content = read_json(file)
        if content.pop("format") > FORMAT:
            raise UsageError(f"{file}: made by a newer aupipe: update aupipe")
        members = [folder / member for member in content.pop("members")]
        for key in ("weights", "weighed_on"):
            content[key] = tuple(content.get(key, ()))
        model = Model(path=folder, members=tuple(load_model(member) for member in members), **content)
        if _stray_place(len(members), model.routes, model.default) is not None:
            raise ValueError("a route to a member that is not there")
        if model.weights and len(model.weights) != len(members):
            raise ValueError(f"{len(model.weights)} weights for {len(members)} members")
        if not _can_weigh(model.weights):
            raise ValueError(f"weights {model.weights}")
        return model
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"{file}: not readable as an ensemble ({error!r}); make it anew") from error


def of_run(run: Run) -> Model:
    """A run as a model of one."""
    return Model(run.path, run.id, run.task, run=run)


def save_ensemble(
    folder: Path,
    members: Sequence[Model | Run],
    rule: Rule = "mean",
    *,
    ties: Ties = "mean",
    weights: Sequence[float] = (),
    weighed_on: Sequence[str] = (),
    routes: Mapping[str, int] | None = None,
    default: int | None = None,
) -> Model:
    """Write an ensemble of finished runs and ensembles of one task; their folders are named relative to it.

    ``weights`` are one per member, ``routes`` and ``default`` places in ``members``.

    Raises UsageError for members of several tasks, unfinished ones, weights or routes that do not fit, and a folder
    that holds an ensemble or a run already.
    """
    if rule not in RULES:
        raise UsageError(f"unknown rule {rule!r}: expected {', '.join(RULES)}")
    if not members:
        raise UsageError("an ensemble of nobody: give one run at least")
    models = [of_run(member) if isinstance(member, Run) else member for member in members]
    tasks = sorted({model.task for model in models})
    if len(tasks) > 1:
        raise UsageError(f"members of several tasks: {', '.join(tasks)}")
    if rule == "vote" and tasks == ["va"]:
        raise UsageError("valence and arousal cannot be voted on: use the mean")
    for run in (run for model in models for run in model.runs):
        if not run.finished:
            raise UsageError(f"{run.path}: not finished: `aupipe train --resume {run.path}`")
    if weights and (rule != "mean" or len(weights) != len(members)):
        raise UsageError(f"{len(weights)} weights for {len(members)} members by {rule}: one each, for the mean")
    if not _can_weigh(weights):
        raise UsageError(f"weights {', '.join(f'{weight:g}' for weight in weights)}: expected 0 or more, and not all 0")
    if (rule == "routed") != (routes is not None):
        raise UsageError("routes and the rule 'routed' need each other")
    stray = _stray_place(len(members), routes, default)
    if stray is not None:
        raise UsageError(f"a route to member {stray + 1} of {len(members)}")
    for taken in (FILE, "run.json"):
        if (folder / taken).exists():
            raise UsageError(f"{folder}: holds {taken} already: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "format": FORMAT if any(model.members for model in models) else 1,
        "id": uuid.uuid4().hex,
        "task": tasks[0],
        "members": [relpath(model.path.resolve(), folder.resolve()) for model in models],
        "rule": rule,
        "ties": ties,
        "weights": list(weights),
        "weighed_on": list(weighed_on),
        "routes": dict(routes) if routes is not None else None,
        "default": default,
    }
    write_file(folder / FILE, json.dumps(content, indent=1))
    return load_model(folder)


def _can_weigh(weights: Sequence[float]) -> bool:
    """Whether a mean with these weights has a meaning; without any it is the plain one."""
    return not weights or (all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0)


def _stray_place(members: int, routes: Mapping[str, int] | None, default: int | None) -> int | None:
    """A place that routes lead to and that no member has, or None."""
    places = (*(routes or {}).values(), default)
    return next((place for place in places if place is not None and not 0 <= place < members), None)


def predict_model(
    model: Model,
    store: Store,
    recordings: Sequence[Recording],
    cuts: Mapping[str, Sequence[int]] | None = None,
    **options: Any,
) -> dict[str, Predictions]:
    """Joined scores of every frame, before the model's own post-processing; ``options`` are those of `predict`."""
    from aupipe.train.predict import predict

    if model.run is not None:
        return predict(model.run, store, recordings, **options)

    def ask(member: Model, own: Sequence[Recording]) -> dict[str, Predictions]:
        return predict_model(member, store, own, cuts, **options)

    if model.rule == "routed":
        return _routed(model, ask, recordings)
    # One that counts for nothing need not be asked, nor its features be there.
    found = [ask(member, recordings) for member, share in zip(model.members, model.shares, strict=True) if share]
    if model.rule != "vote":
        return mean(found, [share for share in model.shares if share])
    limits: list[Threshold] = []
    for place, member in enumerate(model.members):
        post = member.post
        limits.append(post.threshold if post and post.threshold else 0.5)
        if post:
            found[place] = apply_postprocess(post, found[place], cuts)
    return vote(found, limits, model.ties)


def _routed(
    model: Model, ask: Callable[[Model, list[Recording]], dict[str, Predictions]], recordings: Sequence[Recording]
) -> dict[str, Predictions]:
    """Each recording by its own member alone."""
    places = _places(model, recordings)
    members = {
        str(place): ask(member, own)
        for place, member in enumerate(model.members)
        if (own := [r for r in recordings if places[r.id] == place])
    }
    # Left out by allow_missing: neither predicted nor routed.
    named = {name for found in members.values() for name in found}
    return routed(members, {name: str(place) for name, place in places.items() if name in named})


def _places(model: Model, recordings: Sequence[Recording]) -> dict[str, int]:
    """Recording id -> place of its member. Raises UsageError for a recording without a route."""
    routes = model.routes or {}
    places = {r.id: routes.get(r.id, routes.get(r.group, model.default)) for r in recordings}
    if lost := [name for name, place in places.items() if place is None]:
        raise UsageError(
            f"{len(lost)} recordings have no route, e.g. {lost[0]!r}: name them or their video, or --default"
        )
    return {name: place for name, place in places.items() if place is not None}


def predict_held_out(
    model: Model, store: Store, recordings: Sequence[Recording], **options: Any
) -> dict[str, Predictions]:
    """Each recording by the members that validated on it and were not trained on it, averaged; others are left out.

    The epoch of those members was chosen on it, so a score flatters a little; thresholds tuned on it are for others.
    Raises UsageError where no member held any of them out.
    """
    found = held_out_of([model], store, recordings, **options)
    if not found:
        raise UsageError(f"{model.path}: no member held any of these {len(recordings)} recordings out")
    return found


def held_out_of(
    members: Sequence[Model | Run],
    store: Store,
    recordings: Sequence[Recording],
    weights: Sequence[float] = (),
    **options: Any,
) -> dict[str, Predictions]:
    """What `predict_held_out` does, for members that are no ensemble yet; ``weights``: one each, none: all alike."""
    found: dict[str, list[tuple[Predictions, float]]] = {}
    for member, weight in zip(members, weights or (1.0,) * len(members), strict=True):
        if weight:
            for name, item in _held_out(member, store, recordings, **options).items():
                found.setdefault(name, []).append((item, weight))
    return {
        r.id: mean([{r.id: item} for item, _ in found[r.id]], [weight for _, weight in found[r.id]])[r.id]
        for r in recordings
        if r.id in found
    }


def _held_out(
    member: Model | Run, store: Store, recordings: Sequence[Recording], **options: Any
) -> dict[str, Predictions]:
    """Those of the recordings that a member validated on and was not trained on."""
    from aupipe.train.predict import predict

    run = member if isinstance(member, Run) else member.run
    if run is not None:
        unseen = set(run.validation) - set(run.train)
        return predict(run, store, [r for r in recordings if r.id in unseen], **options)
    assert isinstance(member, Model)
    if member.rule == "routed":
        places = _places(member, recordings)
        found: dict[str, Predictions] = {}
        for place, own in enumerate(member.members):
            found |= held_out_of([own], store, [r for r in recordings if places[r.id] == place], **options)
        return found
    return held_out_of(member.members, store, recordings, member.weights, **options)
