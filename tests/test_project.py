"""aupipe from Python: `aupipe.extract`, `aupipe.train`, a project and its store, by the names people guess."""

from __future__ import annotations

import inspect
import io
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aupipe
from aupipe.cli import cli
from aupipe.commands import extract, train
from aupipe.errors import NoStoreError, UsageError, WeightsMissingError
from aupipe.extract.planning.features import build_feature_set
from aupipe.store import create_store
from tests.cli.conftest import HOG, LEVEL, NO_FACES, Project
from tests.cli.test_train import CONFIG, fill
from tests.conftest import write_video


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_importing_aupipe_takes_no_library_and_the_names_are_there() -> None:
    code = """
import sys, aupipe
print({"torch", "numpy", "cv2", "click"} & set(sys.modules))
print({"extract", "train", "open_store", "load_project", "load_run"} <= set(dir(aupipe)))
print(callable(aupipe.extract), callable(aupipe.train), aupipe.open_store.__name__)
from aupipe import extract, train
from aupipe.extract.media import clock
print(aupipe.extract is extract, aupipe.extract.media.clock is clock)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["set()", "True", "True True open_store", "True True"]


def test_the_packages_have_the_signature_of_the_functions() -> None:
    assert inspect.signature(aupipe.extract) == inspect.signature(extract)
    assert inspect.signature(aupipe.train) == inspect.signature(train)


@pytest.mark.parametrize(("function", "command"), [(extract, "extract"), (train, "train")])
def test_every_named_argument_is_an_option_of_the_command(function: object, command: str) -> None:
    flags = {opt.lstrip("-").replace("-", "_") for one in cli.commands[command].params for opt in one.opts}
    named = {name for name, one in inspect.signature(function).parameters.items() if one.kind != one.VAR_KEYWORD}
    assert named <= flags | {"videos"}


def test_extract_does_what_the_command_does_and_prints_nothing(project: Path, capsys: pytest.CaptureFixture) -> None:
    (project / "aupipe.toml").write_text(NO_FACES + HOG + LEVEL)
    write_video(project / "videos" / "a.mp4", frames=5, tone_hz=440)
    (project / "videos" / "broken.mp4").write_text("no video")
    planned = aupipe.extract(feature=["hog", "level"], cpu=True, dry_run=True)
    assert {item["state"] for item in planned.rows[0]["items"]} == {"new"}
    with pytest.raises(NoStoreError):
        planned.store  # noqa: B018
    done = aupipe.extract(feature=["hog", "level"], cpu=True)
    assert (done.exit_code, done.summary["done"], done.summary["failed"]) == (3, 2, 2)
    assert {recording for recording, _ in done.failed} == {"broken.mp4"}
    assert all(done.failed.values())
    assert done.store.recordings() == ["a.mp4"]
    assert done.store["hog"]["a.mp4"].shape[0] == 5
    again = aupipe.extract(project / "videos" / "a.mp4", cpu=True)
    assert (again.exit_code, again.summary["already_done"], again.failed) == (0, 2, {})
    assert capsys.readouterr().out == ""


def test_a_list_that_can_be_read_only_once_is_read_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(project / "videos" / "a.mp4", frames=5)
    config = project / "other.toml"
    config.write_text('[dataset]\nvideos = "videos"\n[store]\npath = "elsewhere"\n' + NO_FACES + HOG)
    monkeypatch.setattr(sys, "stdin", io.StringIO("videos/a.mp4\n"))
    planned = aupipe.extract(from_list="-", cpu=True, dry_run=True, config=config)
    assert planned.path == project / "elsewhere"
    assert {item["recording"] for item in planned.rows[0]["items"]} == {"a.mp4"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detect_evry": 5}, "Did you mean 'detect_every'"),
        ({"batch_size": "many"}, "--batch-size many"),
        ({"modality": "visul"}, "Did you mean 'visual'"),
        ({"on_damage": "ignore"}, "on-damage"),
        ({"gpu": [0, 1], "cpu": True, "dry_run": True}, "no folder"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(project: Path, options: dict, words: str) -> None:
    (project / "aupipe.toml").write_text(NO_FACES + HOG)
    with pytest.raises(UsageError, match=words) as found:
        aupipe.extract(**options)
    assert "\n" not in str(found.value)


def test_train_returns_what_it_has_trained(project: Path, capsys: pytest.CaptureFixture) -> None:
    (project / "aupipe.toml").write_text(CONFIG)
    fill(project)
    settings = {"epochs": 2, "window": 32, "hop": 32, "batch": 8, "optimiser.lr": 1e-3}
    made = aupipe.train("baseline", task="au", feature="hog", set=settings, cpu=True, out=project / "runs" / "one")
    assert made.path == project / "runs" / "one"
    assert made.model.runs[0].recipe.epochs == 2
    assert made.model.runs[0].recipe.optimiser.lr == 1e-3
    assert list(made.model.runs[0].features) == ["hog"]
    assert made.scores == json.loads(json.dumps(made.model.runs[0].scores.to_json()))
    assert aupipe.load_run(made.path).id == made.model.id
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        aupipe.train("baseline", task="au", set={"epoch": 2}, cpu=True)


def test_a_project_gives_its_recordings_labels_and_store(project: Path) -> None:
    (project / "aupipe.toml").write_text(CONFIG)
    fill(project)
    found = aupipe.load_project(project / "videos")
    assert len(found.recordings) == 10
    labels = found.labels("au", "validation")
    assert sorted(labels) == ["v0", "v1", "v2"]
    with pytest.raises(UsageError, match="no split 'training': train, validation or test"):
        found.labels("au", "training")
    assert len(labels["v0"]) == len(found.store["hog"]["v0"])
    assert aupipe.load_project(project / "aupipe.toml").config == found.config
    with pytest.raises(UsageError, match="aupipe init"):
        aupipe.load_project("/")


def test_a_name_that_several_features_have_is_that_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "aupipe.toml").write_text(NO_FACES + HOG)
    write_video(project / "videos" / "a.mp4", frames=3)
    opened = aupipe.load_project()
    spec = build_feature_set(opened.config).graph(opened.recordings[0]).named["hog"]
    old = replace(spec, version=spec.version + 1)
    store = create_store(project / "features")
    for each, value in ((spec, 1), (old, 2)):
        store.publish("a.mp4", each, np.full((3, 4), value, np.float16))
    for reader in (opened.store, aupipe.open_store("features")):
        assert reader["hog"].spec == spec
        assert reader.to_frame(["hog"])["hog.0"].tolist() == [1, 1, 1]
        assert reader[old.id]["a.mp4"][0, 0] == 2
        assert set(reader) == {spec.id, old.id}
        monkeypatch.setattr("aupipe.dataset.open_dataset", None)  # is not listed again, nor in another process
        assert pickle.loads(pickle.dumps(reader))["hog"].spec == reader["hog"].spec == spec
        monkeypatch.undo()
        monkeypatch.chdir(project)
    with pytest.raises(KeyError, match="several features are named 'hog'"):
        store["hog"]
    (project / "aupipe.toml").write_text(NO_FACES + HOG + "cell_px = 28\n")
    with pytest.raises(KeyError, match="several features are named 'hog'"):
        aupipe.open_store("features")["hog"]


def test_an_encoder_that_was_renamed_is_found_by_its_old_and_its_new_name(project: Path) -> None:
    (project / "aupipe.toml").write_text(NO_FACES + HOG)
    write_video(project / "videos" / "a.mp4", frames=3)
    opened = aupipe.load_project()
    spec = build_feature_set(opened.config).graph(opened.recordings[0]).named["hog"]
    create_store(project / "features").publish("a.mp4", spec, np.ones((3, 4), np.float16))
    (project / "aupipe.toml").write_text(NO_FACES + HOG.replace('name = "hog"', 'name = "edges"'))
    user = Project(project, {name: value for name, value in os.environ.items() if not name.startswith("AUPIPE_")})
    for name in ("hog", "edges"):
        assert aupipe.load_project().store[name].spec.id == aupipe.open_store("features")[name].spec.id == spec.id
        listed = user.run("store", "ls", name)
        assert (listed.code, listed.out.split()[0]) == (0, spec.id), listed.err
    assert f"{spec.id} is named by" in user.run("store", "rm", "edges", "--dry-run").err
    assert user.run("store", "ls", "corners").code == 2


def test_missing_weights_are_raised_before_anything_is_decoded(project: Path) -> None:
    (project / "aupipe.toml").write_text('[[encoder]]\nname = "x"\nkind = "arcface"\nmodality = "visual"\n' + NO_FACES)
    write_video(project / "videos" / "a.mp4", frames=3)
    with pytest.raises(WeightsMissingError):
        aupipe.extract(cpu=True)
    assert not (project / "features").exists()
