"""A `train` command runs as it was given or is refused: an existing run with other settings is never its answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from aupipe.cli.train_request import read_request
from aupipe.errors import UsageError
from aupipe.train.crossval import group_folds
from aupipe.train.ensemble import train_ensemble
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.folder_lock import REQUEST_FILE
from aupipe.train.recipe import load_recipe
from aupipe.train.run import load_run
from tests.cli.test_train import SMALL, Folder, fill, write_annotations
from tests.train.toy_corpus import make_corpus, train_corpus

TRAIN = ("train", "--recipe", "tcn", "--feature", "hog", *SMALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("project")
    fill(root, also=("geometry",))
    folder = Folder(root)
    folder.ask(*TRAIN, "--out", "run")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "epochs=3"), "epochs 2, not 3"),
        (("--set", "head.width=8", "--set", "batch=4"), "batch 8, not 4; head.width 64, not 8"),
        (("--recipe", "baseline"), "recipe tcn, not baseline"),
        (("--seed", "1"), "seeds 0, not 1"),
        (("--feature", "geometry"), "features hog, not hog,geometry"),
        (("--folds", "2"), "folds none, not 2"),
        (("--per-feature",), "per-feature false, not true"),
        (("--apart",), "per-feature false, not true"),
        (("--task", "expr"), "task au, not expr"),
        (("--allow-missing",), "allow-missing false, not true"),
    ],
)
def test_training_into_a_finished_run_with_other_settings_is_refused_with_the_differences(
    project: Folder, more: tuple[str, ...], said: str
) -> None:
    before = content(project.path / "run")
    answer = project.ask(*TRAIN, *more, "--out", "run", code=2)
    assert answer == f"run is a finished run with other settings ({said}): choose another --out"
    assert content(project.path / "run") == before


def test_the_exit_code_is_2_where_the_run_has_other_settings(project: Folder) -> None:
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", *TRAIN, "--seed", "7", "--out", "run"]
    answer = subprocess.run(command, cwd=project.path, capture_output=True, text=True)
    assert answer.returncode == 2, answer.stderr
    assert "aupipe: run is a finished run with other settings (seeds 0, not 7): choose another --out" in answer.stderr
    assert answer.stdout == ""


def test_the_same_request_is_reported_as_done(project: Folder) -> None:
    before = content(project.path / "run")
    assert "run is trained already" in project.ask(*TRAIN, "--out", "run")
    assert content(project.path / "run") == before


def test_the_same_request_on_other_data_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    folder = Folder(tmp_path)
    folder.ask(*TRAIN, "--out", "run")
    file = tmp_path / "annotations" / "AU_Detection_Challenge" / "Train_Set" / "clip0.txt"
    known = file.read_text()
    write_annotations(tmp_path, "Train_Set", "clip0", np.ones((90, 12)))
    for command in ((*TRAIN, "--out", "run"), ("train", "--resume", "run", "--cpu")):
        assert "run was begun on other data (other annotations)" in folder.ask(*command, code=2)
    file.write_text(known)
    assert "trained already" in folder.ask(*TRAIN, "--out", "run")
    file.unlink()
    assert "other training recordings; other stored rows; other annotations" in folder.ask(
        *TRAIN, "--out", "run", code=2
    )


def test_a_run_that_is_not_finished_is_only_gone_on_with(project: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    import aupipe.train.fit as fitting

    class Killed(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(fitting, "_line", stop)
    with pytest.raises(Killed):
        project.ask(*TRAIN, "--out", "killed")
    monkeypatch.undo()
    before = content(project.path / "killed")
    for more in ((), ("--set", "epochs=3")):
        said = project.ask(*TRAIN, *more, "--out", "killed", code=2)
        assert "killed holds a run that is not finished: `aupipe train --resume killed`" in said
        assert content(project.path / "killed") == before  # the request too, which --resume reads
    project.ask("train", "--resume", "killed", "--cpu")
    assert "trained already" in project.ask(*TRAIN, "--out", "killed")


def test_a_folder_in_which_a_training_runs_is_refused_and_a_kill_leaves_its_score(
    project: Folder,
) -> None:
    command = [sys.executable, "-c", "from aupipe.cli import main; main()", "train"]
    begin = [*command, *TRAIN[1:], "--set", "epochs=100000", "--set", "patience=100000", "--out", "busy"]
    running = subprocess.Popen(begin, cwd=project.path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not (project.path / "busy" / "run.json").exists():
            assert running.poll() is None
            time.sleep(0.05)
        second = [*command, "--resume", "busy", "--cpu"]
        answer = subprocess.run(second, cwd=project.path, capture_output=True, text=True)
        assert answer.returncode == 2, answer.stderr
        assert "aupipe: busy: another training is running there: wait for it, or choose another folder" in answer.stderr
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()
    run = load_run(project.path / "busy")
    assert not run.finished
    assert project.json("evaluate", "busy", "--draws", "0", "--cpu")["mean"] == run.scores.mean


def test_a_folder_that_holds_something_else_is_not_trained_into(project: Folder) -> None:
    (project.path / "mine").mkdir()
    (project.path / "mine" / "head.safetensors").write_text("precious")
    assert "mine is not empty and holds no run" in project.ask(*TRAIN, "--out", "mine", code=2)
    assert content(project.path / "mine") == {"head.safetensors": b"precious"}
    (project.path / "file").write_text("precious")
    assert "file is a file" in project.ask(*TRAIN, "--out", "file", code=2)


def test_two_commands_that_begin_in_one_second_have_a_folder_each(
    project: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(sys.modules["aupipe.cli.train_request"], "datetime", Stopped)
    for seed in ("0", "1"):
        project.ask(*TRAIN, "--seed", seed)
    folders = sorted((project.path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["20260101-000000-tcn-au", "20260101-000000-tcn-au-2"]
    assert [read_request(folder).seeds for folder in folders] == [(0,), (1,)]


def test_a_request_written_by_an_earlier_aupipe_is_still_read(project: Folder) -> None:
    file = project.path / "run" / REQUEST_FILE
    known = file.read_bytes()
    request = json.loads(known)
    del request["data"]
    file.write_text(json.dumps(request))
    assert "trained already" in project.ask(*TRAIN, "--out", "run")
    assert "epochs 2, not 3" in project.ask(*TRAIN, "--set", "epochs=3", "--out", "run", code=2)
    file.write_bytes(known)


def test_a_feature_does_not_enter_a_head_twice(project: Folder, tmp_path: Path) -> None:
    config = (project.path / "aupipe.toml").read_text()
    twin = '[[encoder]]\nname = "same"\nmodality = "visual"\nkind = "hog"\n'
    (project.path / "twins.toml").write_text(config + twin)
    said = project.ask(*TRAIN, "--feature", "same", "--config", "twins.toml", "--out", "no", code=2)
    assert "features 'hog' and 'same' are the same numbers" in said
    assert "--feature hog" in said
    assert "feature 'hog' is named twice" in project.ask(*TRAIN, "--feature", "hog", "--out", "no", code=2)
    assert not (project.path / "no").exists()
    assert "features 'hog' and 'same' are the same numbers: computed once, as hog@" in project.ask(
        "extract", "--dry-run", "--config", "twins.toml"
    )
    corpus = make_corpus(train=2, validation=2, frames=30)

    features = {"face": corpus.features["face"], "twin": "twin@" + corpus.features["face"].partition("@")[2]}
    with pytest.raises(UsageError, match="features 'face' and 'twin' are the same numbers"):
        train_corpus(corpus, tmp_path / "run", load_recipe("baseline"), features=features)


def test_folds_take_no_finished_run_of_something_else(tmp_path: Path) -> None:
    corpus = make_corpus(train=6, validation=2, frames=40)
    given = {"labels": corpus.labels, "features": corpus.features, "task": corpus.task, "out": tmp_path / "run"}
    small = ["epochs=1", "window=20", "hop=20"]
    folds = [(fold, 0) for fold in group_folds(corpus.train, 2)]
    train_ensemble(corpus.store, load_ensemble_recipe("baseline", small), folds, **given)
    (tmp_path / "run" / "ensemble.json").unlink()  # as if it had been stopped before its end
    for committee, others in (
        (load_ensemble_recipe("baseline", [*small, "batch=4"]), folds),
        (load_ensemble_recipe("baseline", small), [(fold, 1) for fold, _ in folds]),
        (load_ensemble_recipe("baseline", small), [(replace(folds[0][0], train=folds[0][0].train[1:]), 0), folds[1]]),
    ):
        with pytest.raises(UsageError, match=r"is a run of another (recipe|seed|train recordings)"):
            train_ensemble(corpus.store, committee, others, **given)
    train_ensemble(corpus.store, load_ensemble_recipe("baseline", small), folds, **given)


def test_two_runs_are_never_given_one_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[member.a]\nrecipe = "baseline"\napart = true\n[member.a-b]\nrecipe = "baseline"\napart = true\n'
    )
    corpus = make_corpus(train=4, validation=2, frames=30)
    committee = load_ensemble_recipe(tmp_path / "mine.toml")
    features = {"b-c": corpus.features["face"], "c": corpus.features["sound"]}
    with pytest.raises(UsageError, match="two runs the name 'a-b-c'"):
        train_ensemble(
            corpus.store, committee, [], features=features, labels=corpus.labels, task="au", out=tmp_path / "run"
        )


def test_what_was_begun_goes_on_though_further_features_have_been_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aupipe.train.fit as fitting

    class Killed(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Killed

    fill(tmp_path, also=("geometry",))
    both = (tmp_path / "aupipe.toml").read_text()
    (tmp_path / "aupipe.toml").write_text(both[: both.rindex("[[encoder]]")])
    folder = Folder(tmp_path)
    monkeypatch.setattr(fitting, "_line", stop)
    with pytest.raises(Killed):
        folder.ask("train", "--recipe", "baseline", *SMALL, "--out", "killed")
    monkeypatch.undo()
    (tmp_path / "aupipe.toml").write_text(both)
    folder.ask("train", "--resume", "killed", "--cpu")
    assert read_request(tmp_path / "killed").data["features"].keys() == {"hog"}
    assert load_run(tmp_path / "killed").features.keys() == {"hog"}
