"""Heads against the Bayes optimum: ``python benchmarks/synau.py [--world W1|W2|AUcorr] [--recipes linear,tcn,best]``.

Every line trains on the training split, chooses epoch, smoothing and thresholds on the validation split, and is scored
once on the test split. One core, one torch thread; seconds are processor seconds of training. The figures rank
implementations and say nothing about Aff-Wild2.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from synau_world import AUCORR, W1, W2, View, World, bayes, make_world, units

from aupipe.allocator import keep_freed_memory
from aupipe.tasks import AU_NAMES, OFFICIAL
from aupipe.train.crossval import Fold
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.evaluate import evaluate, evaluate_post
from aupipe.train.intervals import bootstrap
from aupipe.train.model_prediction import predict_model
from aupipe.train.postprocess import Options, PostProcess, apply_postprocess, fit_postprocess
from aupipe.train.predictions import Predictions
from aupipe.train.scores import Scores

WORLDS = {"W1": W1, "W2": W2, "AUcorr": AUCORR}
# What each line trains: a recipe, and what a world of 44 columns and one core asks to be smaller; one key a line.
QUICK = """
features=[]
window=100
hop=100
predict_hop=50
epochs=8
"""
CALM = QUICK + "center=0\nbatch=32\noptimiser={lr=3e-3}\n"
LINES: dict[str, tuple[str, str]] = {
    "linear": ("baseline", "loss.au.pos_weight=none\nepochs=8"),
    "mlp": ("baseline", "head={kind='mlp'}\noptimiser={lr=2e-3}\nepochs=6\nloss.au.pos_weight=none"),
    "transformer": ("tcn", CALM + "head={kind='transformer'}"),
    "tmf": (
        "tmf-ensemble",
        QUICK
        + """head.width=64
        head.encoder_width=48
        head.layers=2
        head.feedforward=96
        head.dropout=0.1
        optimiser={lr=2e-3}
        loss.au.weight=none""",
    ),
    "tcn causal": ("tcn", CALM + "head={kind='tcn', width=32, channels=[32, 32, 32], dropout=0.1, causal=true}"),
    "tcn": ("tcn", CALM + "hop=50\nhead={kind='tcn', width=32, channels=[32, 32, 32], dropout=0.1}"),
    "tcn-transformer": (
        "tcn-transformer",
        QUICK
        + """head.channels=[[32, 32, 32]]
        head.tcn_dropout=0.1
        head.causal=false
        head.width=48
        head.layers=1
        head.feedforward=96
        head.hidden=32
        head.dropout=0.1
        optimiser={lr=3e-3}""",
    ),
    "gpt2": (
        "aud-tgn",
        QUICK
        + """head.weights=random
        head.channels=[[32, 32, 32]]
        head.tcn_dropout=0.1
        head.width=32
        head.layers=2
        head.heads=4
        head.embedding=96
        optimiser={lr=3e-3}
        batch=32
        loss.au.weight=none""",
    ),
    "vivit": (
        "regnet-vivit",
        QUICK
        + """head.tokens=1
        head.width=48
        head.spatial_layers=1
        head.temporal_layers=2
        head.heads=4
        head.feedforward=96
        head.dropout=0.1
        batch=32
        optimiser={lr=2e-3}""",
    ),
    "gru": (
        "usc-multimodal",
        QUICK
        + """head={kind='gru', width=24, layers=1, hidden=64}
        margin=false
        optimiser={lr=4e-3}
        batch=32""",
    ),
    "cross-attention": ("tcn", CALM + "head={kind='cross_attention', width=24}"),
    "field": ("field", ""),
    "best": (
        "best",
        QUICK.replace("epochs=8", "field.epochs=8") + "tcn.batch=32\ntcn.optimiser={lr=3e-3}\nlinear.epochs=8",
    ),
}
SMOOTHED = Options(threshold="tune", smooth="gaussian")
PLAIN = Options(threshold="tune")


Found = dict[str, Predictions]


def known(world: World, split: str, view: View = "smooth", use: tuple[str, ...] = ()) -> Found:
    """The Bayes posterior as predictions."""
    return {name: _predictions(name, chance @ units()) for name, chance in bayes(world, split, view, use).items()}


def _predictions(name: str, scores: np.ndarray) -> Predictions:
    frames = len(scores)
    clock = np.arange(frames) / 25
    return Predictions(name, OFFICIAL["au"], AU_NAMES, scores.astype(np.float32), np.ones(frames, bool), clock)


def train_line(
    world: World, line: str, seed: int = 0, features: tuple[str, ...] = (), extra: tuple[str, ...] = ()
) -> tuple[Found, Found, float]:
    """Predictions of the validation and the test split by one line of the table, and its processor seconds."""
    name, changes = LINES[line]
    began = time.process_time()
    changed = ["monitor=tuned", *filter(None, map(str.strip, changes.splitlines())), *extra]
    fold = Fold("run", tuple(world.splits["train"]), tuple(world.splits["validation"]))
    with tempfile.TemporaryDirectory() as folder:
        model = train_ensemble(
            world.store,
            load_ensemble_recipe(name, changed),
            [(fold, seed)],
            labels=world.of("train") | world.of("validation"),
            features={key: value for key, value in world.features.items() if key in (features or world.features)},
            task="au",
            out=Path(folder),
        )
        spent = time.process_time() - began
        found = [predict_model(model, world.store, world.splits[split]) for split in ("validation", "test")]
    return found[0], found[1], spent


def score(world: World, validation: Found, test: Found, options: Options = PLAIN) -> tuple[Scores, PostProcess]:
    """The score on test behind what validation chose."""
    post = fit_postprocess(validation, world.of("validation"), "au", options)
    return evaluate_post(test, world.of("test"), post), post


def report(name: str, world: World, validation: Found, test: Found, seconds: float) -> None:
    """Print one line."""
    tuned, post = score(world, validation, test)
    smoothed, _ = score(world, validation, test, SMOOTHED)
    low, high = bootstrap(apply_postprocess(post, test), world.of("test"), "au").bounds
    plain = evaluate(test, world.of("test"), "au").mean
    print(
        f"{name:16s} {tuned.mean:.3f} [{low:.3f}, {high:.3f}] {smoothed.mean:12.3f} {plain:8.3f} {seconds:6.0f}",
        flush=True,
    )


def main() -> None:
    """Print the table of one world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=WORLDS, default="W1")
    parser.add_argument("--recipes", default=",".join(LINES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `aupipe train` does
    world = make_world(WORLDS[options.world])
    print(f"{'':16s} F1 at thresholds tuned  and smoothed    @ 0.5  cpu s")
    views: tuple[View, ...] = ("frame", "filter", "smooth")
    for view in views:
        report(f"Bayes {view}", world, known(world, "validation", view), known(world, "test", view), 0)
    for line in options.recipes.split(","):
        report(line, world, *train_line(world, line, options.seed))


if __name__ == "__main__":
    main()
