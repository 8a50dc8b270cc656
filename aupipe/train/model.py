"""What predicts: one run, or several together, in a folder that `predict`, `evaluate` and `tune` take alike.

An ensemble is ``ensemble.json``: its members' folders and the rule that joins them. Votes are cast by each member
behind its own post-processing; means and routes join raw scores. A post-processing of the whole follows either.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, Literal

from aupipe.documents import read_json
from aupipe.errors import DamageError, UsageError
from aupipe.store.base import Store
from aupipe.train.ensemble import Ties, mean, routed, vote
from aupipe.train.postprocess import PostProcess, apply_postprocess
from aupipe.train.predictions import Predictions, Threshold
from aupipe.train.run import Run, load_postprocess, load_run, replace_file
from aupipe.types import Recording, Task

FILE = "ensemble.json"
FORMAT = 1
Rule = Literal["single", "mean", "vote", "routed"]
RULES = ("mean", "vote", "routed")


@dataclass(frozen=True)
class Model:
    """``runs`` and how they are joined. ``routes``: recording id or group -> place of its member in ``runs``.
    ``weighed_on``: the recordings that chose the ``weights``, if any did.
    """

    path: Path
    id: str
    task: Task
    runs: tuple[Run, ...]
    rule: Rule = "single"
    ties: Ties = "mean"
    weights: tuple[float, ...] = ()
    weighed_on: tuple[str, ...] = ()
    routes: Mapping[str, int] | None = None
    default: int | None = None

    @property
    def name(self) -> str:
        """For the head of a table; who counts for nothing is not named."""
        if self.rule == "single":
            return self.runs[0].recipe.name
        counted = [run for run, share in zip(self.runs, self.shares, strict=True) if share]
        recipes = dict.fromkeys(run.recipe.name for run in counted)
        return f"{'weighted ' if self.weights else ''}{self.rule} of {len(counted)} {'+'.join(recipes)}"

    @property
    def shares(self) -> tuple[float, ...]:
        """How much of the whole each run is; together 1."""
        weights = self.weights or (1.0,) * len(self.runs)
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
        posts = [load_postprocess(run) for run in self.runs] if self.rule == "vote" else []
        return frozenset([*(name for post in posts if post for name in post.tuned_on), *self.weighed_on])


def load_model(path: str | Path) -> Model:
    """The model in a folder. Raises UsageError where there is none, DamageError where it is not readable."""
    folder = Path(path)
    file = folder / FILE
    if not file.is_file():
        run = load_run(folder)
        return Model(run.path, run.id, run.task, (run,))
    try:
        content = read_json(file)
        if content.pop("format") > FORMAT:
            raise UsageError(f"{file}: made by a newer aupipe: update aupipe")
        members = [folder / member for member in content.pop("members")]
        for key in ("weights", "weighed_on"):
            content[key] = tuple(content.get(key, ()))
        return Model(path=folder, runs=tuple(load_run(member) for member in members), **content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(f"{file}: not readable as an ensemble ({error!r}); make it anew") from error


def save_ensemble(
    folder: Path,
    members: Sequence[Run],
    rule: Rule = "mean",
    *,
    ties: Ties = "mean",
    weights: Sequence[float] = (),
    weighed_on: Sequence[str] = (),
    routes: Mapping[str, int] | None = None,
    default: int | None = None,
) -> Model:
    """Write an ensemble of finished runs of one task; their folders are named relative to it.

    Raises UsageError for members of several tasks, unfinished ones, weights or routes that do not fit, and a folder
    that holds an ensemble or a run already.
    """
    if rule not in RULES:
        raise UsageError(f"unknown rule {rule!r}: expected {', '.join(RULES)}")
    if not members:
        raise UsageError("an ensemble of nobody: give one run at least")
    tasks = sorted({run.task for run in members})
    if len(tasks) > 1:
        raise UsageError(f"members of several tasks: {', '.join(tasks)}")
    if rule == "vote" and tasks == ["va"]:
        raise UsageError("valence and arousal cannot be voted on: use the mean")
    for run in members:
        if not run.finished:
            raise UsageError(f"{run.path}: not finished: `aupipe train --resume {run.path}`")
    if weights and (rule != "mean" or len(weights) != len(members)):
        raise UsageError(f"{len(weights)} weights for {len(members)} members by {rule}: one each, for the mean")
    if (rule == "routed") != (routes is not None):
        raise UsageError("routes and the rule 'routed' need each other")
    wrong = [
        place for place in (*(routes or {}).values(), default) if place is not None and not 0 <= place < len(members)
    ]
    if wrong:
        raise UsageError(f"a route to member {wrong[0] + 1} of {len(members)}")
    for taken in (FILE, "run.json"):
        if (folder / taken).exists():
            raise UsageError(f"{folder}: holds {taken} already: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "task": tasks[0],
        "members": [relpath(run.path.resolve(), folder.resolve()) for run in members],
        "rule": rule,
        "ties": ties,
        "weights": list(weights),
        "weighed_on": list(weighed_on),
        "routes": dict(routes) if routes is not None else None,
        "default": default,
    }
    replace_file(folder / FILE, json.dumps(content, indent=1).encode())
    return load_model(folder)


def predict_model(
    model: Model,
    store: Store,
    recordings: Sequence[Recording],
    cuts: Mapping[str, Sequence[int]] | None = None,
    **options: Any,
) -> dict[str, Predictions]:
    """Joined scores of every frame, before the model's own post-processing; ``options`` are those of `predict`."""
    from aupipe.train.predict import predict

    if model.rule == "routed":
        return _routed(model, lambda run, own: predict(run, store, own, **options), recordings)
    # One that counts for nothing need not be asked, nor its features be there.
    found = [
        predict(run, store, recordings, **options) for run, share in zip(model.runs, model.shares, strict=True) if share
    ]
    if model.rule != "vote":
        return mean(found, [share for share in model.shares if share])
    limits: list[Threshold] = []
    for place, run in enumerate(model.runs):
        post = load_postprocess(run)
        limits.append(post.threshold if post and post.threshold else 0.5)
        if post:
            found[place] = apply_postprocess(post, found[place], cuts)
    return vote(found, limits, model.ties)


