"""What people type is taken: files for recordings, -v behind a command; and what is printed for them can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from aupipe.cli import cli
from aupipe.cli.options import given_command
from aupipe.files import as_argument
from aupipe.store import create_store
from aupipe.types import FeatureSpec
from tests.cli.test_train import Folder

HOG = FeatureSpec("hog", "visual", "hog", 1, {}, None, "float16", {})
ODD = ("my clip.mp4", "-1.mp4", "$HOME.mp4", "it's.mp4", "a;b&c|d.mp4", "ü 你.mp4", "--gpu", "*?.mp4")


@pytest.fixture
def project(tmp_path: Path) -> Folder:
    """A Zarr store of two recordings, beside their videos and a configuration."""
    for name in ("day1/a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(name.encode())
    (tmp_path / "aupipe.toml").write_text('[dataset]\nvideos = "videos"\n')
    with create_store(tmp_path / "features", "zarr") as store:
        for name in ("day1/a.mp4", "b.mp4"):
            store.publish(name, HOG, np.ones((5, 3), np.float16))
    return Folder(tmp_path)


def test_a_recording_is_named_by_its_id_or_by_its_file(project: Folder) -> None:
    said = project.ask("inspect", "day1/a.mp4")
    assert said.startswith("day1/a.mp4 in ")
    for name in ("./videos/day1/a.mp4", "videos/../videos/day1/a.mp4", project.path / "videos" / "day1" / "a.mp4"):
        assert project.ask("inspect", name) == said
    assert "no item of './videos/c.mp4' in " in project.ask("inspect", "./videos/c.mp4", code=2)
    for command in (("check",), ("preview",), ("report", "data")):
        assert "no recording './videos/c.mp4' in this" in project.ask(*command, "./videos/c.mp4", code=2)


def test_a_file_beside_a_store_without_a_configuration_is_its_recording(project: Folder) -> None:
    (project.path / "aupipe.toml").unlink()
    (project.path / "features").rename(project.path / "videos" / "features")
    said = project.ask("inspect", "--store", "videos/features", "videos/day1/a.mp4")
    assert said.startswith("day1/a.mp4 in ")


def test_both_recordings_of_a_video_are_those_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "duo.mp4").write_bytes(b"x")
    for side in ("left", "right"):
        (tmp_path / "cropped_aligned" / f"duo_{side}").mkdir(parents=True)
    (tmp_path / "aupipe.toml").write_text('[dataset]\nlayout = "affwild2"\n')
    create_store(tmp_path / "features", "zarr").close()
    said = Folder(tmp_path).ask("overlay", "./videos/duo.mp4", code=2)
    assert said == "./videos/duo.mp4 has several recordings, name one: duo_left, duo_right"


@pytest.mark.parametrize("command", [("status",), ("inspect",), ("store", "ls"), ("extract", "--dry-run"), ("check",)])
def test_another_backend_in_the_file_than_that_of_its_store_is_refused(
    project: Folder, command: tuple[str, ...]
) -> None:
    file = project.path / "aupipe.toml"
    file.write_text('[dataset]\nvideos = "videos"\n[store]\npath = "features"\nbackend = "hdf5"\n')
    said = project.ask(*command, code=2)
    assert said.startswith(
        f'{project.path / "features"} is a zarr store, and backend = "hdf5" ({file}): set "zarr", or '
    )
    (printed,) = re.findall("`aupipe ([^`]+)`", said)
    assert "2 items" in project.ask(*shlex.split(printed))
    assert "hog@" in project.ask("inspect", "--store", "features")  # not the store of the file


def test_predict_without_a_run_says_what_is_missing(project: Folder) -> None:
    said = project.ask("predict", "my clip.mp4", code=2)
    expected = "my clip.mp4: no trained model, which stands first: `aupipe predict RUN 'my clip.mp4'`; "
    assert said == expected + "`aupipe train` makes one"
    (project.path / "runs" / "one").mkdir(parents=True)
    (project.path / "runs" / "one" / "train.json").write_text("{}")
    assert project.ask("predict", "my clip.mp4", code=2) == expected + "trained: runs/one"


def leaves(command: click.Command) -> Iterator[click.Command]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from leaves(below)


def test_more_is_logged_wherever_v_stands_on_the_line(project: Folder) -> None:
    assert [one.name for one in leaves(cli) if not any("-v" in each.opts for each in one.params)] == []
    for line in (("-v", "store", "ls"), ("store", "-v", "ls"), ("store", "ls", "-v"), ("store", "ls", "hog", "-vv")):
        project.ask(*line)


@pytest.mark.parametrize("name", ODD)
def test_a_command_that_is_printed_says_the_same_when_it_is_typed(name: str) -> None:
    seen = []

    @click.command()
    @click.argument("videos", nargs=-1)
    @click.option("--list")
    @click.option("--feature", multiple=True)
    @click.option("--cpu", is_flag=True)
    def command(**given: object) -> None:
        seen.append((given, given_command("aupipe extract", leave_out=())))

    words = ["--cpu", "--list", name, "--feature", "a b", "--feature", name, "--", "plain.mp4", name]
    for _ in range(2):
        result = CliRunner().invoke(command, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        words = shlex.split(seen[-1][1])[2:]
    assert seen[0] == seen[1]
    assert seen[0][0]["videos"] == ("plain.mp4", name)
    assert shlex.split(as_argument(name)) == [f"./{name}" if name.startswith("-") else name]
