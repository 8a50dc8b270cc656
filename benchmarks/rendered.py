"""Every recipe on the rendered faces: ``python benchmarks/rendered.py PROJECT [--task au] [--recipes baseline,best]``.

PROJECT holds an `aupipe.toml` over the rendered corpus and the store `aupipe extract` made from it. Each line trains
five folds of the training heads, fits thresholds and smoothing on what each fold held out, and scores the mean of the
five once on the validation heads: nothing of them is seen before, not even to choose an epoch. Intervals by video.
Heads are narrowed to what a core trains in a minute. Rendered faces rank implementations; they say nothing about real
ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aupipe.allocator import keep_freed_memory
from aupipe.cli.data import gather
from aupipe.config import load_config
from aupipe.store import open_store
from aupipe.tasks import as_task
from aupipe.train.crossval import group_folds
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.evaluate import evaluate, evaluate_post, trivial_baseline
from aupipe.train.intervals import bootstrap
from aupipe.train.model_prediction import predict_held_out, predict_model
from aupipe.train.postprocess import DEFAULTS, apply_postprocess, fit_postprocess
from aupipe.train.recipe import load_recipe

SMALL = "epochs=10 patience=4 features=[] center=1.0"
DEEP = f"{SMALL} window=100 hop=50 predict_hop=50 batch=8"
# Recipe, and what changes of it: its features are not had here, and its widths are for a GPU.
LINES: dict[str, tuple[str, str]] = {
    "baseline": ("baseline", "features=[] center=1.0 epochs=12"),
    "tcn": ("tcn", f"{SMALL} head.width=48 head.channels=[48,48,48]"),
    "field": ("field", "features=[] center=1.0 batch=8 head.channels=[32,32,32] head.input_dropout=0.1"),
    "best": ("best", "features=[]"),
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


def run_line(
    data: Any, store: Any, task: Any, line: str, extra: Sequence[str], out: Path, folds: int, seed: int
) -> tuple[str, float]:
    """The row of one line, and its processor seconds."""
    name, changes = LINES[line]
    ensemble = load_ensemble_recipe(name, [*changes.split(), *extra]).on(tuple(data.features))
    began = time.process_time()
    frames = {key: len(value) for key, value in data.labels.items()}
    model = train_ensemble(
        store,
        ensemble,
        [(fold, seed) for fold in group_folds(data.train, folds, 0, frames)],
        labels=data.labels,
        features=data.features,
        task=task,
        out=out,
    )
    spent = time.process_time() - began
    held = predict_held_out(model, store, data.train)
    official = as_task(task)
    chosen = ensemble.members[0].recipe.postprocess_for(official) or DEFAULTS[official.kind]
    if task == "au":
        chosen = replace(chosen, threshold="tune", smooth="gaussian", width="tune")
    post = fit_postprocess(held, data.labels, task, chosen)
    labels = {item.id: data.labels[item.id] for item in data.validation}
    found = predict_model(model, store, data.validation)
    raw = evaluate(found, labels, task).mean
    scores = evaluate_post(found, labels, post)
    groups = {item.id: item.group for item in data.validation}
    low, high = bootstrap(apply_postprocess(post, found), labels, task, groups).bounds
    inside = evaluate_post(held, {name: data.labels[name] for name in held}, post, on_tuned=True).mean
    each = " ".join(f"{value:.2f}" for value in scores.values)
    width = post.options.width if post.options.smooth != "none" else 0
    row = f"{scores.mean:.3f} [{low:.3f}, {high:.3f}]  raw {raw:.3f}  folds {inside:.3f}  width {width}  {each}"
    return f"{row}  coverage {scores.coverage:.1%}, face in {scores.face_found:.1%}", spent


def main() -> None:
    """Print the table of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--task", choices=["au", "expr", "va"], default="au")
    parser.add_argument("--features", default="hog")
    parser.add_argument("--recipes", default=",".join(LINES))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folds", type=int, default=5)
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
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / line
            row, spent = run_line(data, store, options.task, line, options.set, out, options.folds, options.seed)
        print(f"{line:16s} {row}  cpu {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
