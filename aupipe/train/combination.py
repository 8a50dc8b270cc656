"""Predictions of several models combined: their mean, or a majority vote. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.train.predictions import Predictions, Threshold

Ties = Literal["mean", "positive", "negative"]


def mean(
    members: Sequence[Mapping[str, Predictions]], weights: Sequence[float] | None = None
) -> dict[str, Predictions]:
    """The weighted mean of the scores, frame by frame, and of the thresholds; without ``weights`` the plain mean.

    Raises UsageError for members that predict other recordings, frames or tasks than the first.
    """
    _check(members)
    share = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(share) != len(members) or share.sum() <= 0 or (share < 0).any():
        raise UsageError(f"{len(members)} members with weights {list(share)}: give one each, none below 0, not all 0")
    share = share / share.sum()
    combined = {}
    for name, item in members[0].items():
        scores: NDArray[Any] = np.tensordot(share, np.stack([member[name].scores for member in members]), axes=1)
        threshold = _mean_threshold([member[name].threshold for member in members], share)
        combined[name] = replace(item, scores=scores.astype(np.float32), threshold=threshold)
    return combined


def _mean_threshold(thresholds: Sequence[Threshold], share: NDArray[np.float64]) -> Threshold:
    """The weighted mean of one threshold per member; exactly theirs where all have the same."""
    if all(threshold == thresholds[0] for threshold in thresholds):
        return thresholds[0]
    each = np.broadcast_arrays(*(np.atleast_1d(np.asarray(threshold, dtype=np.float64)) for threshold in thresholds))
    found = tuple(float(value) for value in share @ np.stack(each))
    return found if len(found) > 1 else found[0]


def vote(members: Sequence[Mapping[str, Predictions]], ties: Ties = "mean") -> dict[str, Predictions]:
    """Majority vote: AU scores become 0 or 1, EXPR scores one-hot. Each member votes by its own thresholds.

    ``ties`` of AUs: 'mean' compares the mean score with the mean threshold, 'positive' and 'negative' decide so
    (th2l/Affwild2-ABAW3-ActionUnit counts two votes of four as positive). Among classes with equally many votes the
    mean score decides, then the lower class number.

    Raises UsageError for VA, which is continuous, and as `mean` does.
    """
    _check(members)
    if ties not in ("mean", "positive", "negative"):
        raise UsageError(f"ties = {ties!r}: expected 'mean', 'positive' or 'negative'")
    averaged = mean(members)
    voted = {}
    for name, item in members[0].items():
        if not item.task.whole:
            raise UsageError(f"{name}: {' and '.join(item.names)} cannot be voted on: use the mean")
        choices = [member[name].decisions for member in members]
        if item.task.kind == "classes":
            scores = _most_voted(choices, averaged[name].scores)
        else:
            margin = 2 * np.sum(choices, axis=0) - len(members)  # (T, K), above 0: most members vote positive
            tied = averaged[name].decisions > 0 if ties == "mean" else np.full(margin.shape, ties == "positive")
            scores = np.where(margin == 0, tied, margin > 0).astype(np.float32)
        voted[name] = replace(item, scores=scores, threshold=0.5)
    return voted


def _most_voted(choices: Sequence[NDArray[np.float32]], mean_scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, K) one-hot of the class with most votes; ``choices`` (T, 1) each."""
    classes = mean_scores.shape[1]
    votes = sum((choice == np.arange(classes)).astype(np.float64) for choice in choices)  # (T, 1) -> (T, K)
    best = np.argmax(votes + 1e-3 * mean_scores, axis=1)  # scores are at most 1: they only break ties
    return np.eye(classes, dtype=np.float32)[best]


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
