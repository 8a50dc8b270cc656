"""`aupipe config show`: every value in use, and where it is from."""

from __future__ import annotations

import json
import tomllib
from itertools import takewhile
from pathlib import Path

import pytest

from aupipe.store import create_store
from aupipe.task_tables import read_tasks
from tests.cli.conftest import HOG, NO_FACES, Project
from tests.cli.test_train import Folder

CONFIG = """
[dataset]
videos = "videos"
[[task]]
name = "pain"
kind = "classes"
names = ["no", "yes"]
folder = "pain"
[detector]
kind = "mtcnn"
[[encoder]]
name = "hog"
modality = "visual"
kind = "hog"
cell_px = 14
"""


@pytest.mark.parametrize("text", ["", CONFIG], ids=["defaults", "tables"])
def test_every_value_in_use_is_shown_with_where_it_is_from(tmp_path: Path, text: str) -> None:
    folder, file = Folder(tmp_path), tmp_path / "aupipe.toml"
    file.write_text(text)
    (tmp_path / "videos").mkdir()
    shown = json.loads(folder.ask("config", "show", "--json"))
    lines = folder.ask("config", "show").splitlines()
    assert shown["dataset.videos"]["origin"] == (str(file) if text else "default")
    assert shown["dataset.tasks"]["origin"] == (str(file) if text else "default")
    assert shown["store.backend"] == {"value": "zarr", "origin": "default"}
    assert {line.split()[0] for line in lines} >= set(shown) - {"encoder", "message_type"}
    assert [encoder["name"] for encoder in shown["encoder"]][:1] == ["hog"]


TASKS = """
[[task]]
name = "pain"
kind = "intensity"
names = ["level, by \\"PSPI\\""]
file = "labels.csv"
tolerance_s = 0.1
high = 16
[[task]]
name = "scored"
kind = "regression"
names = ["z"]
file = "z.csv"
low = -3
high = 3
metric = "PCC"
[[task]]
name = "mood"
kind = "classes"
names = ["no", "yes"]
folder = "mood"
invalid = -5
"""


def test_label_sets_are_shown_as_toml_that_can_be_written(project: Project) -> None:
    project.configure(HOG + TASKS)
    answer = project.run("config", "show")
    lines = answer.out.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("dataset.tasks"))
    at = lines[first].index("[[task]]")
    rest = list(takewhile(lambda line: line.startswith(" " * at), lines[first + 1 :]))
    written = tomllib.loads("\n".join(["[[task]]", *(line[at:] for line in rest)]))["task"]
    given = read_tasks(tomllib.loads(TASKS)["task"], "", project.folder)
    assert read_tasks(written, "", project.folder) == given
    shown = json.loads(project.run("config", "show", "--json").out)
    assert read_tasks(shown["dataset.tasks"]["value"], "", project.folder) == given


REFUSED = {
    "no encoder": ("encoder = []", 2),
    "parameter of an encoder": (HOG + "cell = 14", 2),
    "kind": (HOG.replace('kind = "hog"', 'kind = "hogg"'), 2),
    "detector": ('[faces]\ndetector = "yunett"\n' + HOG, 2),
    "weights": ('[faces]\ndetector = "yunet"\n' + HOG, 12),
    "folder": ('[dataset]\nvideos = "vidoes"\n' + HOG, 2),
    "file as folder": ('[dataset]\nvideos = "aupipe.toml"\n' + HOG, 2),
    "tree": ('[dataset]\nlayout = "affwild2"\nroot = "there"\n' + HOG, 2),
    "published": ('[dataset]\nlayout = "disfa"\n' + HOG, 2),
    "parts": ('[dataset]\nlayout = "joint"\nparts = ["videos"]\n' + HOG, 2),
    "part": ('[dataset]\nlayout = "joint"\nparts = ["one", "two"]\n' + HOG, 2),
    "store": ('[store]\npath = "videos"\n' + NO_FACES + HOG, 2),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_extract_refuses_is_shown_and_refused_with_the_same_line(project: Project, case: str) -> None:
    text, code = REFUSED[case]
    project.configure(text)
    (project.folder / "videos" / "a.mp4").touch()
    extracted = project.run("extract", "--dry-run")
    assert extracted.code == code
    for as_json in (), ("--json",):
        shown = project.run("config", "show", *as_json)
        assert (shown.code, shown.err) == (code, extracted.err)
        assert "dataset.videos" in shown.out


def test_a_store_of_another_backend_is_refused_as_by_extract(project: Project) -> None:
    create_store(project.folder / "features", "hdf5")
    project.configure('[store]\nbackend = "zarr"\n' + NO_FACES + HOG)
    (project.folder / "videos" / "a.mp4").touch()
    extracted = project.run("extract", "--dry-run", AUPIPE_STORE_BACKEND="zarr")
    shown = project.run("config", "show", AUPIPE_STORE_BACKEND="zarr")
    assert (shown.code, shown.err) == (extracted.code, extracted.err)
    assert shown.code == 2


def test_a_configuration_is_shown_without_videos(project: Project) -> None:
    project.configure(NO_FACES + HOG)
    assert project.run("config", "show").code == 0
    (project.folder / "aupipe.toml").unlink()
    (project.folder / "videos").rmdir()
    assert project.run("config", "show").code == 0  # defaults: videos are given to extract
