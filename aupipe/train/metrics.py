"""The official scores: over all valid frames of all recordings together, each frame once. numpy only.

F1 of a class that is neither present nor predicted is 0, as in the official score (other code returns 1).
`aupipe.train.evaluate.Scores.absent` names such classes, so that a report can say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion(targets: NDArray[Any], predicted: NDArray[Any], scored: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """(K, 2, 2) counts ``[k, target, predicted]`` of two binary arrays (N, K), where ``scored`` (N, K) is set."""
    columns = np.broadcast_to(np.arange(targets.shape[1]), targets.shape)
    cell = columns * 4 + targets.astype(np.int64) * 2 + predicted.astype(np.int64)
    cell = cell.ravel() if scored is None else cell[scored]
    return np.bincount(cell, minlength=4 * targets.shape[1]).reshape(-1, 2, 2)


def class_confusion(targets: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(classes, classes) counts ``[target, predicted]`` of two arrays of class numbers (N,)."""
    cell = targets.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def f1_from_counts(
    true_positive: NDArray[Any], false_positive: NDArray[Any], false_negative: NDArray[Any]
) -> NDArray[np.float64]:
    """2 tp / (2 tp + fp + fn), 0 where that is 0 / 0."""
    denominator = 2 * true_positive + false_positive + false_negative
    return np.asarray(2 * true_positive / np.maximum(denominator, 1), dtype=np.float64)


def binary_f1(targets: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """(K,) F1 of class 1 per column of two binary arrays (N, K). The AU score is its mean."""
    counts = confusion(targets, predicted)
    return f1_from_counts(counts[:, 1, 1], counts[:, 0, 1], counts[:, 1, 0])


def class_f1(targets: NDArray[Any], predicted: NDArray[Any], classes: int = 8) -> NDArray[np.float64]:
    """(classes,) one-against-all F1 of two class-number arrays (N,). The EXPR score is its mean."""
    return class_f1_from_counts(class_confusion(targets, predicted, classes))


def class_f1_from_counts(counts: NDArray[Any]) -> NDArray[np.float64]:
    """(..., classes, classes) counts ``[target, predicted]`` -> (..., classes) F1."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    return f1_from_counts(hit, counts.sum(-2) - hit, counts.sum(-1) - hit)


def moments(targets: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """(K, 7) sums over frames of two arrays (N, K): 1, x, y, x x, y y, x y, |x - y|; they add up over recordings."""
    x, y = np.asarray(targets, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y, abs(x - y)], axis=-1).sum(axis=0)


def agreement(sums: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """(..., K) CCC, ICC, PCC or MAE from `moments` (..., K, 7), with population moments (division by N).

    With c, v and m for covariance, variances and means: CCC = 2 c / (v_x + v_y + (m_x - m_y)^2); ICC(3,1) of two raters
    = 2 c / (v_x + v_y) (Shrout and Fleiss 1979, case 3); PCC = c / sqrt(v_x v_y). 0 where the denominator is 0.
    """
    _, x, y, xx, yy, xy, distance = np.moveaxis(sums / np.maximum(sums[..., :1], 1), -1, 0)
    if metric == "MAE":
        return np.asarray(distance)
    covariance, x_variance, y_variance = xy - x * y, np.maximum(xx - x * x, 0), np.maximum(yy - y * y, 0)
    denominator = {
        "CCC": x_variance + y_variance + (x - y) ** 2,
        "ICC": x_variance + y_variance,
        "PCC": 2 * np.sqrt(x_variance * y_variance),
    }[metric]
    return np.asarray(
        np.where(denominator > 1e-12, 2 * covariance / np.where(denominator > 1e-12, denominator, 1), 0.0)
    )


def ccc(targets: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """(K,) concordance correlation per column of two arrays (N, K); 0 for no rows. The VA score is its mean."""
    return agreement(moments(targets, predicted), "CCC")
