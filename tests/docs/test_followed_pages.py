"""README, the tutorial and the how-tos, followed line by line in a folder of one's own, as a reader types them.

Other pages have tests that name them: `tests/cli/test_check.py`, `tests/cli/test_cluster_page.py`, `tests/report`, ...
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aupipe.demo import draw_corpus
from aupipe.store import open_store
from aupipe.tasks import AU_NAMES
from tests.docs.blocks import ROOT, Block, Reader, blocks_of, shape_of

pytestmark = pytest.mark.slow
DOCS = ROOT / "docs"
CORPUS = {"recordings": 3, "seconds": 2.4, "seed": 5}
# Picture of the docs -> the file that the tutorial makes. AUPIPE_PUBLISH_PICTURES=1 copies them when they have changed.
PICTURES = {
    "preview.jpg": "demo-003-preview.jpg",
    "scores.svg": "runs/tcn-au/report/figures/scores.svg",
    "predictions.svg": "predictions.svg",
}
PUBLISH = bool(os.environ.get("AUPIPE_PUBLISH_PICTURES"))  # read now: tests see no such variable


def typed(path: Path, count: int) -> list[Block]:
    """The blocks of a page that are run, of which there are so many."""
    found = [block for block in blocks_of(path) if block.language in ("bash", "python")]
    assert len(found) == count, path
    return found


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "reader")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with three drawn videos."""
    draw_corpus(tmp_path / "project", **CORPUS)
    return tmp_path / "project"


def configure(project: Path, block: Block) -> None:
    """Put the tables of a block into aupipe.toml, in place of those that are there."""
    file = project / "aupipe.toml"
    text = file.read_text()
    for table in re.findall(r"^\[(\w+)\]$", block.text, re.MULTILINE):
        text = re.sub(rf"^\[{table}\]\n(?:(?!\[).*\n)*", "", text, flags=re.MULTILINE)
    file.write_text(f"{text}\n{block.text}")


def one(path: Path, language: str) -> Block:
    (found,) = [block for block in blocks_of(path) if block.language == language]
    return found


def test_the_first_part_of_the_readme_works_as_it_stands(reader: Reader, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "aupipe"):
        (clone / name).symlink_to(ROOT / name)
    offline = "--dry-run --no-index --no-deps --no-build-isolation --disable-pip-version-check"
    pip = reader.path / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{reader.path}/bin/python" -m pip "$@" {offline}\n')
    pip.chmod(0o755)
    blocks = [block for block in blocks_of(ROOT / "README.md") if block.language in ("bash", "python", "text")]
    said = reader.follow([block for block in blocks[:5] if block.language != "text"], clone)
    assert {shape_of(line) for line in blocks[2].text.splitlines()} <= {shape_of(line) for line in said.splitlines()}
    assert (clone / "aupipe-demo" / "demo-003-preview.jpg").is_file()


def test_the_tutorial_works_as_it_stands_and_makes_each_of_its_pictures(reader: Reader, tmp_path: Path) -> None:
    reader.follow(typed(DOCS / "tutorial.md", 10), tmp_path)
    made = tmp_path / "aupipe-demo"
    assert (made / "eaf").is_dir()
    for picture, name in PICTURES.items():
        assert (made / name).stat().st_size > 5000, name
        if PUBLISH:
            publish(made / name, DOCS / "pictures" / picture)


def publish(made: Path, picture: Path) -> None:
    """Copy a file as a picture of the docs; photographs are made small."""
    if picture.suffix != ".jpg":
        shutil.copyfile(made, picture)
        return
    whole = Image.open(made)
    whole.resize((whole.width * 3 // 4, whole.height * 3 // 4)).save(picture, quality=60, optimize=True)


def test_own_data_works_as_it_stands(reader: Reader, project: Path) -> None:
    page = DOCS / "howto" / "own-data.md"
    first, last = typed(page, 2)
    with (project / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("recording", "time_s", "calm", "tense"))
        for number in (1, 2, 3):
            for time in np.arange(0, 2.4, 0.1):
                rows.writerow((f"demo-00{number}.mp4", f"{time:.2f}", f"{np.sin(time + number):.3f}", 0.1 * number))
    shutil.rmtree(project / "annotations")  # the folder of somebody who has videos alone
    reader.follow([first], project)
    configure(project, one(page, "toml"))
    reader.follow([last], project)
    table = list(csv.DictReader((project / "predictions.csv").open()))
    assert len(table) == 60
    assert {"calm", "tense"} < set(table[0])


def test_aff_wild2_works_as_it_stands(reader: Reader, project: Path) -> None:
    lists = project / "names_of_videos_in_each_test_set"
    lists.mkdir()
    (lists / "Action_Unit_Detection_Challenge_test_set_release.txt").write_text("demo-001\n")
    for path in (project / "annotations").rglob("demo-001.txt"):
        path.unlink()
    extra = draw_corpus(project.parent / "more", recordings=2, seconds=2.4, seed=6)  # two folds need two people
    for number, video in enumerate(extra.videos):
        video.rename(project / "videos" / f"more-{number}.mp4")
        source = next((extra.root / "annotations" / "AU_Detection_Challenge").rglob(f"{video.stem}*.txt"))
        (project / "annotations" / "AU_Detection_Challenge" / "Train_Set" / f"more-{number}.txt").write_text(
            source.read_text()
        )
    rows = [f"demo-001/{frame:05d}.jpg,{','.join('0' * len(AU_NAMES))}" for frame in range(1, 51)]
    (project / "sample.txt").write_text("\n".join([f"image_location,{','.join(AU_NAMES)}", *rows]) + "\n")
    said = reader.follow(typed(DOCS / "howto" / "affwild2.md", 3), project)
    assert "its rows are those of sample.txt" in said
    assert len((project / "submission.txt").read_text().splitlines()) == 51


def test_wrong_person_and_sharing_work_as_they_stand(reader: Reader, project: Path) -> None:
    (project / "videos" / "demo-001.mp4").rename(project / "videos" / "clip.mp4")
    shutil.rmtree(project / "annotations")
    reader.follow([Block("", 0, "bash", "aupipe init\naupipe extract --cpu\n")], project)
    reader.follow(typed(DOCS / "howto" / "share.md", 1), project)
    shown = {path.suffix for path in (project / "shared").rglob("*") if path.is_file()}
    assert not shown & {".jpg", ".mp4", ".png"}
    page = DOCS / "howto" / "wrong-person.md"
    first, second = typed(page, 2)
    reader.follow([first], project)
    configure(project, one(page, "toml"))
    reader.follow([second], project)
    names = [spec.name for spec in open_store(project / "features").features()]
    assert (names.count("detections"), names.count("faces"), names.count("hog"), names.count("mfcc")) == (1, 2, 2, 1)


def test_an_offline_machine_works_as_it_stands(reader: Reader, tmp_path: Path) -> None:
    said = reader.follow(typed(DOCS / "howto" / "offline.md", 3), tmp_path)
    assert "backbone.pth" in said


def test_an_executor_works_as_it_stands(reader: Reader, project: Path) -> None:
    reader.follow([Block("", 0, "bash", "aupipe init\n")], project)
    said = reader.follow(typed(DOCS / "howto" / "executor.md", 1), project)
    lines = sorted(line for line in said.splitlines() if line.startswith("demo-"))  # the largest video is the first
    assert lines == [f"demo-00{n} done" for n in (1, 2, 3)]
