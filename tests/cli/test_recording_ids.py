"""An id names one recording: a folder of the data set is a selection of it, and no other file takes its place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.extract.engine.options import ExecutionOptions
from aupipe.extract.executors.driver import extract
from aupipe.extract.executors.local import local_executor
from aupipe.extract.planning.features import build_feature_set
from aupipe.extract.planning.plan import make_plan
from aupipe.sources import source_identity
from aupipe.store import create_store, open_store
from aupipe.types import FeatureSpec
from tests.cli.test_train import Folder, write_annotations
from tests.conftest import write_video
from tests.store.contract import without_revisions

CONFIG = """
[dataset]
videos = "{videos}"
[faces]
detector = "none"
[[encoder]]
name = "hog"
modality = "visual"
kind = "hog"
"""


@pytest.fixture
def project(tmp_path: Path) -> Folder:
    """Two folders of a data set with a video of the same name each, and another data set beside it."""
    for folder, content in (("videos/part1", b"one"), ("videos/part2", b"other"), ("elsewhere", b"a stranger")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mp4").write_bytes(content)
    (tmp_path / "aupipe.toml").write_text(CONFIG.format(videos="videos"))
    return Folder(tmp_path)


def planned(folder: Folder, *arguments: str) -> dict[str, str]:
    """Recording -> state of what `extract` would do."""
    said = folder.ask("extract", *arguments, "--dry-run", "--json")
    return {row["recording"]: row["state"] for row in json.loads(said[said.index("{") :])["items"]}


def publish(folder: Folder, config: str = "aupipe.toml", store: str = "features") -> None:
    """Fill the store as extracting a configuration would."""
    dataset = open_dataset(load_config(folder.path / config).dataset)
    parts = build_feature_set(load_config(folder.path / config))
    with create_store(folder.path / store, "zarr") as opened:
        for recording in dataset.recordings:
            ((spec, _),) = parts.graph(recording).encoders
            assert recording.video is not None
            opened.publish(recording.id, spec, np.ones((5, 1764), np.float16), source=source_identity(recording.video))


def test_the_videos_of_two_folders_of_a_data_set_are_two_recordings(tmp_path: Path) -> None:
    """Through the whole of extraction, as a user types it; the first folder has been extracted before."""
    write_video(tmp_path / "videos" / "part1" / "a.mp4", frames=5)
    (tmp_path / "aupipe.toml").write_text(CONFIG.format(videos="videos"))
    folder = Folder(tmp_path)
    assert planned(folder, "videos/part1") == {"part1/a.mp4": "new"}
    publish(folder)
    write_video(tmp_path / "videos" / "part2" / "a.mp4", frames=7)
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", "extract", "videos/part2", "--cpu"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    hog = open_store(tmp_path / "features")["hog"]
    assert {name: item.record.frames for name, item in hog.items()} == {"part1/a.mp4": 5, "part2/a.mp4": 7}
    assert "nothing to do: 2 items stored" in folder.ask("extract", "--cpu")
    assert "nothing to do: 1 item stored" in folder.ask("extract", "videos/part2", "--cpu")


@pytest.mark.parametrize("given", ["videos/part1", "./videos/../videos/part1/", "link", "ABSOLUTE"])
def test_a_folder_of_the_data_set_is_a_selection_however_it_is_written(project: Folder, given: str) -> None:
    (project.path / "link").symlink_to(project.path / "videos" / "part1")
    given = str(project.path / "videos" / "part1") if given == "ABSOLUTE" else given
    assert planned(project, given) == {"part1/a.mp4": "new"}


def test_the_ids_of_the_whole_data_set_and_of_other_folders_are_what_they_were(project: Folder) -> None:
    assert planned(project, "videos") == planned(project) == {"part1/a.mp4": "new", "part2/a.mp4": "new"}
    assert planned(project, "elsewhere") == {"a.mp4": "new"}
    (project.path / "aupipe.toml").unlink()
    assert planned(project, "videos/part1") == {"a.mp4": "new"}  # no data set is configured: the folder is one
    (project.path / "videos" / "empty").mkdir()
    (project.path / "aupipe.toml").write_text(CONFIG.format(videos="videos"))
    said = project.ask("extract", "videos/empty", "--cpu", code=2)
    assert "no recording of this data set is in videos/empty" in said


@pytest.mark.parametrize("given", ["videos/part1/a.mp4", "part1/a.mp4", "link.mp4", "ABSOLUTE"])
def test_a_video_of_the_data_set_is_a_selection_by_its_path_or_its_id(project: Folder, given: str) -> None:
    video = project.path / "videos" / "part1" / "a.mp4"
    (project.path / "link.mp4").symlink_to(video)
    assert planned(project, str(video) if given == "ABSOLUTE" else given) == {"part1/a.mp4": "new"}
    both = planned(project, given.replace("ABSOLUTE", str(video)), "videos/part2")
    assert both == {"part1/a.mp4": "new", "part2/a.mp4": "new"}


def test_videos_outside_of_a_data_set_need_no_configuration(project: Folder) -> None:
    (project.path / "aupipe.toml").unlink()
    (project.path / "elsewhere" / "notes.txt").write_text("no video")
    assert planned(project, "elsewhere/a.mp4") == {"a.mp4": "new"}
    assert planned(project, "elsewhere/a.mp4", "videos/part1/a.mp4") == {
        "elsewhere/a.mp4": "new",
        "videos/part1/a.mp4": "new",
    }
    assert project.ask("extract", "elsewhere/notes.txt", code=2) == "elsewhere/notes.txt is no video"
    assert project.ask("extract", "elsewhere/b.mp4", code=2) == "no file or folder elsewhere/b.mp4"


def test_ids_of_videos_in_several_folders_never_climb(project: Folder) -> None:
    (project.path / "aupipe.toml").unlink()
    (project.path / "here").mkdir()
    below = Folder(project.path / "here")
    assert planned(below, "../elsewhere/a.mp4", "../videos/part1/a.mp4") == {
        "elsewhere/a.mp4": "new",
        "videos/part1/a.mp4": "new",
    }


def test_a_video_of_a_part_is_a_recording_of_the_joint_data_set(project: Folder) -> None:
    for name, folder in (("one", "videos/part1"), ("two", "elsewhere")):
        (project.path / name).mkdir()
        (project.path / name / "aupipe.toml").write_text(CONFIG.format(videos=project.path / folder))
    (project.path / "aupipe.toml").write_text(
        CONFIG.replace('videos = "{videos}"', 'layout = "joint"\nparts = ["one", "two"]')
    )
    assert planned(project) == {"one/a.mp4": "new", "two/a.mp4": "new"}
    assert planned(project, "elsewhere/a.mp4") == planned(project, "two/a.mp4") == {"two/a.mp4": "new"}


def test_a_list_names_paths_and_ids_and_says_what_it_does_not_find(project: Folder) -> None:
    wanted = project.path / "lists" / "mine.txt"
    wanted.parent.mkdir()
    wanted.write_text("# those of Monday\n\npart2/a.mp4\n../videos/part1/a.mp4\n")
    assert planned(project, "--from-list", "lists/mine.txt") == {"part1/a.mp4": "new", "part2/a.mp4": "new"}
    wanted.write_text("part3/a.mp4\n")
    said = project.ask("extract", "--from-list", "lists/mine.txt", code=2)
    assert said.startswith("no recording of this data set is part3/a.mp4")
    wanted.write_text("# nothing\n")
    assert "names no video" in project.ask("extract", "--from-list", "lists/mine.txt", code=2)
    assert "No such file" in project.ask("extract", "--from-list", "lists/none.txt", code=2)
    wanted.write_text("part1/a.mp4\nelsewhere/a.mp4\n")
    said = project.ask("extract", "videos/part1", "--from-list", "lists/mine.txt", code=2)
    assert said == "videos/part1 is in the configured data set and elsewhere/a.mp4 is not: give them separately"


def test_a_folder_of_an_affwild2_tree_selects_its_tracks(tmp_path: Path) -> None:
    for batch, name in (("batch1", "duo"), ("batch2", "solo")):
        (tmp_path / batch).mkdir()
        (tmp_path / batch / f"{name}.mp4").write_bytes(name.encode())
    for track in ("duo_left", "duo_right", "solo"):
        write_annotations(tmp_path, "Train_Set", track, np.zeros((5, 12)))
    (tmp_path / "aupipe.toml").write_text(CONFIG.replace('videos = "{videos}"', 'layout = "affwild2"'))
    folder = Folder(tmp_path)
    assert set(planned(folder, "batch1")) == {"duo_left", "duo_right"}
    assert set(planned(folder, "batch2")) == {"solo"}


def indexed(folder: Folder) -> None:
    """As a store is once its journals have been merged."""
    with open_store(folder.path / "features") as store:
        store.compact()  # type: ignore[attr-defined]


@pytest.mark.parametrize("prepare", [lambda folder: None, indexed], ids=["journal", "index"])
def test_another_folders_file_never_takes_the_place_of_a_stored_one(
    project: Folder, prepare: Callable[[Folder], None]
) -> None:
    """By a folder outside of the data set, and by a configuration that names another."""
    (project.path / "part1.toml").write_text(CONFIG.format(videos="videos/part1"))
    (project.path / "part2.toml").write_text(CONFIG.format(videos="videos/part2"))
    publish(project, "part1.toml")
    prepare(project)
    for arguments, here in (
        (("elsewhere",), "elsewhere"),
        (("elsewhere", "--config", "part1.toml"), "elsewhere"),
        (("--config", "part2.toml"), "videos/part2"),
        (("elsewhere", "--store", "features", "--config", "part2.toml"), "elsewhere"),
    ):
        assert planned(project, *arguments) == {"a.mp4": "other file"}
        said = project.ask("extract", *arguments, "--cpu", code=2)
        assert said.startswith(f"a.mp4: the store has it from a file in {project.path}/videos/part1, which is not the ")
        assert f"the one in {project.path}/{here}. Give this one another --store" in said
        assert planned(project, *arguments, "--force") == {"a.mp4": "source changed"}
    store = open_store(project.path / "features")
    config = load_config(project.path / "part2.toml")
    plan = make_plan(open_dataset(config.dataset).recordings, build_feature_set(config), store)
    with pytest.raises(UsageError, match="which is not the one in"):
        next(extract(plan, store, local_executor(plan.parts, store.path, ["cpu"], ExecutionOptions())))
    assert "made from other files: 1 item, e.g. a.mp4" in project.ask("status", "--config", "part2.toml")


def test_a_moved_data_set_is_the_same_and_a_file_replaced_in_its_place_has_changed(project: Folder) -> None:
    publish(project)
    assert set(planned(project).values()) == {"done"}
    shutil.copytree(project.path / "videos", project.path / "moved")
    os.utime(project.path / "moved" / "part1" / "a.mp4", (1, 1))
    (project.path / "aupipe.toml").write_text(CONFIG.format(videos="moved"))
    assert set(planned(project).values()) == {"done"}
    (project.path / "aupipe.toml").write_text(CONFIG.format(videos="videos"))
    (project.path / "videos" / "part1" / "a.mp4").write_bytes(b"a new version")
    assert planned(project) == {"part1/a.mp4": "source changed", "part2/a.mp4": "done"}


def test_where_a_file_lay_is_no_part_of_the_item(project: Folder) -> None:
    """The same rows of the same file are the same bytes, wherever it lay."""
    shutil.copytree(project.path / "videos", project.path / "moved", copy_function=shutil.copy2)
    (project.path / "moved.toml").write_text(CONFIG.format(videos="moved"))
    publish(project)
    publish(project, "moved.toml", "other")

    first, second = (without_revisions(project.path / name) for name in ("features", "other"))
    assert first == second
    assert any(name.startswith("hog@") for name in first)


def test_inspect_knows_a_recording_by_the_path_of_its_video(project: Folder) -> None:
    file = project.path / "videos" / "part1" / "a.mp4"
    spec = FeatureSpec("hog", "visual", "hog", 1, {})
    with create_store(project.path / "features", "zarr") as store:
        store.publish("part1/a.mp4", spec, np.ones((4, 3), np.float32), source=source_identity(file))
        store.publish("part2/a.mp4", spec, np.zeros((4, 3), np.float32), source=source_identity(file))
    said = project.ask("inspect", "part1/a.mp4")
    for path in ("videos/part1/a.mp4", "./videos/part1/a.mp4", file):
        assert project.ask("inspect", path) == said
    assert "videos is of part1/a.mp4, part2/a.mp4: name one of them" in project.ask("inspect", "videos", code=2)
    assert "no item of 'elsewhere/a.mp4'" in project.ask("inspect", "elsewhere/a.mp4", code=2)
