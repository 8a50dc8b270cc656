"""What is measured of the scored frames of a model, beside its score. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.train.evaluation import Evaluation
from aupipe.train.events import OVERLAPS, Events
from aupipe.train.predictions import aligned
from aupipe.train.thresholds import pool_frames

POINTS = 200  # of a curve
BINS = 10
EVENT_OVERLAP = OVERLAPS[1]


@dataclass(frozen=True)
class Pooled:
    """The scored frames of all recordings: ``scores`` (N, K), ``targets`` and ``decided`` (N, K), of classes (N, 1),
    ``scored`` what of them counts."""

    scores: NDArray[np.float64]
    targets: NDArray[np.float64]
    decided: NDArray[np.float64]
    scored: NDArray[np.bool_]


def pool(evaluation: Evaluation) -> Pooled:
    """The frames that the score of a model counts."""
    known = {name: item for name, item in evaluation.predictions.items() if name in evaluation.labels}
    scores, targets, scored = pool_frames(known, evaluation.labels)
    each = [aligned(evaluation.labels[name], item) for name, item in known.items()]
    decided = [decisions[counts.any(axis=1)] for _, decisions, counts in each]
    return Pooled(
        scores.astype(np.float64),
        targets.astype(np.float64),
        np.concatenate(decided).astype(np.float64),
        scored,
    )


@dataclass(frozen=True)
class Curve:
    """Precision and recall at falling thresholds; ``best``: the F1 of the threshold that would be best here."""

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    best: float
    used: tuple[float, float] | None  # recall and precision at the threshold in use


def precision_recall(scores: NDArray[Any], positive: NDArray[np.bool_], called: NDArray[np.bool_]) -> Curve:
    """The curve of (N,) scores and truths; ``called`` (N,): what was decided. Of equal scores only the last counts."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], positive[order].cumsum()
    total = max(int(positive.sum()), 1)
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1) if len(ranked) else np.zeros(0, np.int64)
    recall, precision = hits[ends] / total, hits[ends] / (ends + 1)
    f1 = 2 * hits[ends] / (ends + 1 + total)
    keep = np.unique(np.linspace(0, len(ends) - 1, min(POINTS, len(ends))).round().astype(np.int64))
    found = int((called & positive).sum())
    used = (found / total, found / int(called.sum())) if called.any() else None
    return Curve(recall[keep], precision[keep], float(f1.max()) if len(f1) else 0.0, used)


@dataclass(frozen=True)
class Reliability:
    """Of the bins of predicted probability that hold a frame: the mean prediction, the share that is positive, and the
    share of the frames. ``error``: the expected calibration error (Naeini et al., AAAI 2015)."""

    predicted: NDArray[np.float64]
    positive: NDArray[np.float64]
    weight: NDArray[np.float64]
    error: float


def reliability(scores: NDArray[Any], positive: NDArray[np.bool_]) -> Reliability:
    """Of (N,) probabilities and truths, in `BINS` bins of equal width."""
    number = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(number, minlength=BINS)
    held = count > 0
    weight = count[held] / max(len(scores), 1)
    predicted = np.bincount(number, scores, BINS)[held] / count[held]
    share = np.bincount(number, positive, BINS)[held] / count[held]
    return Reliability(predicted, share, weight, float((weight * abs(predicted - share)).sum()))


def co_occurrence(shown: NDArray[np.bool_], scored: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(K, K) the share of the frames that show row k in which column j is shown; NaN where none shows k."""
    own = (shown & scored).astype(np.float64)
    both, each = own.T @ own, own.T @ scored.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(both / each)


def count_events(evaluation: Evaluation) -> list[tuple[int, int, int]]:
    """For each label how many of its events were found, missed, and predicted where there was none (docs/training.md).

    An event is found where a predicted one overlaps it by half (intersection over union).
    """
    events = Events(len(evaluation.model.task.names))
    for name, labels in evaluation.labels.items():
        if name in evaluation.predictions:
            targets, decided, scored = aligned(labels, evaluation.predictions[name])
            events.add(targets > 0.5, decided > 0.5, scored)
    hits = events.hits[EVENT_OVERLAP]
    return [
        (int(hit), int(true - hit), int(found - hit))
        for hit, true, found in zip(hits, events.true, events.found, strict=True)
    ]


def one_hot(numbers: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """(N, 1) numbers of classes as (N, classes)."""
    return np.asarray(numbers == np.arange(classes))


def thresholds_of(evaluation: Evaluation) -> Mapping[str, float | None]:
    """The threshold in use for each label; None where recordings have several."""
    names = evaluation.model.task.names
    used = evaluation.scores.threshold
    if used is None:
        return dict.fromkeys(names)
    each = used if isinstance(used, tuple) else (used,) * len(names)
    return dict(zip(names, map(float, each), strict=True))
