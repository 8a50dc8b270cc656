"""`aupipe extract --dry-run`: how much there is to do, how large and how long that is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.extract.executors import media_lengths
from aupipe.extract.executors.media_lengths import MediaLength
from aupipe.extract.executors.plan_estimate import earlier_run, estimate
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import create_store
from aupipe.store.run_log import RunLog
from aupipe.types import Recording
from tests.cli.conftest import HOG, LEVEL, NO_FACES, Project
from tests.conftest import write_video

CONFIG = '[dataset]\nvideos = "videos"\n' + NO_FACES + HOG


def test_a_dry_run_says_how_much_how_large_and_how_long_by_a_measured_run(project: Project) -> None:
    for name, frames in (("a.mp4", 50), ("b.mp4", 100)):
        write_video(project.folder / "videos" / name, frames)
    (project.folder / "videos" / "text.mp4").write_text("no video")
    project.configure(CONFIG)
    said = project.run("extract", "--cpu", "--dry-run").out.splitlines()
    assert said[1:] == [
        "recordings: 3 to do, 0 done, 0 failed before",
        "media: 6 s in 2 videos, by their headers",
        "length not known: 1 video (text.mp4), left out below",
        "store: grows by about 530.4 kB",
        "time: no earlier run of all these features on this machine to measure by",
        "nothing was done (--dry-run); -v lists the items, and why",
    ]
    assert not (project.folder / "features").exists()
    assert project.run("extract", "--cpu").code == 3
    write_video(project.folder / "videos" / "c.mp4", 200)
    plan = json.loads(project.run("extract", "--dry-run", "--json").out)
    assert plan["recordings"] == {"to_do": 1, "done": 2, "failed_before": 1, "other_file": 0}
    assert (plan["videos"], plan["media_s"], plan["frames"]) == (1, 8.0, 200)
    assert plan["bytes"] == pytest.approx(200 * (3528 + 8), rel=1e-3)  # stored items have a header
    assert plan["measured_by"]["media_s"] == pytest.approx(1.96 + 3.96)
    assert 0.5 < plan["seconds"] < 60
    assert {(item["recording"], item["state"]) for item in plan["items"]} == {
        ("a.mp4", "done"), ("b.mp4", "done"), ("c.mp4", "new"), ("text.mp4", "failed before"),
    }  # fmt: skip
    listed = project.run("extract", "--dry-run", "-v").out
    assert "  new             hog          c.mp4" in listed
    assert "s of media)" in listed


def test_a_dry_run_names_videos_without_sound_where_features_of_sound_are_asked_for(project: Project) -> None:
    write_video(project.folder / "videos" / "silent.mp4", 5)
    write_video(project.folder / "videos" / "tone.mp4", 5, tone_hz=300)
    project.configure(CONFIG + LEVEL)
    failing = (
        "no sound: 1 video (silent.mp4): level will fail there; --on-missing-audio mask stores invalid rows instead"
    )
    assert failing in project.run("extract", "--dry-run").out.splitlines()
    masked = project.run("extract", "--dry-run", "--on-missing-audio", "mask").out.splitlines()
    assert "no sound: 1 video (silent.mp4): all rows of level will be invalid there (on_missing_audio: mask)" in masked
    assert json.loads(project.run("extract", "--dry-run", "--json").out)["without_sound"] == ["silent.mp4"]
    assert "no sound" not in project.run("extract", "--dry-run", "--modality", "visual").out


def test_an_estimate_is_of_runs_of_the_same_features_on_this_machine_and_device(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 250)
    (tmp_path / "aupipe.toml").write_text(CONFIG)
    config = load_config(tmp_path / "aupipe.toml")
    recordings, store = open_dataset(config.dataset).recordings, create_store(tmp_path / "features")
    plan = make_plan(recordings, build_feature_set(config), store)
    (hog,) = {item.spec.id for item in plan.items}
    end = {"media_s": 100.0, "working_s": 50.0, "phases": {
        "scan": {"media_s": 100.0, "seconds": 80.0}, "encode": {"media_s": 100.0, "seconds": 20.0},
    }}  # fmt: skip
    for features, where, more in (
        ([hog, "mfcc@0"], "cpu", {}),
        ([hog], "cuda:0", {}),
        ([hog], "cpu", {"phases": {}}),  # of an earlier version
        ([hog], "cpu", {}),
    ):
        with RunLog.in_store(store.path, command="extract", where=where, features=features) as log:
            log.end |= end | more
    found = estimate(plan, store, "cpu")
    assert found.earlier is not None
    assert found.earlier.where == "cpu"
    assert found.earlier.costs == {"scan": 0.8, "encode": 0.2}
    assert found.seconds == pytest.approx(10 * (0.8 + 0.2) / 2, abs=0.1)  # two phases at a time
    assert earlier_run(store, {"mfcc@0"}) is None
    assert found.size_bytes == 250 * (3528 + 8)
    assert found.unsized == ()


def test_a_file_that_ends_the_process_that_reads_its_header_is_one_without_a_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One child for each such file, and the others are read."""
    recordings = [Recording(f"{k}.mp4", video=write_video(tmp_path / f"{k}.mp4", 25)) for k in range(3)]
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "sitecustomize.py").write_text(
        "import os, av\nopened = av.open\n"
        "av.open = lambda path, *a, **k: os._exit(1) if '1.mp4' in path else opened(path, *a, **k)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "poison"))
    found = media_lengths.media_lengths(recordings)
    assert found == {"0.mp4": MediaLength(1.0, 25, True), "1.mp4": None, "2.mp4": MediaLength(1.0, 25, True)}


def test_images_are_as_long_as_their_rate_says(tmp_path: Path) -> None:
    import cv2

    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"{number:05}.jpg"), np.zeros((8, 8, 3), np.uint8))
    assert media_lengths.read_length(Recording("i", images=tmp_path, fps=5.0)) == MediaLength(2.0, 10)
