"""The whole way, from drawn videos to scores, as `make demo` goes it; and what a trained run is good for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Project

SIZE = ("--recordings", "4", "--seconds", "2")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A small demo, run once, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    answer = Project(folder, environment).run("demo", "d", *SIZE)
    assert answer.code == 0, answer.err
    for step in ("[1/4]", "[2/4]", "[3/4]", "[4/4]", "drawing demo-001 (1/4)", "epoch 1/"):
        assert step in answer.err  # it says how far it is
    return Project(folder / "d", environment), answer.out


def test_it_ends_with_a_table_of_every_unit_and_where_the_results_lie(demo: tuple[Project, str]) -> None:
    project, out = demo
    header = next(line for line in out.splitlines() if line.startswith("F1"))
    assert header.split()[:5] == ["F1", "tcn", "linear", "always", "1"]
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("AU")]
    assert rows == ["AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26"]
    for place in ("features", "runs", "runs/tcn-au/predictions.csv", "videos", "annotations"):
        assert (project.folder / place).exists()


def test_run_again_it_repeats_nothing(demo: tuple[Project, str]) -> None:
    project, out = demo
    again = Project(project.folder.parent, project.environment).run("demo", "d", *SIZE)
    assert again.code == 0
    assert "is drawn already" in again.err
    assert "nothing to do" in again.err
    assert again.err.count("is trained already") == 2
    assert [line for line in again.out.splitlines() if line.startswith(("AU", "mean"))] == [
        line for line in out.splitlines() if line.startswith(("AU", "mean"))
    ]
    other = Project(project.folder.parent, project.environment).run("demo", "d", "--recordings", "5")
    assert other.code == 2
    assert "another demo" in other.err


def test_a_run_predicts_every_frame_and_its_score_can_be_had_again(demo: tuple[Project, str]) -> None:
    project, _ = demo
    run = "runs/tcn-au"
    trained = json.loads((project.folder / run / "run.json").read_text())
    scored = json.loads(project.run("evaluate", run, "--json").out)
    assert scored["mean"] == pytest.approx(trained["scores"]["mean"], abs=1e-6)
    answer = project.run("predict", run, "--split", "validation", "--format", "abaw", "--out", "sub.txt")
    assert answer.code == 0, answer.err
    lines = (project.folder / "sub.txt").read_text().splitlines()
    assert lines[0].startswith("image_location,AU1,")
    assert len(lines) == 1 + sum(1 for line in lines[1:] if "/00" in line)
    assert len(lines) - 1 == 50 * len(trained["validation"])
    assert project.run("predict", run, "--format", "tracks", "--out", "tracks").code == 0
    for track in Path(project.folder / "tracks").iterdir():
        assert len(track.read_text().splitlines()) == 51


def test_training_on_what_is_not_stored_says_which_line_makes_it(demo: tuple[Project, str]) -> None:
    project, _ = demo
    encoder = '\n[[encoder]]\nname="fine"\nkind="hog"\nmodality="visual"\ncell_px=8\n'
    file = project.folder / "aupipe.toml"
    before = file.read_text()
    file.write_text(before.replace("[train]", encoder + "[train]"))
    answer = project.run("train", "--feature", "fine")
    file.write_text(before)
    assert answer.code == 2
    assert "fine" in answer.err
    assert "aupipe extract" in answer.err
