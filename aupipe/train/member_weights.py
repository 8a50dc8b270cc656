"""How much each member of an ensemble counts, chosen on recordings that no member was trained on. numpy only.

Greedy selection with replacement: Caruana et al., "Ensemble selection from libraries of models", ICML 2004, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aupipe.tasks import Task, as_task
from aupipe.train.combination import mean
from aupipe.train.evaluate import pooled
from aupipe.train.predictions import Predictions
from aupipe.train.thresholds import best_f1
from aupipe.types import Labels

ROUNDS = 20  # the most selections: weights are multiples of a twentieth or coarser
LEAST_GAIN = 1e-4  # of the score, for one more selection


def choose_weights(
    members: Sequence[Mapping[str, Predictions]], labels: Mapping[str, Labels], task: Task | str
) -> tuple[float, ...]:
    """How often each member is selected: the best one first, then whichever raises the score of the mean most.

    Selection ends when no member raises it any more. The score is the official one on ``labels``, for AU with the best
    threshold of each AU. ``members`` must predict the same recordings.
    """

    def score(counts: Sequence[float]) -> float:
        used = [(item, count) for item, count in zip(members, counts, strict=True) if count]
        combined = mean([item for item, _ in used], [count for _, count in used])
        return best_f1(combined, labels) if as_task(task).kind == "multi_label" else pooled(combined, labels, task).mean

    counts, best = np.zeros(len(members)), -np.inf
    for _ in range(ROUNDS):
        scores = [score(list(counts + np.eye(len(members))[i])) for i in range(len(members))]
        if max(scores) < best + LEAST_GAIN:
            break
        best = max(scores)
        counts[int(np.argmax(scores))] += 1
    return tuple(float(count) for count in counts)
