"""`aupipe status` and `aupipe inspect`: what is stored, what failed, what to do next."""

from __future__ import annotations

import json

import numpy as np

from aupipe.store import create_store
from aupipe.types import FeatureSpec
from tests.cli.conftest import HOG, LEVEL, NO_FACES, Project


def test_status_says_each_reason_once_and_what_to_do_next_and_inspect_names_the_nearest(
    project: Project,
) -> None:
    (project.folder / "videos" / "text.mp4").write_text("no video")
    project.configure(NO_FACES + HOG + LEVEL)
    before = project.run("status")
    assert (before.code, before.out.splitlines()[-1]) == (10, "next: aupipe extract (2 items to compute)")
    assert project.run("extract", "--cpu").code == 3
    short = project.run("status")
    assert (short.code, short.out.splitlines()[-1]) == (3, "retry: aupipe extract --retry-failed")
    failed = [line for line in project.run("status", "--failed").out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert failed[0].startswith("FAILED  text.mp4  hog, level: ")
    assert "is text" in project.run("inspect", "text.mp4").out
    answer = project.run("inspect", "test.mp4")
    assert (answer.code, "Did you mean 'text.mp4'?" in answer.err) == (2, True)


def test_status_shows_what_the_store_has_beside_the_features_of_the_configuration(project: Project) -> None:
    """Such as what `extract --recipe` has made."""
    for name in ("a.mp4", "b.mp4"):
        (project.folder / "videos" / name).write_text("no video")
    project.configure("[dataset]\nvideos = 'videos'\n")
    with create_store(project.folder / "features") as store:
        spec = FeatureSpec("eff", "visual", "timm", 1, {}, None, "float16", {})
        store.publish("a.mp4", spec, np.ones((5, 3), np.float16))
    said = project.run("status")
    assert f"{spec.id:32} {1:>7} {1:>7} {'-':>7} {0:>7} {0:>7}" in said.out.splitlines()
    found = json.loads(project.run("status", "--json").out)
    assert found["other_features"] == {spec.id: {"done": 1, "missing": 1, "failed": 0, "damaged": 0}}
