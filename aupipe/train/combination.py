"""Predictions of several models combined: their mean, a majority vote, or one model per recording. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.train.predictions import Predictions, Threshold, decide

Ties = Literal["mean", "positive", "negative"]


def mean(
    members: Sequence[Mapping[str, Predictions]], weights: Sequence[float] | None = None
) -> dict[str, Predictions]:
    """The weighted mean of the scores, frame by frame; without ``weights`` the plain mean.

    Raises UsageError for members that predict other recordings, frames or tasks than the first.
    """
    _check(members)
    share = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(share) != len(members) or share.sum() <= 0 or (share < 0).any():
        raise UsageError(f"{len(members)} members with weights {list(share)}: give one each, none below 0, not all 0")
    share = share / share.sum()
    return {
        name: replace(
            item,
            scores=np.tensordot(share, np.stack([member[name].scores for member in members]), axes=1).astype(
                np.float32
            ),
        )
        for name, item in members[0].items()
    }


def vote(
    members: Sequence[Mapping[str, Predictions]], thresholds: Sequence[Threshold] | None = None, ties: Ties = "mean"
) -> dict[str, Predictions]:
    """Majority vote: AU scores become 0 or 1, EXPR scores one-hot. ``thresholds``: one per member.

    ``ties`` of AUs: 'mean' compares the mean score with the mean threshold, 'positive' and 'negative' decide so
    (th2l/Affwild2-ABAW3-ActionUnit counts two votes of four as positive). Among classes with equally many votes the
    mean score decides, then the lower class number.

    Raises UsageError for VA, which is continuous, and as `mean` does.
    """
    _check(members)
    if ties not in ("mean", "positive", "negative"):
        raise UsageError(f"ties = {ties!r}: expected 'mean', 'positive' or 'negative'")
    limits = [0.5] * len(members) if thresholds is None else list(thresholds)
    if len(limits) != len(members):
        raise UsageError(f"{len(members)} members with {len(limits)} thresholds: give one each")
    averaged = mean(members)
    voted = {}
    for name, item in members[0].items():
        if not item.task.whole:
            raise UsageError(f"{name}: {' and '.join(item.names)} cannot be voted on: use the mean")
        choices = [decide(m[name].scores, item.task, limit) for m, limit in zip(members, limits, strict=True)]
        if item.task.kind == "classes":
            scores = _most_voted(choices, averaged[name].scores)
        else:
            margin = 2 * np.sum(choices, axis=0) - len(members)  # (T, K), above 0: most members vote positive
            limit = np.mean(
                [np.broadcast_to(np.asarray(limit, dtype=float), margin.shape[1]) for limit in limits], axis=0
            )
            tied = {"mean": averaged[name].scores >= limit, "positive": True, "negative": False}[ties]
            scores = np.where(margin == 0, tied, margin > 0).astype(np.float32)
        voted[name] = replace(item, scores=scores)
    return voted


def _most_voted(choices: Sequence[NDArray[np.float32]], mean_scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, K) one-hot of the class with most votes; ``choices`` (T, 1) each."""
    classes = mean_scores.shape[1]
    votes = sum((choice == np.arange(classes)).astype(np.float64) for choice in choices)  # (T, 1) -> (T, K)
    best = np.argmax(votes + 1e-3 * mean_scores, axis=1)  # scores are at most 1: they only break ties
    return np.eye(classes, dtype=np.float32)[best]


def routed(members: Mapping[str, Mapping[str, Predictions]], routes: Mapping[str, str]) -> dict[str, Predictions]:
    """Each recording from one member. ``routes``: recording id -> name of the member.

    Zhang et al. 2024 (ABAW6, Netease Fuxi) route recordings by scene, sorted by hand; here the routes are data. Raises
    UsageError for a recording without a route, for an unknown member, and for a member that did not predict the
    recording.
    """
    names = {name for member in members.values() for name in member}
    found = {}
    for name in sorted(names):
        route = routes.get(name)
        if route is None or route not in members:
            raise UsageError(f"{name}: routed to {route!r}. Members: {', '.join(members)}")
        if name not in members[route]:
            raise UsageError(f"{name}: member {route!r} did not predict it")
        found[name] = members[route][name]
    return found


def _check(members: Sequence[Mapping[str, Predictions]]) -> None:
    if not members:
        raise UsageError("an ensemble without members: give at least one")
    first = members[0]
    for number, member in enumerate(members[1:], start=2):
        if member.keys() != first.keys():
            odd = sorted(member.keys() ^ first.keys())
            raise UsageError(f"member {number} predicts other recordings than the first, e.g. {odd[0]!r}")
        for name, item in member.items():
            if item.task != first[name].task or item.scores.shape != first[name].scores.shape:
                raise UsageError(
                    f"{name}: member {number} has {item.task} scores {item.scores.shape}, the first "
                    f"{first[name].task} {first[name].scores.shape}"
                )
