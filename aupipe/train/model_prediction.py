"""Predictions of a model: of its only run, or of its members combined by its rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aupipe.errors import UsageError
from aupipe.store import Store
from aupipe.train.combination import mean, routed, vote
from aupipe.train.model import Model
from aupipe.train.postprocess import apply_postprocess
from aupipe.train.predict import predict
from aupipe.train.predictions import Predictions, Threshold
from aupipe.train.run import Run
from aupipe.types import Recording


def predict_model(
    model: Model,
    store: Store,
    recordings: Sequence[Recording],
    shot_starts: Mapping[str, Sequence[int]] | None = None,
    **options: Any,
) -> dict[str, Predictions]:
    """Combined scores of every frame, before the model's own post-processing; ``options`` are those of `predict`.

    ``shot_starts``: recording id -> first frames of shots, for the post-processing of members that vote.
    """
    if model.run is not None:
        return predict(model.run, store, recordings, **options)

    def predict_member(member: Model, own: Sequence[Recording]) -> dict[str, Predictions]:
        return predict_model(member, store, own, shot_starts, **options)

    if model.rule == "routed":
        return _routed(model, predict_member, recordings)
    # A member of weight 0 is not run, so the store need not hold its features.
    found = [predict_member(m, recordings) for m, share in zip(model.members, model.shares, strict=True) if share]
    if model.rule != "vote":
        return mean(found, [share for share in model.shares if share])
    thresholds: list[Threshold] = []
    for i, member in enumerate(model.members):
        post = member.post
        thresholds.append(post.threshold if post and post.threshold else 0.5)
        if post:
            found[i] = apply_postprocess(post, found[i], shot_starts)
    return vote(found, thresholds, model.ties)


def _routed(
    model: Model,
    predict_member: Callable[[Model, list[Recording]], dict[str, Predictions]],
    recordings: Sequence[Recording],
) -> dict[str, Predictions]:
    """Each recording by the member that its route names, and by no other."""
    routes = _routes(model, recordings)
    members = {
        str(number): predict_member(member, own)
        for number, member in enumerate(model.members)
        if (own := [r for r in recordings if routes[r.id] == number])
    }
    # allow_missing may have left a recording out: it is neither predicted nor routed.
    predicted = {name for found in members.values() for name in found}
    return routed(members, {name: str(number) for name, number in routes.items() if name in predicted})


def _routes(model: Model, recordings: Sequence[Recording]) -> dict[str, int]:
    """Recording id -> index of its member. Raises UsageError for a recording without a route."""
    routes = model.routes or {}
    found = {r.id: routes.get(r.id, routes.get(r.group, model.default)) for r in recordings}
    if missing := [name for name, number in found.items() if number is None]:
        raise UsageError(
            f"{len(missing)} recordings have no route, e.g. {missing[0]!r}: name them or their video, or --default"
        )
    return {name: number for name, number in found.items() if number is not None}


def predict_held_out(
    model: Model, store: Store, recordings: Sequence[Recording], **options: Any
) -> dict[str, Predictions]:
    """Each recording by the runs that validated on it and were not trained on it, averaged; others are left out.

    Those runs chose their epoch on it, so its score is slightly optimistic; thresholds fitted on it are for other
    recordings. Raises UsageError where no run held any of them out.
    """
    found = predict_unseen([model], store, recordings, **options)
    if not found:
        raise UsageError(f"{model.path}: no member held any of these {len(recordings)} recordings out")
    return found


def predict_unseen(
    members: Sequence[Model | Run],
    store: Store,
    recordings: Sequence[Recording],
    weights: Sequence[float] = (),
    **options: Any,
) -> dict[str, Predictions]:
    """As `predict_held_out`, for members that are not an ensemble yet; ``weights``: one each, or () for equal ones."""
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
    run = member if isinstance(member, Run) else member.run
    if run is not None:
        unseen = set(run.validation) - set(run.train)
        return predict(run, store, [r for r in recordings if r.id in unseen], **options)
    assert isinstance(member, Model)
    if member.rule == "routed":
        routes = _routes(member, recordings)
        found: dict[str, Predictions] = {}
        for number, own in enumerate(member.members):
            found |= predict_unseen([own], store, [r for r in recordings if routes[r.id] == number], **options)
        return found
    return predict_unseen(member.members, store, recordings, member.weights, **options)
