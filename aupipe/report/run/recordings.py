"""How well a model predicts each recording, worst first, and whether labels and predictions are shifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.report.checks.lag import GRADUAL_EVIDENCE, LEAST_EVIDENCE, LagEstimate, estimate_lag
from aupipe.report.checks.signals import label_columns
from aupipe.tasks import Task
from aupipe.train.evaluation import Evaluation
from aupipe.train.predictions import Predictions, aligned
from aupipe.train.statistics import from_statistics, statistics
from aupipe.types import Labels

WEAKEST = 3


@dataclass(frozen=True)
class RecordingScore:
    """``score``: the mean over the names that are shown or predicted in the recording, None where there is none.

    ``right``: share of the entries that are decided right; of numbers their mean absolute error. ``lag``: None where it
    cannot be told. ``weakest``: the names with the lowest scores, worst first.
    """

    recording: str
    score: float | None
    right: float
    frames: int
    face_found: float
    lag: LagEstimate | None
    weakest: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        lag = {"lag": self.lag.told, "fit": self.lag.fit, "fit_at_0": self.lag.fit_at_0} if self.lag else None
        plain = {name: getattr(self, name) for name in ("recording", "score", "right", "frames", "face_found")}
        return {**plain, "label_lag": lag, "weakest": list(self.weakest)}


def score_recordings(evaluation: Evaluation) -> list[RecordingScore]:
    """The scored recordings, worst first; those without a score come last."""
    found = [
        _score_one(name, labels, evaluation.predictions[name], evaluation.model.task)
        for name, labels in evaluation.labels.items()
        if name in evaluation.predictions
    ]
    scored = [one for one in found if one.frames]
    return sorted(scored, key=lambda one: (one.score is None, one.score or 0.0, one.recording))


def _score_one(name: str, labels: Labels, item: Predictions, task: Task) -> RecordingScore:
    targets, decided, scored = aligned(labels, item)
    rows = np.asarray(scored.any(axis=1))
    values = from_statistics(statistics(targets, decided, scored, task), task)
    own = _shown(targets, decided, scored, task)
    weakest = sorted(np.flatnonzero(own), key=lambda k: values[k])[:WEAKEST]
    error = abs(targets - decided)[scored]
    right = float((error < 0.5).mean() if task.whole else error.mean()) if scored.any() else 0.0
    return RecordingScore(
        name,
        float(values[own].mean()) if own.any() else None,
        right,
        int(rows.sum()),
        float(item.face_found[: len(rows)][rows].mean()) if rows.any() else 0.0,
        _lag(labels, item, task),
        tuple(task.names[k] for k in weakest),
    )


def _shown(targets: NDArray[Any], decided: NDArray[Any], scored: NDArray[np.bool_], task: Task) -> NDArray[np.bool_]:
    """(K,) the names of which a score of one recording says something."""
    if task.kind == "classes":
        present = [*targets[scored].astype(int), *decided[scored].astype(int)]
        return np.isin(np.arange(len(task.names)), present)
    if task.kind == "multi_label":
        return np.asarray((((targets > 0.5) | (decided > 0.5)) & scored).any(axis=0))
    return np.array(
        [bool(on.any()) and float(np.ptp(column[on])) > 0 for column, on in zip(targets.T, scored.T, strict=True)]
    )


def _lag(labels: Labels, item: Predictions, task: Task) -> LagEstimate | None:
    """By how many frames labels are late against the predictions (docs/check.md, "My labels are late")."""
    targets, valid = label_columns(labels)
    steps = np.diff(item.pts_s)
    fps = 1 / float(np.median(steps)) if len(steps) and np.isfinite(steps).all() and np.median(steps) > 0 else 30.0
    evidence = LEAST_EVIDENCE if task.kind == "multi_label" else GRADUAL_EVIDENCE
    shared = min(len(targets), len(item))
    signals = item.scores[:shared].astype(np.float64)
    return estimate_lag(targets[:shared], valid[:shared], signals, fps, learned=True, least_evidence=evidence)
