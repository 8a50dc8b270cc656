"""The thresholds that give the best F1 on known labels. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.train.labels import scored_entries
from aupipe.train.predictions import Predictions
from aupipe.types import Labels


def best_thresholds(
    scores: NDArray[Any], positive: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """(K,) the threshold of each column with the best F1 under ``score >= threshold``, and that F1.

    ``scores``, ``positive`` and ``valid`` (None: all are) are (N, K). All thresholds are compared, not a grid: one
    between each two neighbouring scores. A column without a positive gets 0.5, because any threshold gives an F1 of 0.
    """
    if valid is not None and not valid.all():
        each = [best_thresholds(*(a[valid[:, k], k][:, None] for a in (scores, positive))) for k in range(len(valid.T))]
        threshold, f1 = (np.concatenate(part) for part in zip(*each, strict=True))
        return threshold, f1
    if not len(scores):
        return np.full(scores.shape[1], 0.5), np.zeros(scores.shape[1])
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)  # (N, K) descending
    hits = np.take_along_axis(positive, order, axis=0).cumsum(axis=0)
    called = np.arange(1, len(scores) + 1)[:, None]
    f1 = 2 * hits / (called + positive.sum(axis=0))
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # no threshold separates equal scores
    at = f1.argmax(axis=0)
    columns = np.arange(scores.shape[1])
    below = np.where(at + 1 < len(ranked), ranked[np.minimum(at + 1, len(ranked) - 1), columns], 0.0)
    threshold = (ranked[at, columns].astype(np.float64) + below) / 2
    empty = ~positive.any(axis=0)
    return np.where(empty, 0.5, threshold), np.where(empty, 0.0, f1[at, columns])


def best_f1(predictions: Mapping[str, Predictions], labels: Mapping[str, Labels]) -> float:
    """Macro F1 with the best threshold of each AU on these recordings: to compare epochs and members, not to report."""
    known = {name: item for name, item in predictions.items() if name in labels}
    scores, targets, valid = pool_frames(known, labels)
    return float(best_thresholds(scores, targets > 0.5, valid)[1].mean())


def pool_frames(
    predictions: Mapping[str, Predictions], labels: Mapping[str, Labels]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Scores (N, K), targets and what of them is scored, of the frames of the predicted recordings."""
    scores, targets, valid = [], [], []
    for name, item in predictions.items():
        shared = min(len(item), len(labels[name]))
        scored = scored_entries(labels[name])[:shared]
        keep = scored.any(axis=1)
        scores.append(item.scores[:shared][keep])
        targets.append(labels[name].targets[:shared][keep])
        valid.append(scored[keep])
    return np.concatenate(scores), np.concatenate(targets), np.concatenate(valid)
