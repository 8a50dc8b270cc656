"""An encoder trained along against the same one frozen: ``python benchmarks/tail.py PROJECT [--epochs 8]``.

``--make ROOT --every 5`` makes PROJECT first: every fifth frame of the videos and the labels of an Aff-Wild2 tree, and
an `aupipe.toml` with two encoders of 32 px, `crops32` and `regnet32` (random weights), which `aupipe extract` computes.

Two models of the recipe `regnet-vivit` are trained with AdamW, both from the same random
numbers: one reads the stored maps of the frozen RegNet, the other trains its blocks 2 to 4 on stored crops. Each is
scored on the validation recordings, at threshold 0.5 and by the epoch that was best there; differences by recording are
drawn again 1,000 times. Then come the seconds of an epoch, and what it would take if the videos were decoded again
(`benchmarks/crops.py`).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from crops import measure

from aupipe.cli.data import gather
from aupipe.config import load_config
from aupipe.store import open_store
from aupipe.tasks import as_task
from aupipe.train.evaluate import evaluate
from aupipe.train.fit import fit
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.predict import predict
from aupipe.train.recipe import load_recipe

SMALL = "width=64, spatial_layers=1, temporal_layers=2, heads=4, feedforward=128, positions=64, dropout=0.1"
VIVIT = f"kind='vivit', tokens=1, {SMALL}"
TAIL = "network='torchvision/regnet_y_400mf', first='trunk_output.block2', pool=false, flip=true"
COMMON = ("window=8", "hop=8", "batch=8", "optimiser.lr=1e-3", "optimiser.final_lr=0.01", "optimiser.clip_norm=1")
LINES = {
    "frozen": ('features=["regnet32"]', f"head={{{VIVIT}}}"),
    "trained": (
        'features=["crops32"]',
        f"head={{kind='trained_tail', feature='crops32', tail={{{TAIL}}}, then={{{VIVIT}}}}}",
    ),
}
DRAWS = 1000
PROJECT = """[dataset]
layout = "affwild2"

[store]
path = "features"

[[encoder]]
name = "crops32"
modality = "visual"
kind = "crops"
size_px = 32

[[encoder]]
name = "regnet32"
modality = "visual"
kind = "regnet"
weights = "random"
tap = "map"
size_px = 32
"""


def make(root: Path, project: Path, every: int) -> None:
    """Write a project of every n-th frame of the videos and the labels under ``root``; no sound."""
    (project / "videos").mkdir(parents=True)
    for file in sorted((root / "videos").iterdir()):
        with av.open(str(file)) as old, av.open(str(project / "videos" / file.name), "w") as new:
            source = old.streams.video[0]
            assert source.average_rate is not None, f"{file}: no frame rate"
            rate = source.average_rate / every
            stream = new.add_stream("libx264", rate=rate, options={"crf": "18"})
            stream.width, stream.height, stream.pix_fmt = source.width, source.height, "yuv420p"
            for number, frame in enumerate(islice(old.decode(source), 0, None, every)):
                picture = frame.reformat(format="yuv420p")
                picture.pts, picture.time_base, picture.pict_type = number, 1 / rate, 0
                new.mux(stream.encode(picture))
            new.mux(stream.encode())
    for file in sorted((root / "annotations").rglob("*.txt")):
        lines = file.read_text(encoding="utf-8").splitlines()
        thinned = project / file.relative_to(root)
        thinned.parent.mkdir(parents=True, exist_ok=True)
        thinned.write_text("\n".join([lines[0], *lines[1::every], ""]), encoding="utf-8")
    (project / "aupipe.toml").write_text(PROJECT, encoding="utf-8")


def main() -> None:
    """Print the score of each, their difference with its 95% interval, and the seconds of an epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--task", default="au")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--make", type=Path, metavar="ROOT", help="make PROJECT of this Aff-Wild2 tree, and end")
    parser.add_argument("--every", type=int, default=5, help="of the frames, with --make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=3, help="of decoding against the cache")
    options = parser.parse_args()
    if options.make:
        make(options.make, options.project, options.every)
        print(f"next: cd {options.project} && aupipe extract")
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)
    config = load_config(options.project / "aupipe.toml")
    store, task = open_store(config.store.path), as_task(options.task)
    found, epochs = {}, {}
    for name, changes in LINES.items():
        recipe = load_recipe("regnet-vivit-adamw", [*COMMON, *changes, f"epochs={options.epochs}"])
        data = gather(config, store, recipe, task.name)
        train = data.train
        given = FitData(train, data.validation, data.labels, data.features)
        with tempfile.TemporaryDirectory() as folder:
            tell = partial(print, f"{name:8}", flush=True)
            run = fit(store, given, FitConfig(recipe, task, options.seed), Path(folder) / name, progress=tell)
            found[name] = predict(run, store, data.validation)
        epochs[name] = statistics.median(one.seconds for one in run.history)
    labels = {r.id: data.labels[r.id] for r in data.validation}
    ids, rng = sorted(labels), np.random.default_rng(0)

    def score(name: str, chosen: list[str]) -> float:
        predictions = {f"{i} {one}": found[name][one] for i, one in enumerate(chosen)}
        return evaluate(predictions, {key: labels[key.partition(" ")[2]] for key in predictions}, task).mean

    drawn = [list(rng.choice(ids, len(ids))) for _ in range(DRAWS)]
    gains = [score("trained", one) - score("frozen", one) for one in drawn]
    low, high = np.quantile(gains, [0.025, 0.975])
    frozen, trained = score("frozen", ids), score("trained", ids)
    print(f"{len(train)} training and {len(ids)} validation recordings, {options.epochs} epochs, one core")
    gain = f"{trained - frozen:+.3f} ({low:+.3f} to {high:+.3f})"
    print(f"{task.metric} of {task.name}: frozen {frozen:.3f}, trained {trained:.3f}; {gain}")
    cached_s, decoded_s = measure(store, train, data.labels, data.features["crops32"], options.turns)
    whole, again = epochs["trained"], epochs["trained"] + decoded_s - cached_s
    print(
        f"the crops of an epoch: {cached_s:.2f} s cached, {decoded_s:.2f} s decoded: {decoded_s / cached_s:.1f} times"
    )
    print(f"a whole epoch: {whole:.1f} s, with decoding {again:.1f} s: {again / whole:.1f} times")


if __name__ == "__main__":
    main()
