"""Projects whose stores hold what a test says; the number of a row can be read off its picture."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.planning.features import build_feature_set
from aupipe.sources import source_identity
from aupipe.store import create_store
from aupipe.tasks import AU_NAMES
from tests.cli.conftest import Project
from tests.made import write_media

HEIGHT, WIDTH, BITS = 96, 256, 8
TREE = '[dataset]\nlayout = "affwild2"\nroot = "."\n'
FOLDER = '[dataset]\nvideos = "videos"\n'
ENCODERS = """[[encoder]]
name = "blendshapes"
modality = "visual"
kind = "blendshapes"
weights = "{weights}"
[[encoder]]
name = "vad"
modality = "audio"
kind = "vad"
"""
BOX = (100.0, 10.0, 180.0, 90.0)


@dataclass
class Made:
    """A recording: rows at ``times``, faces only others' in ``others``, nobody in ``nobody``."""

    times: np.ndarray
    others: range = range(0)
    nobody: range = range(0)
    labels: np.ndarray | None = None  # (T, 12)
    sound_from: float | None = 0.0
    extra: dict = field(default_factory=dict)


def pictures_of(count: int) -> np.ndarray:
    """(T, H, W, 3): the lower half of each picture says its number in black and white."""
    found = np.full((count, HEIGHT, WIDTH, 3), 90, np.uint8)
    for row in range(count):
        for bit in range(BITS):
            step = WIDTH // BITS
            found[row, HEIGHT // 2 :, bit * step : (bit + 1) * step] = 235 if row >> bit & 1 else 20
    return found


def row_of(picture: np.ndarray) -> int:
    """The number that a picture (H, W, 3) says, of any size."""
    height, width = picture.shape[:2]
    line = picture[round(height * 0.62) : round(height * 0.7)].astype(float).mean(axis=(0, 2))
    centres = ((np.arange(BITS) + 0.5) * width / BITS).round().astype(int)
    return sum((line[x - 2 : x + 3].mean() > 128) << bit for bit, x in enumerate(centres))


def make(root: Path, recordings: dict[str, Made], dataset: str = TREE) -> Path:
    """Videos, annotations and the store of a project, as extraction would leave them."""
    weights = root / "blendshapes.task"
    root.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(b"only its checksum is read")
    (root / "aupipe.toml").write_text(dataset + ENCODERS.format(weights=weights))
    for name, one in recordings.items():
        count = len(one.times)
        sound = None
        if one.sound_from is not None:
            seconds = one.times[-1] - one.times[0] - one.sound_from
            sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(max(seconds, 0.1) * 16_000)) / 16_000)
        write_media(
            root / "videos" / f"{name}.mp4",
            pictures_of(count),
            None if sound is None else sound.astype(np.float32),
            times_s=one.times,
            sound_start_s=float(one.times[0] + (one.sound_from or 0)),
        )
        if one.labels is not None:
            folder = root / "annotations" / "AU_Detection_Challenge" / "Train_Set"
            folder.mkdir(parents=True, exist_ok=True)
            lines = [",".join(AU_NAMES), *(",".join(f"{value:.0f}" for value in row) for row in one.labels)]
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    publish(root, recordings)
    return root


def publish(root: Path, recordings: dict[str, Made]) -> None:
    config = load_config(root / "aupipe.toml")
    features = build_feature_set(config)
    store = create_store(root / "features")
    for recording in open_dataset(config.dataset).recordings:
        one, graph = recordings[recording.id.removesuffix(".mp4")], features.graph(recording)
        count = len(one.times)
        face = np.full((count, 15), np.nan, np.float32)
        face[:, :4], face[:, 14] = BOX, 0.9
        face[:, 4:14] = [120, 40, 160, 40, 140, 55, 125, 70, 155, 70]
        dense = np.zeros((count, 8, 17), np.float32)
        dense[:, 0] = np.concatenate([face, np.tile([HEIGHT, WIDTH], (count, 1))], axis=1)
        dense[list(one.others), 0, :4] = [10, 10, 60, 60]
        dense[list(one.nobody)] = np.nan
        face[[*one.others, *one.nobody]] = np.nan
        heat = np.tile(np.linspace(0, 1, 52, dtype=np.float32), (count, 1))
        heat[[*one.others, *one.nobody]] = np.nan
        speech = np.full((count, 1), 0.5, np.float32)
        rows = {"clock": one.times, "detections": dense, "faces": face, "blendshapes": heat, "vad": speech} | one.extra
        source = source_identity(recording.video)
        for spec in (graph.clock, graph.detections, graph.faces, *(spec for spec, _ in graph.encoders)):
            if rows[spec.name] is not None:
                store.publish(recording.key_for(spec.modality), spec, rows[spec.name].astype(spec.dtype), source=source)
    store.close()


def project_in(folder: Path) -> Project:
    """The command line in a folder, without the variables of who runs the tests."""
    return Project(folder, {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")})


def regular(count: int, start: float = 0.0) -> np.ndarray:
    return start + np.arange(count) / 25


def variable(count: int) -> np.ndarray:
    """Times of which the second half is three times as fast."""
    steps = np.where(np.arange(count) < count // 2, 6, 2) * 512 / 12800
    return np.concatenate([[0.0], np.cumsum(steps)[:-1]])
