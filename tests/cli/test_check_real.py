"""`aupipe check` on real clips and on the rendered corpus, extracted as a user would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from tests.cli.conftest import Project

ENCODERS = """
[faces]
detector = "yunet"
[[encoder]]
name = "{name}"
modality = "visual"
kind = "{name}"
[[encoder]]
name = "mfcc"
modality = "audio"
kind = "mfcc"
"""
PLANTED = {"late": "rend-009", "silent": "rend-021", "pair": "rend-012"}
INVALID = {"AU": ",".join(["-1"] * 12), "EX": "-1", "VA": "-5,-5"}


def check(project: Project) -> dict:
    answer = project.run("check", "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


@pytest.mark.assets
def test_three_real_clips_have_the_figures_that_are_known_of_them(assets: Path, project: Project) -> None:
    names = {
        "crowd": "hamilton_lowlight_multiface_speech.mp4",
        "silent": "wolfgang_emotions_silent_audio.mp4",
        "vfr": "face_then_noface_vfr_hevc.mov",
    }
    for name in names.values():
        (project.folder / "videos" / name).symlink_to(assets / "videos" / name)
    project.configure('[dataset]\nvideos = "videos"\n' + ENCODERS.format(name="geometry"))
    assert project.run("extract", "--cpu", AUPIPE_WEIGHTS=str(assets / "weights")).code == 0
    found = check(project)
    values = found["recordings"]
    assert round(values[names["crowd"]]["others_only"], 3) == 0.52
    assert values[names["crowd"]]["nobody"] == 0
    assert values[names["crowd"]]["jumps"] == 3
    assert values[names["silent"]]["silent"] == 1
    assert round(values[names["vfr"]]["no_sound"], 2) == 0.43
    faults = {(one["recording"], one["fault"]) for one in found["findings"]}
    assert faults == {
        (names["crowd"], "other faces only"),
        (names["crowd"], "subject jumps"),
        (names["silent"], "silent sound"),
        (names["vfr"], "nobody in the picture"),
        (names["vfr"], "sound missing in part"),
        (names["vfr"], "variable frame rate"),
    }


def copy_corpus(source: Path, target: Path) -> None:
    """Ten recordings of the corpus, those that are to be spoiled among them."""
    names = [*PLANTED.values(), *(f"rend-{number:03d}" for number in (1, 3, 5, 11, 14, 17, 20))]
    (target / "videos").mkdir(exist_ok=True)
    for name in names:
        shutil.copy(source / "videos" / f"{name}.mp4", target / "videos")
        for file in (source / "annotations").glob(f"*/*/{name}*.txt"):
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)


def spoil(root: Path) -> None:
    """Labels 10 frames late, the labels of two people exchanged, sound silenced."""
    for file in (root / "annotations").glob(f"*/*/{PLANTED['late']}.txt"):
        head, *rows = file.read_text().splitlines()
        rows = [INVALID[file.parent.parent.name[:2]]] * 10 + rows[:-10]
        file.write_text("\n".join([head, *rows]) + "\n")
    for left in (root / "annotations").glob(f"*/*/{PLANTED['pair']}_left.txt"):
        right = left.with_name(f"{PLANTED['pair']}_right.txt")
        of_left, of_right = left.read_text(), right.read_text()
        left.write_text(of_right)
        right.write_text(of_left)
    silence(root / "videos" / f"{PLANTED['silent']}.mp4")


def silence(path: Path) -> None:
    """Replace the sound of a file by zeros; its pictures stay as they are."""
    staged = path.with_suffix(".staged.mp4")
    with av.open(str(path)) as source, av.open(str(staged), "w") as target:
        picture, sound = source.streams.video[0], source.streams.audio[0]
        copied, zeros = (
            target.add_stream_from_template(picture),
            target.add_stream("aac", rate=sound.rate, layout="mono"),
        )
        for packet in source.demux(picture):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
        for start in range(0, int(float(sound.duration * sound.time_base) * sound.rate), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = sound.rate, start
            target.mux(zeros.encode(frame))
        target.mux(zeros.encode(None))
    staged.rename(path)


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize("feature", ["blendshapes", "hog"])
def test_three_planted_faults_are_flagged_and_nothing_is_in_the_clean_corpus(
    assets: Path, project: Project, feature: str
) -> None:
    weights = {"AUPIPE_WEIGHTS": str(assets / "weights")}
    project.configure('[dataset]\nlayout = "affwild2"\nroot = "."\n' + ENCODERS.format(name=feature))
    copy_corpus(assets / "rendered_affwild", project.folder)
    assert project.run("extract", "--cpu", **weights).code == 0
    assert check(project)["findings"] == []
    spoil(project.folder)
    assert project.run("extract", "--cpu", **weights).code == 0
    faults = {(one["recording"], one["fault"]) for one in check(project)["findings"]}
    assert faults == {
        ("rend-009", "labels late"),
        ("rend-012_left", "labels of its sibling"),
        ("rend-012_right", "labels of its sibling"),
        ("rend-021", "silent sound"),
    }
