"""Damage of the media is part of what every command says of an item."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aupipe.cli import cli
from aupipe.store import open_store
from tests.cli.conftest import Project
from tests.cli.test_train import SMALL, Folder, fill
from tests.conftest import write_video
from tests.extract.mutations import write_clip
from tests.extract.test_long_sound import write_sound

CONFIG = """
[dataset]
layout = "folder"
videos = "videos"
[store]
path = "features"
[faces]
detector = "none"
[[encoder]]
name = "hog"
modality = "visual"
kind = "hog"
[[encoder]]
name = "level"
modality = "audio"
kind = "level"
"""
NAME, SHOWN = "cut\x1b[1m.mp4", "cut\\x1b[1m.mp4"  # a name that would steer a terminal


@pytest.fixture
def bare(tmp_path: Path) -> Project:
    """A project that needs no weights: a whole video, and one whose end is cut off."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    project = Project(tmp_path, environment)
    project.configure(CONFIG)
    write_video(tmp_path / "videos" / "whole.mp4", tone_hz=300)
    cut = write_clip(tmp_path, "mp4").read_bytes()
    (tmp_path / "videos" / NAME).write_bytes(cut[: len(cut) * 2 // 3])
    return project


def ask(*arguments: str) -> str:
    """What a command that reads the store says, in this process."""
    answer = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    return answer.stdout


def test_every_command_says_which_items_come_from_damaged_media(bare: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    said = bare.run("extract", "--cpu")
    assert said.code == 0, said.err
    assert "damaged 1" in said.out
    assert f"damaged  {SHOWN}: video: " in said.out
    assert "frames of 60 missing" in said.out
    assert "\x1b" not in said.out

    store = open_store(bare.folder / "features")
    damaged = {(record.recording, record.feature.partition("@")[0]) for record in store.damaged()}
    assert damaged == {(NAME, "clock"), (NAME, "hog"), (NAME, "level")}
    monkeypatch.chdir(bare.folder)
    lines = ask("status", "--damaged").splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["damaged", "1", "1"]
    assert any(line.startswith(f"damaged  {SHOWN}: video: ") for line in lines)
    features = json.loads(ask("status", "--json"))["features"].values()
    assert [[entry["recording"] for entry in feature["damaged"]] for feature in features] == [[NAME], [NAME]]
    assert ["damaged: video" in line for line in ask("store", "ls", "hog").splitlines()] == [True, False]
    assert [row["damaged"] for row in json.loads(ask("inspect", "--json"))["features"]] == [1, 1, 1]
    assert "damaged  video: " in ask("inspect", NAME)
    assert all("damage" in row for row in json.loads(ask("inspect", NAME, "--json"))["features"])


def test_what_is_odd_in_sound_is_in_the_record_and_every_command_says_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")}
    project = Project(tmp_path, environment)
    encoders = [("level", ""), ("level", 'align = "mean"\nalign_s = 2.0')]  # they read the sound up to different ends
    tables = (
        f'[[encoder]]\nname = "a{number}"\nmodality = "audio"\nkind = "{kind}"\n{more}\n'
        for number, (kind, more) in enumerate(encoders)
    )
    project.configure('[dataset]\nvideos = "videos"\n[store]\npath = "features"\n' + "".join(tables))
    write_video(tmp_path / "videos" / "whole.mp4", tone_hz=300)
    voice = (9000 * np.sin(np.arange(100 * 16000) / 10)).astype(np.int16)
    blocks = (
        (start / 16000, np.stack([voice, -voice])[:, start : start + 1600]) for start in range(0, 90 * 16000, 3200)
    )
    write_sound(tmp_path / "videos" / "odd.mkv", blocks, layout="stereo", frames=25)

    said = project.run("extract", "--cpu")
    assert said.code == 0, said.err
    notes = ["pauses between packets of sound filled with silence", "channels out of phase, their mean loses 99.9 %"]
    assert [said.err.count(note) for note in notes] == [1, 1], said.err
    monkeypatch.chdir(tmp_path)
    assert "1 video with notes on the media: aupipe status --notes" in ask("status")
    lines = [line for line in ask("status", "--notes").splitlines() if line.startswith("note  ")]
    assert all(any(note in line for line in lines) for note in notes)
    assert all(line.startswith("note  odd.mkv: audio: ") for line in lines)
    assert list(json.loads(ask("status", "--json"))["notes"]) == ["odd.mkv"]
    assert "note  audio: channels out of phase" in ask("inspect", "odd.mkv")
    rows = json.loads(ask("inspect", "odd.mkv", "--json"))["features"]
    (row, _) = [row for row in rows if row["feature"].startswith("a")]
    assert row["media"]["audio"]["cancelled"] == 1.0


@pytest.mark.slow
def test_damage_is_a_failure_where_the_user_says_so_and_can_be_taken_back(bare: Project) -> None:
    refused = bare.run("extract", "--cpu", "--on-damage", "fail")
    assert refused.code == 3, refused.err
    assert f"FAILED  {SHOWN}  hog, level: " in refused.out
    assert "frames of 60 missing" in refused.out
    store = open_store(bare.folder / "features")
    assert {record.recording for record in store.all_published()} == {"whole.mp4"}
    features = {record.feature for record in store.all_published()}

    kept = bare.run("extract", "--cpu", "--on-damage", "keep", "--retry-failed", "--json")
    assert kept.code == 0, kept.err
    *items, summary = kept.json()
    assert (summary["damaged"], summary["failed"]) == (1, 0)
    assert {item["recording"] for item in items} == {NAME}
    for item in items:
        assert "frames of 60 missing" in item["damage"]
        assert item["media"]["video"]["frames"] == item["frames"]
    store.refresh()
    assert {record.feature for record in store.all_published()} == features  # it is no part of a feature's key
    assert len(list(store.damaged())) == 3


def test_training_names_the_recordings_that_come_from_damaged_media(tmp_path: Path) -> None:
    fill(tmp_path)
    store = open_store(tmp_path / "features")
    (spec,) = store.features()
    for name in ("clip1", "duo_left", "clip3", "v0"):
        record, rows = store.published(name, spec.id), np.array(store.read(name, spec.id))
        with store.writer(name, spec, frames=len(rows), row_shape=rows.shape[1:], source=record.source) as item:
            item.append(rows)
            item.commit(damage="video: 3 frames of 93 missing")
    store.close()
    folder = Folder(tmp_path)
    asked = ("train", "--recipe", "tcn", "--feature", "hog", *SMALL, "--set", "epochs=1")
    said = folder.ask(*asked, "--out", "runs/a", "--json")
    assert "4 of 10 recordings come from damaged media (clip1, clip3, duo_left, ...): aupipe status --damaged" in said
    document = json.loads(said.splitlines()[-1])
    assert set(document["damaged"]) == {"clip1", "clip3", "duo_left", "v0"}
    assert document["damaged"]["v0"] == "video: 3 frames of 93 missing"
