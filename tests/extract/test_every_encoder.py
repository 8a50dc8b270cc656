"""Every encoder through the whole pipeline: two drawn clips in, rows and masks in the store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from aupipe.extract.encoders import ENCODERS
from aupipe.extract.media.video import VideoReader
from aupipe.store import open_store
from tests.cli.conftest import Project
from tests.extract.conftest import Lit
from tests.made import talking, write_media
from tests.made_bundle import FILE as BUNDLE

DATA = Path(__file__).parent / "data"
MODELS = Path(__file__).parent / "models"

# Clip -> frames, the frames that show a face, and when its sound begins and ends.
CLIPS = {
    "talks.mkv": (40, 40, 0.0, 1.6),
    "goes.mkv": (90, 24, 1.8, 3.4),
}
WORD_S = 0.6  # the one word of each clip, on the clock of its sound


@dataclass(frozen=True)
class Case:
    """One encoder: its table, the shape of a row, and a change of what it does to pictures, sound or words."""

    table: str
    shape: tuple[int, ...]
    change: str


SMALL = {
    "hog": Case("size_px = 56", (324,), "size_px = 84"),
    "crops": Case("size_px = 32", (32, 32, 3), 'crop = "box"'),
    "timm": Case('model = "test_vit"\nsize_px = 64', (64,), "size_px = 96"),
    "regnet": Case("size_px = 64", (440,), "size_px = 96"),
    "transformers": Case(f'model = "{DATA / "tiny_vit"}"', (32,), "std = [0.25]"),
    "mfcc": Case("", (39,), "n_mels = 32"),
    "logmel": Case("deltas = 1", (128,), "f_max_hz = 7000.0"),
    "level": Case("", (1,), "window_s = 0.2"),
    "egemaps": Case("", (25,), 'feature_set = "GeMAPSv01b"'),
    "vad": Case("", (1,), 'align = "nearest"'),
    "speech": Case(f'model = "{MODELS / "tiny-hubert"}"', (32,), 'normalize = "no"'),
    "text": Case(f'model = "{MODELS / "tiny-roberta"}"', (32,), "align_s = 1.0"),
}
LARGE = {
    "arcface": Case('model = "r50"', (512,), "normalise = true"),
    "dan": Case('tap = "gap"', (512,), 'crop = "box"'),
    "hsemotion": Case('model = "b0"', (1280,), 'crop = "aligned"'),
    "mae": Case("", (768,), 'crop = "aligned"'),
    "swin": Case("", (768,), 'normal = "imagenet"'),
    "ghfeat": Case("depth = 18", (14, 1024), 'super_resolution = "random"'),
    "vggish": Case("", (128,), "hop_s = 0.48"),
}
# A file that is the network, and no weights at all: nothing of these can be random.
FILES = {
    "geometry": Case("", (21,), ""),
    "onnx": Case(f'weights = "{DATA / "mean_colour.onnx"}"\nsize_px = 32', (5,), 'channels = "bgr"'),
    "blendshapes": Case(f'weights = "{BUNDLE}"', (52,), 'tap = "presence"'),
}


def configured(cases: dict[str, Case], changed: Iterable[str] = (), detect_px: int = 640) -> str:
    text = '[dataset]\nlayout = "folder"\nvideos = "videos"\n[store]\npath = "features"\n'
    text += f'[faces]\ndetector = "mtcnn"\ndetect_px = {detect_px}\n'
    for kind, case in cases.items():
        change = case.change if kind in changed else ""
        kept = [line for line in case.table.splitlines() if line.partition(" = ")[0] != change.partition(" = ")[0]]
        lines = [f'name = "{kind}"', f'kind = "{kind}"', f'modality = "{ENCODERS.get(kind).modality}"', *kept]
        text += "\n".join(["[[encoder]]", *lines, change, ""])
    return text


@pytest.fixture
def project(tmp_path: Path, lit: Lit) -> Project:
    pictures, sound = (array.copy() for array in talking(frames=90))
    small = pictures[:, ::2, ::2]
    for clip, (frames, seen, start_s, end_s) in CLIPS.items():
        shown = small[:frames].copy()
        shown[seen:] = 128
        heard = sound[: round((end_s - start_s) * 16000)]
        write_media(tmp_path / "videos" / clip, shown, heard, sound_start_s=start_s)
        spoken = f"word,start,end\nhello,{WORD_S},{WORD_S}\n"
        (tmp_path / "videos" / clip).with_suffix(".csv").write_text(spoken)
    return Project(tmp_path, {**os.environ, "AUPIPE_WEIGHTS": str(lit.folder), "OMP_NUM_THREADS": "1"})


def expected_mask(kind: str, clip: str, clock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) what must be valid, and (T,) where one may be sure: sound and words begin and end between frames."""
    _, seen, start_s, end_s = CLIPS[clip]
    modality = ENCODERS.get(kind).modality
    if modality == "visual":
        return np.arange(len(clock)) < seen, np.full(len(clock), True)
    if modality == "text":
        start_s, end_s = start_s + WORD_S - 2, start_s + WORD_S + 2
    sure = (np.abs(clock - start_s) > 0.04) & (np.abs(clock - end_s) > 0.04)
    return (clock >= start_s) & (clock <= end_s), sure


