"""Every visual encoder through the whole pipeline: two real clips in, rows and masks in the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from aupipe.store import open_store
from tests.cli.conftest import Project

DATA = Path(__file__).parent / "data"
CLIPS = {"single_face_smile_mp3.mp4": 72, "face_then_noface_vfr_hevc.mov": 169}

# Feature -> its table and the shape of a row. Weights are random, as in a first try without downloads.
QUICK = {
    "regnet": ('kind = "regnet"\nweights = "random"\nsize_px = 64', (440,)),
    "onnx": (f'kind = "onnx"\nweights = "{DATA / "mean_colour.onnx"}"\nsize_px = 32', (5,)),
    "vit": (f'kind = "transformers"\nmodel = "{DATA / "tiny_vit"}"\nweights = "random"', (32,)),
}
HEAVY = {
    "arcface": ('kind = "arcface"\nmodel = "r50"\nweights = "random"', (512,)),
    "dan": ('kind = "dan"\nweights = "random"\ntap = "gap"', (512,)),
    "hsemotion": ('kind = "hsemotion"\nmodel = "b0"\nweights = "random"', (1280,)),
    "mae": ('kind = "mae"\nweights = "random"', (768,)),
    "swin": ('kind = "swin"\nweights = "random"', (768,)),
    "ghfeat": ('kind = "ghfeat"\ndepth = 18\nweights = "random"', (14, 1024)),
    "blendshapes": ('kind = "blendshapes"', (52,)),
}


def configured(tables: dict[str, tuple[str, tuple[int, ...]]], detector: str) -> str:
    text = '[dataset]\nlayout = "folder"\nvideos = "videos"\n[store]\npath = "features"\n'
    text += f'[faces]\ndetector = "{detector}"\n'
    for name, (table, _) in tables.items():
        text += f'[[encoder]]\nname = "{name}"\nmodality = "visual"\n{table}\n'
    return text


@pytest.fixture
def project(tmp_path: Path, assets: Path) -> Project:
    (tmp_path / "videos").mkdir()
    for clip in CLIPS:
        shutil.copyfile(assets / "videos" / clip, tmp_path / "videos" / clip)
    return Project(tmp_path, {**os.environ, "AUPIPE_WEIGHTS": str(assets / "weights"), "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    ("tables", "detector"),
    [(QUICK, "yunet"), pytest.param(QUICK | HEAVY, "retinaface", marks=pytest.mark.slow)],
    ids=["quick", "all"],
)
def test_extraction_fills_the_store_and_a_changed_parameter_makes_another_feature(
    project: Project, tables: dict[str, tuple[str, tuple[int, ...]]], detector: str
) -> None:
    project.configure(configured(tables, detector))
    answer = project.run("extract", "--modality", "visual", "--cpu")
    assert answer.code == 0, answer.out + answer.err
    store = open_store(project.folder / "features")
    for name, (_, shape) in tables.items():
        for clip, length in CLIPS.items():
            item = store[name][clip]
            rows, valid = np.asarray(item[:], np.float32), np.asarray(item.valid)
            assert rows.shape == (length, *shape), name
            assert valid.mean() == pytest.approx(72 / length, abs=0.03), name  # the face is there for 72 frames
            assert np.isfinite(rows[valid]).all(), name
            assert np.isnan(rows[~valid]).all(), name
    project.configure(configured(tables, detector).replace("size_px = 64", "size_px = 96"))
    plan = project.run("extract", "--modality", "visual", "--cpu", "--dry-run")
    assert plan.code == 0, plan.out + plan.err
    lines = [line for line in plan.out.splitlines() if "spec changed" in line]
    assert lines
    assert all("regnet" in line for line in lines)
