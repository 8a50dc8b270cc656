"""Predictions of a model: of its only run, or of its members combined by its rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aupipe.errors import UsageError
from aupipe.quantities import counted
from aupipe.store import Store
from aupipe.train.combination import mean, vote
from aupipe.train.model import Model
from aupipe.train.postprocess import apply_postprocess
from aupipe.train.predict import predict
from aupipe.train.predictions import Predictions
from aupipe.types import Recording

Found = Mapping[str, Predictions]  # by recording id
ShotStarts = Mapping[str, Sequence[int]]  # recording id -> first frames of shots


def predict_model(
    model: Model, store: Store, recordings: Sequence[Recording], shot_starts: ShotStarts | None = None, **options: Any
) -> dict[str, Predictions]:
    """Combined scores of every frame, before the model's own post-processing; ``options`` are those of `predict`.

    ``shot_starts``: for the post-processing of members. A recording that an ensemble routes has exactly the scores and
    thresholds of the member it is routed to.
    """
    if model.run is not None:
        return predict(model.run, store, recordings, **options)
    return _combine(
        model, lambda member, own: predict_model(member, store, own, shot_starts, **options), recordings, shot_starts
    )


def predict_held_out(
    model: Model, store: Store, recordings: Sequence[Recording], shot_starts: ShotStarts | None = None, **options: Any
) -> dict[str, Predictions]:
    """As `predict_model`, but each recording by the runs that validated on it and were not trained on it.

    The rules of the model and of its members combine what there is of each recording; recordings that no run held out
    are left out. The runs chose their epoch on them, so the score is slightly optimistic; thresholds fitted on them are
    for other recordings. Raises UsageError where no run held any of them out.
    """
    found = predict_unseen(model, store, recordings, shot_starts, **options)
    if not found:
        raise UsageError(f"{model.path}: no member held any of these recordings out")
    return found


def predict_unseen(
    model: Model, store: Store, recordings: Sequence[Recording], shot_starts: ShotStarts | None = None, **options: Any
) -> dict[str, Predictions]:
    """As `predict_held_out`, and {} where no run held any of the recordings out."""
    if model.run is not None:
        unseen = set(model.run.validation) - set(model.run.train)
        own = [r for r in recordings if r.id in unseen]
        return predict(model.run, store, own, **options) if own else {}
    return _combine(
        model,
        lambda member, own: predict_unseen(member, store, own, shot_starts, **options),
        recordings,
        shot_starts,
        True,
    )


def _combine(
    model: Model,
    predict_member: Callable[[Model, list[Recording]], dict[str, Predictions]],
    recordings: Sequence[Recording],
    shot_starts: ShotStarts | None,
    partial: bool = False,
) -> dict[str, Predictions]:
    """What the members predict, combined by the rule of the model.

    ``partial``: a recording that some members do not predict is combined from the others; else that is an error.
    """

    def processed(member: Model, own: Sequence[Recording]) -> dict[str, Predictions]:
        found = predict_member(member, list(own))
        post = member.post if model.member_post else None
        return apply_postprocess(post, found, shot_starts) if post is not None else found

    if model.rule == "routed":
        found = {
            name: item
            for member, own in routed_parts(model, recordings)
            for name, item in processed(member, own).items()
        }
        return {r.id: found[r.id] for r in recordings if r.id in found}
    # A member of weight 0 is not run, so the store need not hold its features.
    counted = [(member, share) for member, share in zip(model.members, model.shares, strict=True) if share]
    each = [processed(member, recordings) for member, _ in counted]
    shares = [share for _, share in counted]
    if not partial:
        return _by_rule(model, each, shares)
    alike: dict[tuple[int, ...], list[str]] = {}  # numbers of the members that predict a recording -> those recordings
    for r in recordings:
        if has := tuple(number for number, own in enumerate(each) if r.id in own):
            alike.setdefault(has, []).append(r.id)
    combined: dict[str, Predictions] = {}
    for has, names in alike.items():
        parts = [{name: each[number][name] for name in names} for number in has]
        combined |= _by_rule(model, parts, [shares[number] for number in has])
    return {r.id: combined[r.id] for r in recordings if r.id in combined}


def _by_rule(model: Model, members: Sequence[Found], shares: Sequence[float]) -> dict[str, Predictions]:
    return vote(members, model.ties) if model.rule == "vote" else mean(members, shares)


def routed_parts(model: Model, recordings: Sequence[Recording]) -> list[tuple[Model, list[Recording]]]:
    """The members of a routed model that predict some of the recordings, with those; any other model with all.

    Raises UsageError for recordings without a route.
    """
    if model.rule != "routed":
        return [(model, list(recordings))]
    routes = model.routes or {}
    names = {r.id: (r.value(model.by),) if model.by else (r.id, r.group) for r in recordings}
    found = {r.id: next((routes[name] for name in names[r.id] if name in routes), model.default) for r in recordings}
    if missing := [name for name, number in found.items() if number is None]:
        shown = ", ".join(map(repr, missing[:3])) + ", ..." * (len(missing) > 3)
        remedy = f"give each a {model.by} that has a route" if model.by else "name them or their video"
        raise UsageError(
            f"{model.path}: {counted(len(missing), 'recording')} without a route ({shown}): {remedy}, or --default"
        )
    parts = ((member, [r for r in recordings if found[r.id] == number]) for number, member in enumerate(model.members))
    return [(member, own) for member, own in parts if own]
