"""What predict, evaluate and tune share: data set, store, device, shots, post-processing and reference scores."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.data import keep_current
from aupipe.cli.options import existing_store, pick_devices, require_config, resolve
from aupipe.cli.output import echo
from aupipe.cli.recipe_features import with_encoders
from aupipe.config import Config
from aupipe.dataset import Dataset, open_dataset
from aupipe.errors import UsageError
from aupipe.quantities import counted, first_of
from aupipe.tasks import Task
from aupipe.types import FeatureSpec, Labels, Recording

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.intervals import BootstrapInterval
    from aupipe.train.model import Model
    from aupipe.train.postprocess import PostProcess
    from aupipe.train.predictions import Predictions
    from aupipe.train.scores import Scores

RANDOM = "none: random numbers"  # the licence of weights that are no file's
SPLITS = click.Choice(["train", "validation", "test"])
POST = click.option(
    "--post",
    default="own",
    metavar="own|none|FILE",
    show_default=True,
    help="Post-processing: own, as fitted for RUN; none; or a file of `aupipe tune --out`.",
)
WHERE = click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only recordings with this value in a column of the data set, or one of several separated by commas.",
)
SHOT_STARTS = click.option(
    "--cuts",
    "cuts_file",
    type=click.Path(path_type=Path, exists=True),
    help="CSV with the columns recording,frame: the first frame of each shot, counted from 1.",
)


@dataclass(frozen=True)
class Context:
    """The configuration of a command, its data set, store and device."""

    config: Config
    dataset: Dataset
    store: Store
    device: str
    allow_missing: bool
    shot_starts: Mapping[str, Sequence[int]]  # recording id -> rows at which a shot begins

    def predict(self, model: Model, recordings: list[Recording], held_out: bool = False) -> dict[str, Predictions]:
        """Scores before post-processing, of the recordings whose stored features are current."""
        from aupipe.train.model_prediction import predict_held_out, predict_model

        if model.by and (blank := [r.id for r in recordings if not r.value(model.by)]):
            echo(f"aupipe: {counted(len(blank), 'recording')} without a {model.by}: {first_of(blank)}", err=True)
        for run in model.runs:
            if not run.finished:
                best = f"of {len(run.history)} of at most {run.recipe.epochs} epochs the best one is used"
                echo(f"aupipe: {run.path} is not finished: {best} (aupipe train --resume)", err=True)
        if model.members and not (model.member_post or model.post) and any(member.post for member in model.members):
            echo(f"aupipe: {model.path} does not use the post-processing of its members", err=True)
        warn_random([spec for run in model.runs for spec in run.specs.values()])
        for run in model.runs:
            config = with_encoders(self.config, run.recipe.encoders, warn=False)
            recordings = keep_current(config, self.store, recordings, run.features, self.allow_missing)
        options: dict[str, Any] = {"device": self.device, "allow_missing": self.allow_missing}
        predict = predict_held_out if held_out else predict_model
        return predict(model, self.store, recordings, self.shot_starts, **options)


def random_features(specs: Iterable[FeatureSpec]) -> str:
    """The names of the features that come from encoders with random weights, separated by commas."""
    return ", ".join(dict.fromkeys(spec.name for spec in specs if spec.weights and spec.weights.licence == RANDOM))


def warn_random(specs: Iterable[FeatureSpec]) -> None:
    """Print which features come from encoders with random weights."""
    if names := random_features(specs):
        echo(f"aupipe: {names}: from encoders with RANDOM weights, so no score means anything", err=True)


def open_context(
    config_file: Path | None, store: Path | None, gpu: str | None, cpu: bool, missing: bool, cuts: Path | None
) -> Context:
    """The context that the options of a command describe."""
    from aupipe.store.clocks import clock_of

    config = require_config(resolve(config_file, store))
    opened = existing_store(config)
    dataset = open_dataset(config.dataset, clock_of(opened))
    shots = read_shot_starts(cuts, dataset) if cuts else {}
    return Context(config, dataset, opened, pick_devices(gpu, cpu)[0], missing, shots)


def choose_postprocess(model: Model, choice: str) -> PostProcess | None:
    """The post-processing that ``--post`` names. Raises UsageError for one of another task."""
    from aupipe.train.postprocess import read_postprocess

    if choice == "none":
        return None
    post = model.post if choice == "own" else read_postprocess(Path(choice))
    if post is not None and post.task != model.task:
        raise UsageError(f"{choice} is a post-processing for {post.task}, and {model.path} is for {model.task}")
    return post


def read_pairs(path: Path | None, header: str) -> list[tuple[str, str]]:
    """The rows of a two-column CSV file, with or without the header."""
    rows = [row for row in csv.reader((path or Path()).read_text(encoding="utf-8-sig").splitlines()) if row]
    if rows and ",".join(rows[0]).replace(" ", "") == header:
        rows = rows[1:]
    if wrong := next((row for row in rows if len(row) != 2), None):
        raise UsageError(f"{path}: {','.join(wrong)!r}: expected two columns, {header}")
    return [(name.strip(), value.strip()) for name, value in rows]


def read_shot_starts(path: Path, dataset: Dataset) -> dict[str, list[int]]:
    """Recording id -> rows at which a shot begins."""
    found: dict[str, list[int]] = {}
    known = {item.id for item in dataset.recordings} | {item.video_id for item in dataset.recordings}
    for name, frame in read_pairs(path, "recording,frame"):
        if name not in known or not frame.isdigit() or frame == "0":
            raise UsageError(f"{path}: {name},{frame}: expected a recording of this data set and a frame from 1")
        found.setdefault(name, []).append(int(frame) - 1)
    return {item.id: found.get(item.id) or found.get(item.video_id) or [] for item in dataset.recordings}


def trivial_scores(labels: Mapping[str, Labels], task: Task) -> dict[str, Scores]:
    """Scores of the trivial baseline by name, as a column to compare with."""
    from aupipe.train.evaluate import trivial_baseline

    return {"always 1" if task.kind == "multi_label" else "constant": trivial_baseline(labels, task)}


def bootstrap_scores(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task,
    recordings: Sequence[Recording],
    draws: int = 1000,
) -> BootstrapInterval | None:
    """Bootstrap intervals over videos; None for a single video or for zero ``draws``."""
    from aupipe.train.intervals import bootstrap

    groups = {item.id: item.group for item in recordings}
    if not draws or len({groups.get(name, name) for name in labels if name in predictions}) < 2:
        return None
    return bootstrap(predictions, labels, task, groups, draws)
