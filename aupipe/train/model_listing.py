"""The trained models below a folder, each in a few words: what `aupipe runs` lists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from aupipe.documents import read_json
from aupipe.errors import AupipeError
from aupipe.train.folder_lock import REQUEST_FILE
from aupipe.train.model import FILE as ENSEMBLE_FILE
from aupipe.train.model import Model, load_model
from aupipe.train.run import RUN_FILE, holds_run
from aupipe.train.run_file import FILE as HEAD_FILE
from aupipe.train.search_result import RESULT_FILE

FILES = (ENSEMBLE_FILE, HEAD_FILE, RUN_FILE)


@dataclass(frozen=True)
class ModelSummary:
    """A trained model, or a folder that a training has begun.

    ``score``: on what its trainings held out, of the epoch that was chosen on it; of several runs the mean; of a search
    the nested score. None where nothing was held out. ``score_of``: which of these it is. ``runs``: trained networks.
    """

    path: Path
    written_utc: str  # when its file was written last
    task: str = ""
    recipe: str = ""
    metric: str = ""
    score: float | None = None
    score_of: str = ""
    runs: int = 0
    finished: bool = False
    error: str = ""  # why it cannot be read

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


def list_models(folder: Path) -> list[ModelSummary]:
    """The models in a folder and below, oldest first; not the members inside of one. Raises OSError."""
    return sorted((_summary(path) for path in model_folders(folder)), key=lambda one: (one.written_utc, one.path))


def model_folders(folder: Path) -> Iterator[Path]:
    """The folders of models in a folder and below. Links are not followed: no model is listed twice."""
    if holds_run(folder) or any((folder / name).is_file() for name in (ENSEMBLE_FILE, REQUEST_FILE, RESULT_FILE)):
        yield folder
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from model_folders(Path(entry.path))


def _summary(path: Path) -> ModelSummary:
    file = next((path / name for name in (*FILES, REQUEST_FILE) if (path / name).is_file()), path)
    written = f"{datetime.fromtimestamp(file.stat().st_mtime, UTC):%Y-%m-%dT%H:%M:%SZ}"
    try:
        model = load_model(path)
        score, score_of = _score(path, model)
    except AupipeError as error:
        return ModelSummary(path, written, error=str(error))
    except (KeyError, TypeError, ValueError) as error:
        return ModelSummary(path, written, error=f"{path / RESULT_FILE}: not readable ({error!r})")
    metric = model.task.metric
    return ModelSummary(
        path, written, model.task.name, model.name, metric, score, score_of, len(model.runs), model.finished
    )


def _score(path: Path, model: Model) -> tuple[float | None, str]:
    if (path / RESULT_FILE).is_file():
        return float(read_json(path / RESULT_FILE)["nested"]["scores"]["mean"]), "nested"
    scores = [run.scores.mean for run in model.runs if run.scores is not None]
    if not scores or len(scores) < len(model.runs):
        return None, ""
    return fmean(scores), "mean of runs" if len(scores) > 1 else "held out"
