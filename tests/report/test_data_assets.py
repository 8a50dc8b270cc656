"""`aupipe report data` on real clips: what is known of them stands on their pages, and no visible face stays sharp."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from tests.cli.conftest import HOG, MFCC
from tests.report.made_report import project_in

pytestmark = pytest.mark.assets

STAGE, SILENT = "hamilton_lowlight_multiface_speech.mp4", "wolfgang_emotions_silent_audio.mp4"
UNEVEN, LEAVES = "face_then_noface_vfr_hevc.mov", "derived_face_leaves_and_returns.avi"


@pytest.fixture(scope="module")
def clips_project(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    (root / "videos").mkdir()
    for name in (STAGE, SILENT, UNEVEN, LEAVES):
        (root / "videos" / name).symlink_to(assets / "videos" / name)
    (root / "aupipe.toml").write_text('[dataset]\nvideos = "videos"\n[faces]\ndetector = "yunet"\n' + HOG + MFCC)
    answer = project_in(root).run("extract", "--cpu", AUPIPE_WEIGHTS=str(assets / "weights"))
    assert answer.code == 0, answer.err
    return root


def report_of(root: Path, *arguments: str) -> Path:
    answer = project_in(root).run("report", "data", *arguments, AUPIPE_WEIGHTS=os.environ.get("AUPIPE_WEIGHTS", ""))
    assert answer.code == 0, answer.err
    assert answer.err == ""
    return root / (arguments[arguments.index("--out") + 1] if "--out" in arguments else "reports/data")


def text_of(report: Path, name: str) -> str:
    (page,) = report.glob(f"rec/{name}-*/index.html")
    return page.read_text(encoding="utf-8")


def test_states_silence_and_missing_sound_of_real_clips_stand_on_their_pages(clips_project: Path) -> None:
    report = report_of(clips_project)
    stage = text_of(report, STAGE)
    assert "other faces only 52.0%, nobody 0.0%; 3 jumps" in stage
    assert stage.count("the subject jumps to another place") == 3
    assert "silent sound: yes" in text_of(report, SILENT)
    measured = json.loads((report / "checks.json").read_text())["recordings"]
    assert 0.43 <= measured[UNEVEN]["no_sound"] < 0.44
    assert "sound missing in part: 4" in text_of(report, UNEVEN)
    with av.open(str(next(report.glob(f"rec/{LEAVES}-*/video.mp4")))) as container:  # AVI, which browsers refuse
        assert container.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in container.decode(video=0)) == 472


def detail(picture: np.ndarray) -> float:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
    return float((cv2.Laplacian(grey, cv2.CV_64F) ** 2).mean())


def test_no_visible_face_is_sharp_in_the_video_of_a_blurred_report(clips_project: Path, assets: Path) -> None:
    report = report_of(clips_project, LEAVES, "--faces", "blur", "--out", "blurred")
    truth = np.genfromtxt(assets / "labels" / f"{Path(LEAVES).stem}.csv", delimiter=",", names=True)
    recordings = open_dataset(load_config(clips_project / "aupipe.toml").dataset).recordings
    (source,) = [one.video for one in recordings if one.id == LEAVES]
    shown = 0
    blurred = next(report.glob("rec/*/video.mp4"))
    with av.open(str(source)) as own, av.open(str(blurred)) as other:
        frames = zip(own.decode(video=0), other.decode(video=0), strict=True)
        for row, pair in enumerate(frames):
            sharp, hidden = (frame.to_ndarray(format="rgb24") for frame in pair)
            assert sharp.shape == hidden.shape
            x, y, width, height = (truth[column][row] for column in ("face_x", "face_y", "face_w", "face_h"))
            face = np.s_[max(0, int(y)) : int(y + height), max(0, int(x)) : max(0, int(x + width))]
            if truth["visible_fraction_of_face_width"][row] > 0 and sharp[face].shape[1] > 2:
                shown += 1
                assert detail(hidden[face]) < 0.05 * detail(sharp[face]), row
    assert shown > 300
    text = text_of(report, LEAVES)
    assert re.search(r"Faces: blurred. This is not anonymisation", text)
