"""Every recipe on the rendered faces: ``python benchmarks/rendered.py PROJECT [--task au] [--recipes baseline,best]``.

PROJECT holds an `aupipe.toml` over the rendered corpus and the store `aupipe extract` made from it. Each line trains
five folds of the training heads, fits thresholds and smoothing on what each fold held out, and scores the mean of the
five once on the validation heads: nothing of them is seen before, not even to choose an epoch. Intervals by video.
Heads are narrowed to what a core trains in a minute. Rendered faces rank implementations; they say nothing about real
ones.

``--nested 5`` scores all people of both splits: five outer folds by video, in each of which everything (epochs, weights
of members, thresholds, smoothing) is chosen by the folds of the others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aupipe.allocator import keep_freed_memory
from aupipe.cli.data import Data, gather
from aupipe.config import load_config
from aupipe.store import Store, open_store
from aupipe.train.crossval import group_folds
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.evaluate import evaluate, evaluate_post, trivial_baseline
from aupipe.train.intervals import bootstrap
from aupipe.train.model import Model
from aupipe.train.model_prediction import predict_held_out, predict_model
from aupipe.train.postprocess import DEFAULTS, PostProcess, apply_postprocess, fit_postprocess
from aupipe.train.predictions import Predictions
from aupipe.train.recipe import load_recipe
from aupipe.train.thresholds import best_f1, best_thresholds, pool_frames
from aupipe.types import Labels, Recording

SMALL = "epochs=10 patience=4 features=[] center=1.0"
DEEP = f"{SMALL} window=100 hop=50 predict_hop=50 batch=8"
# Recipe, and what changes of it: its features are not had here, and its widths are for a GPU.
LINES: dict[str, tuple[str, str]] = {
    "baseline": ("baseline", "features=[] center=1.0 epochs=12"),
    "tcn": ("tcn", f"{SMALL} head.width=48 head.channels=[48,48,48]"),
    "field": ("field", "features=[] center=1.0 batch=8 head.channels=[32,32,32] head.input_dropout=0.1"),
    "best": ("best", "features=[]"),
    "linear": ("baseline", "features=[] center=1.0 epochs=12 symmetric=true"),  # the linear members of `best` alone
    "aud-tgn": (
        "aud-tgn",
        f"{DEEP} head.weights=random head.channels=[[48,48,48]] head.width=48 head.layers=2 head.heads=4 "
        "head.embedding=96 "
        "optimiser.lr=2e-3 optimiser.warmup_steps=20 loss.au.weight=none",
    ),
    "regnet-vivit": (
        "regnet-vivit",
        f"{DEEP} head.tokens=1 head.width=64 head.spatial_layers=1 head.temporal_layers=2 head.feedforward=128 "
        "optimiser={kind='adamw',lr=1e-3}",
    ),
    "usc-multimodal": (
        "usc-multimodal",
        f"{DEEP} head={{kind='gru',width=32,layers=1,hidden=64}} margin=false optimiser.lr=2e-3",
    ),
    "tcn-transformer": (
        "tcn-transformer",
        f"{DEEP} head.channels=[[48,48,48]] head.width=64 head.layers=2 head.feedforward=128 head.hidden=64 "
        "optimiser.lr=1e-3",
    ),
    "tmf-ensemble": (
        "tmf-ensemble",
        f"{DEEP} head.width=64 head.encoder_width=48 head.layers=2 head.feedforward=96 head.hidden=48 "
        "optimiser.lr=2e-3 loss.au.weight=none",
    ),
}


@dataclass(frozen=True)
class Trained:
    """A model of folds; ``held``: what each fold held out, on which ``post`` was fitted, with the score ``inside``."""

    model: Model
    post: PostProcess
    inside: float


def train_line(
    data: Data, store: Store, recordings: Sequence[Recording], line: str, extra: Sequence[str], out: Path, options: Any
) -> Trained:
    """Folds of these recordings by video, and the post-processing that fits what they held out."""
    name, changes = LINES[line]
    ensemble = load_ensemble_recipe(name, [*changes.split(), *extra], line == "linear").on(tuple(data.features))
    frames = {key: len(value) for key, value in data.labels.items()}
    folds = [(fold, options.seed) for fold in group_folds(recordings, options.folds, 0, frames)]
    model = train_ensemble(store, ensemble, folds, labels=data.labels, features=data.features, task=data.task, out=out)
    held = predict_held_out(model, store, recordings)
    chosen = ensemble.members[0].recipe.postprocess_for(data.task) or DEFAULTS[data.task.kind]
    if data.task.kind == "multi_label":
        chosen = replace(chosen, threshold="tune", smooth="gaussian", width="tune")
    post = fit_postprocess(held, data.labels, data.task, chosen)
    inside = evaluate_post(held, {name: data.labels[name] for name in held}, post, on_tuned=True).mean
    return Trained(model, post, inside)


def score_line(data: Data, store: Store, line: str, extra: Sequence[str], out: Path, options: Any) -> str:
    """The row of one line: trained on folds of the training split, scored once on the validation split."""
    trained = train_line(data, store, data.train, line, extra, out, options)
    labels = {item.id: data.labels[item.id] for item in data.validation}
    found = predict_model(trained.model, store, data.validation)
    raw = evaluate(found, labels, data.task).mean
    row = describe(apply_postprocess(trained.post, found), labels, data)
    post = trained.post.options
    return f"{row}  raw {raw:.3f}  folds {trained.inside:.3f}  width {post.width if post.smooth != 'none' else 0}"


def score_nested(data: Data, store: Store, line: str, extra: Sequence[str], out: Path, options: Any) -> str:
    """The row of one line over all people: each is scored once, by folds of the people who are not in its own fold."""
    everyone = [*data.train, *data.validation]
    frames = {key: len(value) for key, value in data.labels.items()}
    found: dict[str, Predictions] = {}
    inside = []
    for fold in group_folds(everyone, options.nested, 0, frames):
        trained = train_line(data, store, fold.train, line, extra, out / fold.name, options)
        found |= apply_postprocess(trained.post, predict_model(trained.model, store, fold.validation))
        inside.append(trained.inside)
    row = describe(found, {item.id: data.labels[item.id] for item in everyone}, data)
    return f"{row}  folds {np.mean(inside):.3f}{describe_thresholds(found, data)}"


def describe(found: Mapping[str, Predictions], labels: Mapping[str, Labels], data: Data) -> str:
    """Score, its interval by video, and the score of each name."""
    scores = evaluate(found, labels, data.task)
    groups = {item.id: item.group for item in (*data.train, *data.validation)}
    low, high = bootstrap(found, labels, data.task, groups).bounds
    each = " ".join(f"{value:.2f}" for value in scores.values)
    row = f"{scores.mean:.3f} [{low:.3f}, {high:.3f}]  {each}"
    return f"{row}  coverage {scores.coverage:.1%}, face in {scores.face_found:.1%}"


def describe_thresholds(found: Mapping[str, Predictions], data: Data) -> str:
    """What the best thresholds would give, which nobody knows: one for all people, and one for each person."""
    if data.task.kind != "multi_label":
        return ""
    own = {}
    for name, item in found.items():
        scores, targets, valid = pool_frames({name: item}, data.labels)
        best, f1 = best_thresholds(scores, targets > 0.5, valid)
        own[name] = replace(item, threshold=tuple(float(t) for t in np.where(f1 > 0, best, np.inf)))
    personal = evaluate(own, {name: data.labels[name] for name in own}, data.task).mean
    return f"  best thresholds {best_f1(found, data.labels):.3f}, of each person {personal:.3f}"


def main() -> None:
    """Print the table of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--task", choices=["au", "expr", "va"], default="au")
    parser.add_argument("--features", default="hog")
    parser.add_argument("--recipes", default=",".join(LINES))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--nested", type=int, default=0, help="outer folds over all people")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `aupipe train` does
    config = load_config(options.project / "aupipe.toml")
    store = open_store(config.store.path)
    data = gather(config, store, load_recipe("tcn"), options.task, options.features.split(","))
    trivial = trivial_baseline({item.id: data.labels[item.id] for item in data.validation}, options.task)
    print(f"{options.task}, {options.features}: no model {trivial.mean:.3f}", flush=True)
    for line in options.recipes.split(","):
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            score = score_nested if options.nested else score_line
            row = score(data, store, line, options.set, Path(folder) / line, options)
        print(f"{line:16s} {row}  cpu {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