@pytest.mark.parametrize(
    ("cases", "options"),
    [
        (SMALL, ("--weights", "random")),
        (FILES, ()),
        pytest.param(LARGE, ("--weights", "random"), marks=pytest.mark.slow),
    ],
    ids=["small", "files", "large"],
)
def test_extraction_fills_the_store_and_a_changed_parameter_makes_another_feature(
    project: Project, cases: dict[str, Case], options: tuple[str, ...]
) -> None:
    project.configure(configured(cases))
    answer = project.run("extract", "--cpu", *options)
    assert answer.code == 0, answer.out + answer.err
    store = open_store(project.folder / "features")
    for clip, (length, *_) in CLIPS.items():
        clock = VideoReader(project.folder / "videos" / clip).clock()
        assert len(clock) == length
        for kind, case in cases.items():
            item = store[kind][clip]
            rows, valid = np.asarray(item[:], np.float32), np.asarray(item.valid)
            assert rows.shape == (length, *case.shape), kind
            expected, sure = expected_mask(kind, clip, clock)
            np.testing.assert_array_equal(valid[sure], expected[sure], err_msg=f"{kind} {clip}")
            assert np.isfinite(rows[valid]).all(), kind
            assert (np.isnan(rows[~valid]) if item.dtype.kind == "f" else rows[~valid] == 0).all(), kind

    def changed(text: str) -> set[tuple[str, ...]]:
        project.configure(text)
        plan = project.run("extract", "--cpu", "--dry-run", "-v", *options)
        assert plan.code == 0, plan.out + plan.err
        return {tuple(line.split()[2:4]) for line in plan.out.splitlines() if line.startswith("  spec changed")}

    changeable = [kind for kind, case in cases.items() if case.change]
    if "crops" in cases:
        shown = project.run("extract", "--cpu", "--dry-run", *options).out
        assert re.search(r"^crops@\w+ +2 done, 3,072 bytes a frame$", shown, re.MULTILINE), shown
    for kinds in (changeable[:1], changeable):
        expected = {(kind, clip) for kind in kinds for clip in CLIPS}
        assert changed(configured(cases, kinds)) == expected
    visual = {(kind, clip) for kind in cases if ENCODERS.get(kind).modality == "visual" for clip in CLIPS}
    assert changed(configured(cases, detect_px=320)) == visual


def test_no_encoder_is_left_out() -> None:
    cases = [*SMALL, *LARGE, *FILES]
    assert sorted(cases) == sorted(name for name in ENCODERS.names() if ENCODERS.origin(name) == "aupipe")