def _routed(
    model: Model, predict: Callable[[Run, list[Recording]], dict[str, Predictions]], recordings: Sequence[Recording]
) -> dict[str, Predictions]:
    """Each recording by its own member alone."""
    routes = model.routes or {}
    places = {r.id: routes.get(r.id, routes.get(r.group, model.default)) for r in recordings}
    if lost := [name for name, place in places.items() if place is None]:
        raise UsageError(
            f"{len(lost)} recordings have no route, e.g. {lost[0]!r}: name them or their video, or --default"
        )
    members = {
        str(place): predict(run, own)
        for place, run in enumerate(model.runs)
        if (own := [r for r in recordings if places[r.id] == place])
    }
    # Left out by allow_missing: neither predicted nor routed.
    named = {name for found in members.values() for name in found}
    return routed(members, {name: str(place) for name, place in places.items() if name in named})


def predict_held_out(
    model: Model, store: Store, recordings: Sequence[Recording], **options: Any
) -> dict[str, Predictions]:
    """Each recording by the members that validated on it and were not trained on it, averaged; others are left out.

    The epoch of those members was chosen on it, so a score flatters a little; thresholds tuned on it are for others.
    Raises UsageError where no member held any of them out.
    """
    found = held_out_of(model.runs, store, recordings, model.weights, **options)
    if not found:
        raise UsageError(f"{model.path}: no member held any of these {len(recordings)} recordings out")
    return found


def held_out_of(
    runs: Sequence[Run],
    store: Store,
    recordings: Sequence[Recording],
    weights: Sequence[float] = (),
    **options: Any,
) -> dict[str, Predictions]:
    """What `predict_held_out` does, for runs that are no ensemble yet; ``weights``: one per run, none: all alike."""
    from aupipe.train.predict import predict

    found: dict[str, list[tuple[Predictions, float]]] = {}
    for run, weight in zip(runs, weights or (1.0,) * len(runs), strict=True):
        unseen = set(run.validation) - set(run.train)
        for name, item in predict(run, store, [r for r in recordings if r.id in unseen and weight], **options).items():
            found.setdefault(name, []).append((item, weight))
    return {
        r.id: mean([{r.id: item} for item, _ in found[r.id]], [weight for _, weight in found[r.id]])[r.id]
        for r in recordings
        if r.id in found
    }
