"""Folders of images with gaps in their numbers: bounded memory, and a cap on rows that carry nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from aupipe.config import Config, EncoderConfig, FacesConfig
from aupipe.errors import RecordingError
from aupipe.extract.engine.results import JobResult
from aupipe.extract.media.images import image_length
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.store import Store, create_store
from aupipe.types import Recording
from tests.conftest import REPOSITORY
from tests.extract.running import run_jobs


def write_images(folder: Path, numbers: list[int]) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:05d}.png"), np.full((96, 96, 3), 90 + number % 100, np.uint8))
    return folder


def extract(recording: Recording, detector: str, path: Path) -> tuple[JobResult, Store, float]:
    """What comes of a folder, and the peak of what Python and numpy allocate for it in MB."""
    parts = build_feature_set(
        Config(faces=FacesConfig(detector=detector), encoders=(EncoderConfig("hog", "hog", "visual"),))
    )
    store = create_store(path, "zarr")
    jobs = make_plan([recording], parts, store).jobs
    tracemalloc.start()
    try:
        (outcome,) = run_jobs(jobs, store, parts)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert not outcome.failed
    return outcome, store, peak


@pytest.mark.parametrize(("detector", "items"), [("none", 2), ("mtcnn", 4)])  # clock, (detections, faces,) hog
def test_a_gap_in_frame_numbers_is_written_in_blocks(tmp_path: Path, detector: str, items: int) -> None:
    numbers = [1, 2, 3, 5, 12_000, 12_002, 23_999, 24_000]
    small = Recording("a", images=write_images(tmp_path / "small", [1, 3]), fps=25.0)
    extract(small, detector, tmp_path / "first")  # libraries are loaded, which is not what is measured
    large = Recording("a", images=write_images(tmp_path / "large", numbers), fps=25.0)
    outcome, store, peak = extract(large, detector, tmp_path / "features")
    assert [record.frames for record in outcome.published] == [24_000] * items
    (record,) = [record for record in outcome.published if record.feature.startswith("hog")]
    rows = store.read("a", record.feature)
    if detector == "none":
        np.testing.assert_array_equal(np.flatnonzero(~np.isnan(rows[:, 0])) + 1, numbers)
    assert peak < 60 < 4 * rows.size / 1e6, f"{peak:.0f} MB at the peak"


@pytest.mark.parametrize(
    ("numbers", "length"),
    [([1, 100_000], 100_000), ([0, 99_999], 100_000), ([1, 100_001], None), ([7, 10**30], None)],
)
def test_numbers_may_run_far_beyond_the_images_but_not_for_ever(
    tmp_path: Path, numbers: list[int], length: int | None
) -> None:
    folder = write_images(tmp_path / "a", numbers)
    if length is None:
        with pytest.raises(RecordingError, match=f"run to 0*{numbers[-1]}.png, but there are 2 images; renumber"):
            image_length(folder)
    else:
        assert image_length(folder) == length


def test_a_folder_beyond_the_cap_fails_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    write_images(tmp_path / "videos" / "far", [1, 2_000_000])
    write_images(tmp_path / "videos" / "near", [1, 2, 3])
    (tmp_path / "aupipe.toml").write_text(
        '[dataset]\nlayout = "images"\nvideos = "videos"\nfps = 25.0\n[store]\npath = "features"\n'
        '[[encoder]]\nname = "hog"\nmodality = "visual"\nkind = "hog"\n'
    )
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", "extract", "--cpu", "--no-face"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert "numbers run to 2000000.png, but there are 2 images; renumber" in done.stdout + done.stderr
    assert "done 1 " in done.stdout + done.stderr
