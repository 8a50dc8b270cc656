"""A model with what was scored of it: predictions, labels, scores and their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aupipe.train.intervals import BootstrapInterval
from aupipe.train.model import Model
from aupipe.train.postprocess import PostProcess
from aupipe.train.predictions import Predictions
from aupipe.train.scores import Scores
from aupipe.types import Labels


@dataclass(frozen=True)
class Evaluation:
    """``predictions`` after ``post``; ``labels`` of the recordings that were to be scored. Both by recording id.

    ``interval``: None of a single video, or where none was asked for.
    """

    model: Model
    predictions: Mapping[str, Predictions]
    labels: Mapping[str, Labels]
    scores: Scores
    interval: BootstrapInterval | None = None
    post: PostProcess | None = None

    def to_json(self) -> dict[str, Any]:
        """As `aupipe evaluate --json` has it, without the name of the run."""
        return {**self.scores.to_json(), "spread": self.interval.to_json() if self.interval else None}
