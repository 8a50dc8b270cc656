"""A small corpus for tests: labels that last for several frames, and features that are linear in them plus noise."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from aupipe.store import Store, create_store
from aupipe.train.fit import fit
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.labels import NAMES
from aupipe.train.recipe import Recipe
from aupipe.train.run import Run
from aupipe.types import FeatureSpec, Labels, Recording

CLOCK = FeatureSpec("clock", "clock", "clock", 1, dtype="float64")
FACE = FeatureSpec("face", "visual", "toy", 1, dtype="float32", inputs={"clock": CLOCK.id})
SOUND = FeatureSpec("sound", "audio", "toy", 1, dtype="float32", inputs={"clock": CLOCK.id})


@dataclass(frozen=True)
class Corpus:
    store: Store
    train: list[Recording]
    validation: list[Recording]
    labels: dict[str, Labels]
    features: dict[str, str]
    task: str


def lasting_states(rng: np.random.Generator, frames: int, states: int, stay: float = 0.95) -> np.ndarray:
    """(T,) states that are kept with probability ``stay``, else drawn again."""
    state = np.empty(frames, dtype=int)
    state[0] = rng.integers(states)
    for t in range(1, frames):
        state[t] = state[t - 1] if rng.random() < stay else rng.integers(states)
    return state


def make_labels(rng: np.random.Generator, frames: int, task: str) -> Labels:
    """Annotations of one recording, a burst of 5 frames invalid."""
    state = lasting_states(rng, frames, 8)
    if task == "expr":
        targets = state[:, None]
    elif task == "au":
        targets = np.random.default_rng(7).random((8, 12))[state] < 0.4
    else:
        targets = np.random.default_rng(7).uniform(-0.8, 0.8, (8, 2))[state]
    valid = np.ones(targets.shape, dtype=bool)
    valid[10:15] = False
    return Labels(task, NAMES[task], np.where(valid, targets, 0).astype(np.float32), valid)


def make_corpus(task: str = "au", train: int = 6, validation: int = 3, frames: int = 150, noise: float = 1.0) -> Corpus:
    """A memory store with a visual and an audio feature. No face is found in frames [20, 26).

    The first two recordings are siblings in one video, ``video0``; no two videos are equally long.
    """
    rng = np.random.default_rng(3)
    store = create_store("corpus", "memory")
    mixing = np.random.default_rng(11).normal(size=(len(NAMES[task]), 16))
    recordings, labels = [], {}
    for i in range(train + validation):
        video, size = f"video{max(i - 1, 0)}", frames + max(i - 1, 0)
        recording = Recording(video + ("_left", "_right")[i] if i < 2 else video, video_id=video)
        item = make_labels(rng, size, task)
        shown = np.eye(8)[item.targets[:, 0].astype(int)] if task == "expr" else item.targets  # (T, K)
        face = shown @ mixing + noise * rng.normal(size=(size, 16))
        face[20:26] = np.nan
        store.publish(recording.id, FACE, face.astype(np.float32))
        if i != 1:
            store.publish(video, SOUND, rng.normal(size=(size, 3)).astype(np.float32))
            store.publish(video, CLOCK, np.arange(size, dtype=np.float64)[:, None] / 25)
        recordings.append(recording)
        labels[recording.id] = item
    return Corpus(store, recordings[:train], recordings[train:], labels, {"face": FACE.id, "sound": SOUND.id}, task)


def train_corpus(corpus: Corpus, out: Path, recipe: Recipe, progress=None, resume=False, **options) -> Run:
    """`fit` on a corpus; ``options`` are fields of `FitData` in place of those of the corpus, and of `FitConfig`."""
    names = [field.name for field in fields(FitData)]
    own = {name: getattr(corpus, name) for name in names if hasattr(corpus, name)}
    data = FitData(**own | {name: options.pop(name) for name in names if name in options})
    config = FitConfig(recipe, corpus.task, **options)
    return fit(corpus.store, data, config, out, progress=progress, resume=resume)
