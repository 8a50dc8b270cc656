"""train, evaluate, predict, tune, ensemble as a user types them, on a store that is filled without decoding."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aupipe.cli import cli
from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.errors import UsageError
from aupipe.extract.planning.features import build_feature_set, feature_ids
from aupipe.sources import source_identity
from aupipe.store import create_store, open_store
from aupipe.store.run_log import read_lines
from aupipe.tasks import AU_NAMES
from aupipe.train.run import load_run, load_weights

FRAMES = 90
SMALL = ("--set", "epochs=2", "--set", "window=32", "--set", "hop=32", "--set", "batch=8", "--cpu")
FOLDED = ("--set", "predict_hop=32", "--folds", "3")
CONFIG = """
[dataset]
layout = "affwild2"
[store]
path = "features"
[[encoder]]
name = "hog"
modality = "visual"
kind = "hog"
[[encoder]]
name = "geometry"
modality = "visual"
kind = "geometry"
"""


@dataclass
class Folder:
    """A project folder and commands in it."""

    path: Path

    def ask(self, *arguments: object, code: int = 0) -> str:
        """What a command says, on stdout and stderr; UsageErrors as text, with exit code 2."""
        before = Path.cwd()
        os.chdir(self.path)
        try:
            result = CliRunner().invoke(cli, [*map(str, arguments)])
        finally:
            os.chdir(before)
        error = result.exception
        if isinstance(error, UsageError):
            assert code == 2, str(error)
            return str(error)
        if error is not None and not isinstance(error, SystemExit):
            raise error
        assert result.exit_code == code, result.output
        return result.output

    def out(self, *arguments: object) -> str:
        """What a command prints on stdout alone; it ends with 0."""
        with contextlib.chdir(self.path):
            result = CliRunner().invoke(cli, [*map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: object) -> dict:
        return json.loads(self.ask(*arguments, "--json").splitlines()[-1])


def write_annotations(root: Path, split: str, name: str, targets: np.ndarray) -> None:
    folder = root / "annotations" / "AU_Detection_Challenge" / split
    folder.mkdir(parents=True, exist_ok=True)
    rows = [",".join(AU_NAMES), *(",".join(str(int(v)) for v in row) for row in targets)]
    (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")


def fill(root: Path, missing: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> None:
    """Videos that are no videos, labels that dwell, and features that show them, published as extraction would."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 20))
    (root / "videos").mkdir()
    tracks = {
        "Train_Set": [f"clip{i}" for i in range(5)] + ["duo_left", "duo_right"],
        "Validation_Set": ["v0", "v1", "v2"],
    }
    truth = {}
    for split, names in tracks.items():
        for name in names:
            video = root / "videos" / f"{name.split('_')[0]}.mp4"
            video.write_bytes(name.split("_")[0].encode() * 10)
            states = np.repeat(rng.random((FRAMES // 10, 12)) < 0.35, 10, axis=0).astype(float)
            states[40:44] = -1
            truth[name] = states
            write_annotations(root, split, name, states)
    (root / "aupipe.toml").write_text(CONFIG)
    config = load_config(root / "aupipe.toml")
    recordings = open_dataset(config.dataset).recordings
    parts = build_feature_set(config)
    ids = feature_ids(parts, recordings)
    specs = {spec.id: spec for spec, _ in parts.graph(recordings[0]).encoders}
    store = create_store(root / "features", "zarr")
    for recording in recordings:
        shown = np.clip(truth[recording.id], 0, 1) @ mixing + rng.normal(size=(FRAMES, 20))
        shown[20:25] = np.nan
        for name in ("hog", *also):
            if recording.id not in missing:
                spec = specs[ids[name]]
                store.publish(recording.id, spec, shown.astype(np.float16), source=source_identity(recording.video))
    store.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    fill(root)
    return Folder(root)


@pytest.fixture(scope="module")
def trained(project):
    """A run, and what was said of it."""
    said = project.ask("train", "--recipe", "tcn", "--feature", "hog", *SMALL, "--out", "runs/tcn")
    return said


@pytest.fixture(scope="module")
def folds(project):
    """Three folds with post-processing fitted on what each held out."""
    project.ask("train", "--recipe", "field", "--feature", "hog", *SMALL, *FOLDED, "--out", "runs/folds")
    return "runs/folds"


def test_runs_lists_trained_models_with_their_scores_and_what_cannot_be_read(project, trained, folds):
    bad = project.path / "runs" / "bad"
    bad.mkdir()
    (bad / "head.safetensors").write_bytes(b"nothing")
    (begun := project.path / "runs" / "begun").mkdir()
    (begun / "train.json").write_text("{}")
    try:
        said = project.ask("runs")
        models = json.loads(project.ask("runs", "--json"))["models"]
    finally:
        shutil.rmtree(bad)
        shutil.rmtree(begun)
    found = {Path(one["path"]).name: one for one in models}
    assert found.keys() == {"tcn", "folds", "bad", "begun"}  # not the folds of one
    run = json.loads((project.path / "runs" / "tcn" / "run.json").read_text())
    assert found["tcn"]["score"] == run["scores"]["mean"]
    assert (found["tcn"]["recipe"], found["tcn"]["metric"], found["tcn"]["finished"]) == ("tcn", "F1", True)
    assert (found["folds"]["runs"], found["folds"]["score_of"]) == (3, "mean of runs")
    assert "not readable" in found["bad"]["error"]
    (line,) = [line for line in said.splitlines() if line.endswith("runs/tcn")]
    assert re.match(rf"20\d\d-\d\d-\d\d \d\d:\d\d +{run['scores']['mean']:.3f} F1 au +tcn ", line)
    assert "runs/begun  " in said
    note = "mean of runs: the mean of their scores, each on what the run held out; the table of `aupipe train` scores"
    assert said.splitlines()[-1].startswith(note)
    assert "mean of runs" not in project.ask("runs", "runs/tcn")
    assert project.ask("runs", "nowhere", code=2) == "nowhere: no such folder"


def test_a_training_leaves_a_log_of_its_epochs_beside_its_run(project, trained):
    (path,) = (project.path / "runs" / "tcn").glob("*.jsonl")
    lines = list(read_lines(path))
    assert lines[0]["recipe"] == "tcn"
    assert lines[0]["features"]
    assert any(line["kind"] == "epoch" and "validation F1" in line["text"] for line in lines)
    assert (lines[-1]["kind"], lines[-1]["state"]) == ("end", "done")


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "tune", "ensemble"])
def test_every_command_shows_an_example(project, command):
    said = project.ask(command, "--help")
    assert "Example" in said
    assert f"aupipe {command} " in said


def test_training_ends_with_a_score_its_interval_its_coverage_and_what_comes_next(trained):
    assert "95% by video" in trained
    assert "100.0% of annotated frames predicted, face found in" in trained
    assert "always 1" in trained
    assert "chosen on these same recordings" in trained
    assert "next: aupipe predict" in trained


def test_set_changes_the_recipe_and_a_wrong_key_names_the_nearest(project, trained):
    assert load_run(project.path / "runs/tcn").recipe.epochs == 2
    assert "Did you mean 'epochs'" in project.ask("train", "--set", "epoch=3", code=2)
    assert "recipe 'tcn' has no" not in trained


def test_a_recipe_whose_features_are_not_configured_names_the_command_that_makes_them(project):
    said = project.ask("train", "--recipe", "tcn-transformer", "--out", "runs/none", code=2)
    assert "eff, rafdb, affectnet8; `aupipe extract --recipe tcn-transformer --task au` computes them" in said
    assert not (project.path / "runs" / "none").exists()


def test_a_feature_that_is_configured_and_not_stored_names_the_line_that_makes_it(project):
    said = project.ask("train", "--feature", "geometry", "--out", "runs/none", code=2)
    assert "`aupipe extract --feature geometry` computes it" in said
    assert not (project.path / "runs/none").exists()


def test_a_recording_that_lacks_a_recipe_s_own_feature_is_named_with_the_recipe_s_line(tmp_path):
    fill(tmp_path, missing=("clip3",))
    (tmp_path / "my.toml").write_text(
        "extends = 'baseline'\nfeatures = ['hog']\n[[encoder]]\nname = 'hog'\nmodality = 'visual'\nkind = 'hog'\n"
    )
    for folds in (), ("--folds", "2"):
        said = Folder(tmp_path).ask("train", "--recipe", "my.toml", *folds, *SMALL, "--out", "run", code=2)
        assert "clip3 (hog)" in said
        assert "`aupipe extract --recipe my.toml --task au` computes what is missing" in said


def test_a_recording_that_lacks_a_feature_is_named_with_the_line_and_counted_when_left_out(tmp_path):
    fill(tmp_path, missing=("clip3", "v1"))
    folder = Folder(tmp_path)
    said = folder.ask("train", "--feature", "hog", *SMALL, "--out", "run", code=2)
    assert "clip3 (hog)" in said
    assert "`aupipe extract --feature hog` computes what is missing" in said
    said = folder.ask("train", "--feature", "hog", *SMALL, "--out", "run", "--allow-missing")
    assert "66.7% of annotated frames predicted" in said
    assert "no prediction for 1 recording" in said
    assert "v1" in folder.ask("evaluate", "run", code=2)
    assert folder.json("evaluate", "run", "--allow-missing", "--cpu")["missing"] == ["v1"]


def test_a_killed_run_goes_on_to_the_weights_of_one_left_alone(project, trained, monkeypatch):
    import aupipe.train.fit as module

    class Killed(BaseException):
        pass

    def stop(*_):
        raise Killed

    monkeypatch.setattr(module, "_line", stop)
    command = ("train", "--recipe", "tcn", "--feature", "hog", *SMALL, "--out", "runs/killed")
    with pytest.raises(Killed):
        project.ask(*command)
    monkeypatch.undo()
    assert not load_run(project.path / "runs/killed").finished
    assert "leave out --recipe" in project.ask("train", "--resume", "runs/killed", "--recipe", "tcn", code=2)
    project.ask("train", "--resume", "runs/killed", "--cpu")
    whole, killed = (load_weights(load_run(project.path / "runs" / name))[0] for name in ("tcn", "killed"))
    assert all(np.array_equal(whole[name], killed[name]) for name in whole)
    assert "trained already" in project.ask("train", "--resume", "runs/killed", "--cpu")
    assert "nothing to resume" in project.ask("train", "--resume", "runs", code=2)


def test_seeds_give_a_run_each_and_are_reported_by_mean_and_spread(project):
    said = project.ask(
        "train", "--recipe", "baseline", "--feature", "hog", *SMALL, "--seed", "0,1", "--out", "runs/seeds"
    )
    assert "over 2 runs" in said
    assert {run.seed for run in map(load_run, (project.path / "runs/seeds").glob("seed*"))} == {0, 1}
    assert "mean of 2" in project.ask("evaluate", "runs/seeds", "--cpu")
    assert "a number is repeated" in project.ask("train", "--seed", "1,1", code=2)


def test_features_apart_are_a_run_each_and_their_mean(tmp_path):
    fill(tmp_path, also=("geometry",))
    folder = Folder(tmp_path)
    said = folder.ask("train", "--recipe", "baseline", "--apart", *SMALL, "--folds", "2", "--out", "run")
    assert "over 4 runs" in said
    runs = {path.name: load_run(path) for path in (tmp_path / "run").glob("fold*")}
    assert {name: list(run.features) for name, run in runs.items()} == {
        f"fold{i}-{feature}": [feature] for i in (1, 2) for feature in ("hog", "geometry")
    }
    weights = json.loads((tmp_path / "run" / "ensemble.json").read_text())["weights"]
    counted = sum(weight > 0 for weight in weights)
    assert f"weighted mean of {counted} baseline" in folder.ask("evaluate", "run", "--cpu")


def test_a_committee_is_one_command_says_its_weights_and_is_not_scored_on_what_chose_them(tmp_path):
    fill(tmp_path, also=("geometry",))
    folder = Folder(tmp_path)
    ask = ("train", "--recipe", "best", *SMALL, "--set", "predict_hop=32", "--out")
    said = folder.ask(*ask, "run")
    assert "over 4 runs" in said
    line = next(line for line in said.splitlines() if line.startswith("weights: "))
    assert [part.split()[0] for part in line.removeprefix("weights: ").split(", ")] == [
        "field",
        "tcn",
        "linear-hog",
        "linear-geometry",
    ]
    assert "chose weights" in folder.ask("evaluate", "run", "--cpu", code=2)
    assert 0 < folder.json("evaluate", "run", "--on-tuned", "--cpu")["mean"] <= 1
    assert "an unbiased one needs --dev, --folds" in folder.ask("train", "--resume", "run", "--cpu")
    assert "next: aupipe evaluate" in folder.ask(*ask, "folds", "--folds", "2")
    honest = folder.json("evaluate", "folds", "--cpu")
    assert honest["tuned_on_itself"] is False
    assert "trained this model" in folder.ask("evaluate", "folds", "--split", "train", code=2)


def test_a_committee_keeps_its_weights_in_an_ensemble_and_what_chose_them(tmp_path):
    fill(tmp_path, also=("geometry",))
    folder = Folder(tmp_path)
    small = (*SMALL, "--set", "predict_hop=32", "--out")
    folder.ask("train", "--recipe", "best", *small, "best")
    folder.ask("train", "--recipe", "tcn", "--feature", "hog", *small, "tcn")
    folder.ask("ensemble", "best", "tcn", "--weights", "1,3", "--out", "both")
    assert json.loads((tmp_path / "both" / "ensemble.json").read_text())["members"] == ["../best", "../tcn"]
    assert "chose weights" in folder.ask("evaluate", "both", "--cpu", code=2)
    scores = {}
    for name in ("best", "tcn", "both"):
        folder.ask("predict", name, "v0", "--out", f"{name}.csv", "--cpu")  # each after its own post-processing
        rows = (tmp_path / f"{name}.csv").read_text().splitlines()[1:]
        scores[name] = np.array([row.split(",")[3:15] for row in rows], float)
    np.testing.assert_allclose(scores["both"], (scores["best"] + 3 * scores["tcn"]) / 4, atol=2e-6)
    assert np.abs(scores["best"] - scores["tcn"]).max() > 0.01
    said = folder.ask("ensemble", "best", "--rule", "vote", "--out", "no", code=2)
    assert "best has weighted members" in said
    assert not (tmp_path / "no").exists()


def test_trap_08_folds_keep_siblings_together_and_leave_the_validation_split_alone(project, folds):
    runs = [load_run(path) for path in sorted((project.path / folds).glob("fold*"))]
    assert len(runs) == 3
    held = [name for run in runs for name in run.validation]
    assert sorted(held) == ["clip0", "clip1", "clip2", "clip3", "clip4", "duo_left", "duo_right"]
    for run in runs:
        assert ("duo_left" in run.validation) == ("duo_right" in run.validation)
        assert not {"v0", "v1", "v2"} & {*run.train, *run.validation}


def test_trap_01_what_was_fitted_on_folds_is_scored_on_another_split_and_refused_on_its_own(project, folds):
    post = json.loads((project.path / folds / "postprocess.json").read_text())
    assert len(post["tuned_on"]) == 7
    honest = project.json("evaluate", folds, "--cpu")
    assert honest["tuned_on_itself"] is False
    assert honest["caveats"] == []
    assert len(honest["threshold"]) == 12
    assert "trained this model" in project.ask("evaluate", folds, "--split", "train", code=2)
    assert "chose these thresholds" in project.ask("evaluate", folds, "--split", "train", "--held-out", code=2)
    told = project.ask("evaluate", folds, "--split", "train", "--held-out", "--on-tuned", "--cpu")
    assert "TUNED ON THESE RECORDINGS" in told
    assert "chose the epoch" in told
    assert "TRAINED ON THESE" in project.ask("evaluate", folds, "--split", "train", "--on-tuned", "--cpu")


def test_tune_fits_on_one_split_for_another(project, trained):
    said = project.ask(
        "tune", "runs/tcn", "--set", "threshold=tune", "--set", "smooth=gaussian", "--out", "post.json", "--cpu"
    )
    assert "fitted on 3 recordings" in said
    assert "optimistic" in said
    assert "chose these thresholds" in project.ask("evaluate", "runs/tcn", "--post", "post.json", code=2)
    assert project.json("evaluate", "runs/tcn", "--post", "post.json", "--on-tuned", "--cpu")["tuned_on_itself"]
    assert "Did you mean 'smooth'" in project.ask("tune", "runs/tcn", "--set", "smoth=gaussian", code=2)


def test_runs_stand_side_by_side_with_the_interval_of_their_difference(project, trained, folds):
    said = project.ask("evaluate", "runs/tcn", folds, "--cpu")
    line = next(line for line in said.splitlines() if "minus" in line)
    assert "95%" in line
    one, both = (
        project.json("evaluate", "runs/tcn", "--cpu"),
        project.json("evaluate", "runs/tcn", folds, "--cpu")["models"],
    )
    assert {"message_type": "scores", **both[0]} == one
    low, high = one["spread"]["interval"]
    assert low < one["mean"] < high


def test_scores_of_different_videos_are_shown_and_not_compared(project, folds):
    held = ("--split", "train", "--held-out", "--on-tuned", "--draws", "20", "--cpu")
    said = project.ask("evaluate", folds, f"{folds}/fold1", *held)
    assert "2 field and 1 mean of 3 field were scored on different videos, so they are not compared" in said
    assert " minus " not in said


def test_trap_15_a_vote_says_how_ties_are_broken_and_members_must_fit(project, trained, folds):
    project.ask("ensemble", "runs/tcn", folds, "--rule", "vote", "--ties", "negative", "--out", "runs/voted")
    content = json.loads((project.path / "runs/voted/ensemble.json").read_text())
    assert (content["rule"], content["ties"]) == ("vote", "negative")
    assert content["members"] == ["../tcn", "../folds"]  # a vote each: that the folds are three is their own affair
    project.ask("ensemble", folds, "--rule", "vote", "--out", "runs/voted-folds")  # alone, it stands for its members
    assert len(json.loads((project.path / "runs/voted-folds/ensemble.json").read_text())["members"]) == 3
    assert 0 < project.json("evaluate", "runs/voted", "--cpu")["mean"] < 1
    assert "runs/voted is not empty" in project.ask("ensemble", "runs/tcn", "--out", "runs/voted", code=2)
    assert "2 weights for 1 members" in project.ask(
        "ensemble", "runs/tcn", "--weights", "1,2", "--out", "runs/w", code=2
    )


def test_routes_send_each_recording_to_its_member(project, trained, folds):
    (project.path / "routes.csv").write_text("name,member\nv0,2\nv1,1\n")
    routed = ("ensemble", "runs/tcn", f"{folds}/fold1", "--rule", "routed", "--routes", "routes.csv")
    said = project.ask(*routed, "--out", "runs/routed", code=2)  # here, and not when it predicts
    assert "recordings without a route (" in said
    project.ask(*routed, "--default", "1", "--out", "runs/by-scene")
    for model, out in (("runs/by-scene", "a.csv"), ("runs/tcn", "b.csv"), (f"{folds}/fold1", "c.csv")):
        project.ask("predict", model, "--split", "validation", "--post", "none", "--out", out, "--cpu")
    a, b, c = (
        {tuple(row[:2]): np.array(row[3:], float) for row in map(cells, (project.path / f"{name}.csv").open())}
        for name in "abc"
    )
    for (name, frame), row in a.items():
        np.testing.assert_allclose(row, (c if name == "v0" else b)[name, frame], atol=1e-5)
    assert max(np.abs(b[key] - c[key]).max() for key in b) > 0.01


def cells(line):
    """One line of a CSV of predictions; the header as zeros."""
    row = line.strip().split(",")
    return row if row[1] != "frame" else ["", "", "", *["0"] * (len(row) - 3)]


def test_predictions_as_csv_and_parquet_are_the_same_numbers(project, trained):
    import pyarrow.parquet as parquet

    for form in ("csv", "parquet"):
        said = project.ask("predict", "runs/tcn", "v0", "--format", form, "--out", f"p.{form}", "--cpu")
        assert f"{FRAMES} frames of 1 recording, face found in 94.4%" in said
    table = parquet.read_table(project.path / "p.parquet")
    lines = (project.path / "p.csv").read_text().splitlines()
    assert table.column_names == lines[0].split(",")
    for row in (0, 22, 89):
        cells = lines[1 + row].split(",")
        assert cells[0] == table["recording"][row].as_py() == "v0"
        assert int(cells[1]) == table["frame"][row].as_py() == row + 1
        assert float(cells[3]) == pytest.approx(table["AU1"][row].as_py(), abs=1e-6)
        assert bool(int(cells[-1])) == table["valid"][row].as_py() == (not 20 <= row < 25)


def test_trap_11_frames_without_a_face_are_filled_by_the_rule_that_was_asked_for(project, trained):
    for fill in ("model", "interpolate"):
        project.ask("predict", "runs/tcn", "v0", "--fill", fill, "--out", f"{fill}.csv", "--cpu")
    model, line = (
        np.array([row.split(",")[3:15] for row in (project.path / f"{name}.csv").read_text().splitlines()[1:]], float)
        for name in ("model", "interpolate")
    )
    seen = np.r_[0:20, 25:FRAMES]
    np.testing.assert_array_equal(model[seen], line[seen])
    share = (np.arange(20, 25) - 19)[:, None] / 6
    np.testing.assert_allclose(line[20:25], (1 - share) * line[19] + share * line[25], atol=2e-6)
    assert np.abs(model[20:25] - line[20:25]).max() > 1e-3


def test_a_submission_has_the_rows_of_the_sample_or_is_not_written(project, folds):
    sample = project.path / "sample.txt"
    rows = [f"{name}/{frame:05d}.jpg," for name in ("v1", "v0") for frame in (3, 1, 2)]
    sample.write_text("\n".join(["image_location," + ",".join(AU_NAMES), *rows]) + "\n")
    ask = ("predict", folds, "--split", "validation", "--format", "abaw", "--sample", "sample.txt", "--cpu")
    said = project.ask(*ask, "--out", "sub.txt")
    assert "its rows are those of sample.txt" in said
    assert "post-processing: thresholds" in said
    lines = (project.path / "sub.txt").read_text().splitlines()
    assert [line.split(",")[0] + "," for line in lines[1:]] == rows
    sample.write_text(sample.read_text() + "v9/00001.jpg,\n")
    assert "1 of its 7 rows were not predicted, first v9/00001.jpg" in project.ask(*ask, "--out", "no.txt", code=2)
    assert not (project.path / "no.txt").exists()


def test_trap_10_smoothing_stops_at_the_shots_that_were_given(project, trained):
    (project.path / "cuts.csv").write_text("recording,frame\nv0,51\n")
    (project.path / "smooth.json").write_text(
        json.dumps({"task": "au", "options": {"smooth": "gaussian", "width": 5.0}, "threshold": [0.5] * 12})
    )
    for name, cuts in (("whole", ()), ("cut", ("--cuts", "cuts.csv"))):
        project.ask("predict", "runs/tcn", "v0", "--post", "smooth.json", *cuts, "--out", f"{name}.csv", "--cpu")
    whole, cut = ((project.path / f"{name}.csv").read_text().splitlines()[1:] for name in ("whole", "cut"))
    differ = [i for i in range(FRAMES) if whole[i] != cut[i]]
    assert differ
    assert set(differ) <= set(range(30, 71))
    (project.path / "cuts.csv").write_text("recording,frame\nnobody,51\n")
    assert "expected a recording of this data set" in project.ask(
        "predict", "runs/tcn", "v0", "--cuts", "cuts.csv", code=2
    )


def test_features_that_changed_since_are_not_scored(tmp_path):
    fill(tmp_path)
    folder = Folder(tmp_path)
    folder.ask("train", "--feature", "hog", *SMALL, "--out", "run")
    (tmp_path / "videos" / "v1.mp4").write_bytes(b"another video")
    assert "v1 (source changed)" in folder.ask("evaluate", "run", "--cpu", code=2)


def test_a_store_is_left_as_it_was(project, trained):
    store = open_store(project.path / "features")
    assert {spec.name for spec in store.features()} == {"hog"}
