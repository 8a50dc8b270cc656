"""Where the commands of trained runs work: data set, store, device, shots, and the post-processing asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aupipe.cli.data import up_to_date
from aupipe.cli.extract import pick_devices
from aupipe.cli.options import existing_store, require_config, resolve
from aupipe.cli.output import echo
from aupipe.config import Config
from aupipe.dataset import Dataset, open_dataset
from aupipe.errors import UsageError
from aupipe.types import Labels, Recording, Task

if TYPE_CHECKING:
    from aupipe.store import Store
    from aupipe.train.evaluate import Scores
    from aupipe.train.intervals import BootstrapInterval
    from aupipe.train.model import Model
    from aupipe.train.postprocess import PostProcess
    from aupipe.train.predictions import Predictions, Threshold

SPLITS = click.Choice(["train", "validation", "test"])
POST = click.option(
    "--post",
    default="own",
    metavar="own|none|FILE",
    show_default=True,
    help="Post-processing: what was fitted for RUN.",
)
CUTS = click.option(
    "--cuts",
    "cuts_file",
    type=click.Path(path_type=Path, exists=True),
    help="CSV recording,frame: first frames of shots, from 1.",
)


@dataclass(frozen=True)
class Scene:
    """Where a command works: the configuration, its data set and store, and the device."""

    config: Config
    dataset: Dataset
    store: Store
    device: str
    allow_missing: bool
    cuts: Mapping[str, Sequence[int]]

    def predict(self, model: Model, recordings: list[Recording], held_out: bool = False) -> dict[str, Predictions]:
        """Raw scores of recordings whose stored features are current."""
        from aupipe.train.model_prediction import predict_held_out, predict_model

        known = {name for one in self.dataset.recordings for name in (one.id, one.group)}
        if strangers := sorted(set(model.routes or ()) - known):
            more = f" and {len(strangers) - 1} more" * (len(strangers) > 1)
            echo(f"aupipe: {model.path} has routes of what is not in this data set: {strangers[0]}{more}", err=True)
        for run in model.runs:
            recordings = up_to_date(self.config, self.store, recordings, run.features, self.allow_missing)
        options: dict[str, Any] = {"device": self.device, "allow_missing": self.allow_missing}
        if held_out:
            return predict_held_out(model, self.store, recordings, **options)
        return predict_model(model, self.store, recordings, self.cuts, **options)


def open_scene(
    config_file: Path | None, store: Path | None, gpu: str | None, cpu: bool, missing: bool, cuts: Path | None
) -> Scene:
    config = require_config(resolve(config_file, store))
    dataset = open_dataset(config.dataset)
    shots = read_cuts(cuts, dataset) if cuts else {}
    return Scene(config, dataset, existing_store(config), pick_devices(gpu, cpu)[0], missing, shots)


def post_of(model: Model, choice: str) -> PostProcess | None:
    from aupipe.train.postprocess import read_postprocess

    if choice == "none":
        return None
    post = model.post if choice == "own" else read_postprocess(Path(choice))
    if post is not None and post.task != model.task:
        raise UsageError(f"{choice}: a post-processing for {post.task}, {model.path} is for {model.task}")
    return post


def read_pairs(path: Path | None, header: str) -> list[tuple[str, str]]:
    """The rows of a two-column CSV; its header may be there or not."""
    rows = [row for row in csv.reader((path or Path()).read_text(encoding="utf-8-sig").splitlines()) if row]
    if rows and ",".join(rows[0]).replace(" ", "") == header:
        rows = rows[1:]
    if wrong := next((row for row in rows if len(row) != 2), None):
        raise UsageError(f"{path}: {','.join(wrong)!r}: expected two columns, {header}")
    return [(name.strip(), value.strip()) for name, value in rows]


def read_cuts(path: Path, dataset: Dataset) -> dict[str, list[int]]:
    """Recording id -> rows at which a shot begins."""
    found: dict[str, list[int]] = {}
    known = {item.id for item in dataset.recordings} | {item.video_id for item in dataset.recordings}
    for name, frame in read_pairs(path, "recording,frame"):
        if name not in known or not frame.isdigit() or frame == "0":
            raise UsageError(f"{path}: {name},{frame}: expected a recording of this data set and a frame from 1")
        found.setdefault(name, []).append(int(frame) - 1)
    return {item.id: found.get(item.id) or found.get(item.video_id) or [] for item in dataset.recordings}


def trivial(labels: Mapping[str, Labels], task: Task) -> dict[str, Scores]:
    """What needs no model, for the column beside."""
    from aupipe.train.evaluate import trivial_baseline

    return {"always 1" if task == "au" else "constant": trivial_baseline(labels, task)}


def bounds(
    predictions: Mapping[str, Predictions],
    labels: Mapping[str, Labels],
    task: Task,
    threshold: Threshold,
    recordings: Sequence[Recording],
    draws: int = 1000,
) -> BootstrapInterval | None:
    """Intervals by video; None where there is a single one to draw, or no draws are asked for."""
    from aupipe.train.intervals import bootstrap

    groups = {item.id: item.group for item in recordings}
    if not draws or len({groups.get(name, name) for name in labels if name in predictions}) < 2:
        return None
    return bootstrap(predictions, labels, task, threshold, groups, draws)
