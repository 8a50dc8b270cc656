"""Columns of a data set, such as scenes: selections by them, and ensembles that route by them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aupipe.cli.ensemble import next_command
from aupipe.config import load_config
from aupipe.dataset import open_dataset
from aupipe.dataset_columns import read_columns
from aupipe.dataset_model import nearest_recording
from aupipe.errors import UsageError
from aupipe.store import open_store
from aupipe.train.model import load_model
from aupipe.train.model_prediction import predict_held_out
from aupipe.train.postprocess import apply_postprocess
from aupipe.train.predictions import Predictions
from aupipe.train.run import load_run
from tests.cli.test_train import CONFIG, Folder, fill

SCENES = """recording,scene,light
clip0,reaction,day
clip1,reaction,
clip2,reaction,day
clip3,talk,day
duo,talk,night
v0,reaction,day
v1,talk,day
"""
SMALL = ("--recipe", "baseline", "--feature", "hog", "--set", "epochs=2", "--set", "window=32", "--set", "hop=32")
SMALL = (*SMALL, "--set", "predict_hop=32", "--cpu")
TUNED = ("--set", "postprocess.au.threshold=tune", "--set", "postprocess.au.smooth=gaussian")


def named(said: str) -> list[str]:
    """The lines on which a command says something beside its result."""
    return [line for line in said.splitlines() if line.startswith("aupipe: ")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("project")
    fill(root)
    (root / "aupipe.toml").write_text(
        CONFIG.replace('layout = "affwild2"', 'layout = "affwild2"\ncolumns = "scenes.csv"')
    )
    (root / "scenes.csv").write_text(SCENES)
    return Folder(root)


@pytest.fixture(scope="module")
def votes(project: Folder) -> Folder:
    """Two votes of five folds, whose runs have thresholds and smoothing of their own; the second is smoothed too."""
    for name, seed in (("general", "0"), ("reaction", "1")):
        ask = ("train", *SMALL, *TUNED, "--seed", seed, "--folds", "5", "--out")
        project.ask(*ask, f"folds-{name}")
        project.ask("ensemble", f"folds-{name}", "--rule", "vote", "--ties", "positive", "--out", name)
    smooth = ("--set", "smooth=average", "--set", "width=5", "--set", "threshold=0.3")
    project.ask("tune", "reaction", "--held-out", *smooth, "--cpu")
    routes = ("--by", "scene", "--route", "reaction=2", "--default", "general")
    said = project.ask("ensemble", "general", "reaction", "--rule", "routed", *routes, "--out", "routed")
    assert "1  general: vote of 5 baseline; for all others" in said
    assert (
        "2  reaction: vote of 5 baseline; for scene reaction; post-processing: smoothed (average, 5.0 frames)" in said
    )
    return project


def rows_of(folder: Folder, model: str) -> dict[str, list[str]]:
    """Recording -> its rows in the table of predictions of the validation split."""
    folder.ask("predict", model, "--split", "validation", "--out", f"{model}.csv", "--overwrite", "--cpu")
    found: dict[str, list[str]] = {}
    for line in (folder.path / f"{model}.csv").read_text().splitlines()[1:]:
        found.setdefault(line.partition(",")[0], []).append(line)
    return found


def test_a_routed_ensemble_gives_each_video_exactly_the_scores_of_the_model_it_was_routed_to(votes: Folder) -> None:
    routed, general, reaction = (rows_of(votes, name) for name in ("routed", "general", "reaction"))
    assert general["v0"] != reaction["v0"]
    assert general["v1"] != reaction["v1"]
    assert routed == {"v0": reaction["v0"], "v1": general["v1"], "v2": general["v2"]}


def test_a_routed_ensemble_decides_by_the_thresholds_of_the_model_it_was_routed_to(votes: Folder) -> None:
    for name in ("routed", "general", "reaction"):
        votes.ask("predict", name, "v0", "v1", "--format", "tracks", "--out", f"tracks-{name}", "--cpu")

    def decided(name: str, track: str) -> str:
        return (votes.path / f"tracks-{name}" / f"{track}.txt").read_text()

    assert decided("routed", "v0") == decided("reaction", "v0") != decided("general", "v0")
    assert decided("routed", "v1") == decided("general", "v1") != decided("reaction", "v1")


def test_held_out_predictions_follow_the_routes_the_votes_and_the_post_processing(votes: Folder) -> None:
    models = {name: load_model(votes.path / name) for name in ("routed", "general", "reaction")}
    recordings = [r for r in open_dataset(load_config(votes.path / "aupipe.toml").dataset).recordings if r.id[0] != "v"]
    with open_store(votes.path / "features") as store:
        found = {name: predict_held_out(model, store, recordings) for name, model in models.items()}

    def processed(name: str) -> dict[str, Predictions]:
        post = models[name].post
        return apply_postprocess(post, found[name]) if post else found[name]

    for recording in recordings:
        source = "reaction" if recording.value("scene") == "reaction" else "general"
        expected = processed(source)[recording.id]
        np.testing.assert_array_equal(found["routed"][recording.id].scores, expected.scores)
        assert found["routed"][recording.id].threshold == expected.threshold
    assert set(np.unique(found["general"]["clip3"].scores)) == {0.0, 1.0}  # one of the five voted, by its thresholds
    held = ("--split", "train", "--held-out", "--cpu")
    assert "chose weights, or thresholds or smoothing" in votes.ask("evaluate", "routed", *held, code=2)
    told = votes.json("evaluate", "routed", *held, "--on-tuned")
    assert (told["tuned_on_itself"], told["threshold"]) == (True, None)
    assert told["recordings"] == 7


def test_what_has_seen_the_validation_split_is_not_said_to_be_evaluated_next(votes: Folder) -> None:
    model, config = load_model(votes.path / "general"), votes.path / "aupipe.toml"
    assert next_command(model.task, model.trained_on, config, None) == "evaluate"
    assert next_command(model.task, model.trained_on | {"v0"}, config, None) == "predict"


def test_recordings_without_a_value_are_named_where_a_model_routes(votes: Folder) -> None:
    said = votes.ask("predict", "routed", "--split", "validation", "--out", "p.csv", "--overwrite", "--cpu")
    assert "aupipe: 1 recording without a scene: v2" in said
    routes = ("--rule", "routed", "--by", "scene", "--route", "talk=1", "--out", "some")
    said = votes.ask("ensemble", "general", "reaction", *routes, code=2)
    assert "without a route (" in said
    assert "--default names the RUN for them" in said
    assert not (votes.path / "some").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--by", "scen", "--route", "talk=1"),
            "no column 'scen' in this data set. Did you mean 'scene'? It has scene",
        ),
        (
            ("--by", "scene", "--route", "tlk=1"),
            "no recording has scene = 'tlk'. Did you mean 'talk'? Values: reaction",
        ),
        (("--route", "v7=1"), "a route of 'v7', which is no recording or video of this data set."),
        (("--by", "scene", "--route", "talk=3"), "--route: member '3': expected one of 1 general, 2 reaction"),
        (("--by", "scene", "--route", "talk"), "--route talk: expected NAME=RUN"),
    ],
)
def test_routes_of_unknown_names_are_refused(votes: Folder, options: tuple[str, ...], said: str) -> None:
    answer = votes.ask("ensemble", "general", "reaction", "--rule", "routed", *options, "--out", "no", code=2)
    assert said in answer
    assert not answer.endswith("'v1'?")  # another video is not offered
    assert not (votes.path / "no").exists()


def test_equal_and_weighted_are_rules_and_weights_come_from_what_was_held_out(votes: Folder) -> None:
    given = ("folds-general", "folds-reaction")
    assert "mean of 2 baseline: even" in votes.ask("ensemble", *given, "--rule", "equal", "--out", "even")
    said = votes.ask("ensemble", *given, "--rule", "weighted", "--out", "fitted", "--cpu")
    assert "weights: folds-general " in said
    content = json.loads((votes.path / "fitted" / "ensemble.json").read_text())
    assert len(content["weights"]) == 2
    assert len(content["weighed_on"]) == 7
    assert "chose weights" in votes.ask("evaluate", "fitted", "--split", "train", "--held-out", code=2)
    votes.ask("ensemble", *given, "--rule", "weighted", "--weights", "1,3", "--out", "given")
    assert "leave one of them out" in votes.ask(
        "ensemble", *given, "--rule", "equal", "--weights", "1,3", "--out", "no", code=2
    )
    assert named(votes.ask("ensemble", *given, "--ties", "mean", "--out", "tied")) == [
        "aupipe: --ties changes nothing: only a vote has ties"
    ]
    assert "need --rule routed" in votes.ask("ensemble", *given, "--default", "1", "--out", "no", code=2)


def test_an_ensemble_of_an_earlier_version_predicts_what_it_did(votes: Folder) -> None:
    members = [f"folds-general/fold{number}" for number in (1, 2)]
    votes.ask("ensemble", *members, "--out", "new")
    votes.ask("ensemble", *members, "--post", "none", "--out", "raw")
    file = votes.path / "new" / "ensemble.json"
    content = json.loads(file.read_text())
    votes.ask("predict", "new", "v0", "--out", "new.csv", "--cpu")
    del content["member_post"], content["by"]
    file.write_text(json.dumps(content | {"format": 2}))
    votes.ask("predict", "new", "v0", "--out", "old.csv", "--cpu")
    votes.ask("predict", "raw", "v0", "--out", "raw.csv", "--cpu")
    text = {name: (votes.path / f"{name}.csv").read_text() for name in ("new", "old", "raw")}
    assert text["old"] == text["raw"] != text["new"]


def test_where_selects_recordings_in_every_command_and_names_those_without_a_value(project: Folder) -> None:
    said = project.ask("train", *SMALL, "--where", "scene=reaction", "--out", "where")
    run = load_run(project.path / "where")
    assert (run.train, run.validation) == (("clip0", "clip1", "clip2"), ("v0",))
    assert named(said) == [
        "aupipe: left out 1 recording without a scene: clip4",
        "aupipe: left out 1 recording without a scene: v2",
    ]
    refused = project.ask("train", *SMALL, "--where", "scene=talk", "--out", "where", code=2)
    assert "where scene=reaction, not scene=talk" in refused
    assert "where is trained already" in project.ask("train", "--resume", "where", "--cpu")
    found = project.json("evaluate", "where", "--where", "scene=talk,reaction", "--cpu")
    assert (found["recordings"], found["where"]) == (2, ["scene=talk,reaction"])
    said = project.ask("tune", "where", "--where", "scene=talk", "--set", "threshold=tune", "--cpu")
    assert "fitted on 1 recording" in said
    both = ("--where", "scene=talk", "--where", "light=night")
    said = project.ask("predict", "where", *both, "--out", "night.csv", "--cpu")
    assert "of 2 recordings" in said
    assert "left out 2 recordings without a scene: clip4, v2" in said
    assert {row.partition(",")[0] for row in (project.path / "night.csv").read_text().splitlines()[1:]} == {
        "duo_left",
        "duo_right",
    }


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("scne=reaction", "no column 'scne' in this data set. Did you mean 'scene'? It has scene, light"),
        ("scene=reactoin", "no recording has scene = 'reactoin'. Did you mean 'reaction'? Values: reaction, talk"),
        ("scene", "--where scene: expected COLUMN=VALUE, such as scene=reaction"),
        ("light=night", "no recording of the validation split of task au has light=night"),
    ],
)
def test_unknown_columns_and_values_are_refused(project: Folder, where: str, said: str) -> None:
    assert said in project.ask("train", *SMALL, "--where", where, "--out", "no", code=2)
    assert not (project.path / "no").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,scene\nv0,talk\n", "line 1: 'name,scene': expected recording,<column>"),
        ("recording,scene,scene\n", "line 1: "),
        ("recording,scene\nv0\n", "line 2: 1 cells, expected 2"),
        ("recording,scene\nv0,talk\n\nv0,reaction\n", "line 4: 'v0' has other values above"),
    ],
)
def test_a_broken_file_of_columns_is_named_with_its_line(project: Folder, text: str, said: str) -> None:
    (project.path / "broken.csv").write_text(text)
    config = (project.path / "aupipe.toml").read_text().replace("scenes.csv", "broken.csv")
    (project.path / "broken.toml").write_text(config)
    assert said in project.ask("train", *SMALL, "--config", "broken.toml", "--out", "no", code=2)


def test_names_of_columns_that_are_no_recording_are_said_and_a_missing_file_is_refused(
    project: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    file = project.path / "more.csv"
    file.write_text(SCENES + "clip77,talk,\n")
    recordings = open_dataset(load_config(project.path / "aupipe.toml").dataset).recordings
    values = {r.id: (r.value("scene"), r.value("light")) for r in read_columns(file, recordings)}
    assert "1 name of no recording of this data set, e.g. clip77" in caplog.text
    assert values["duo_left"] == values["duo_right"] == ("talk", "night")  # by their video
    assert (values["clip1"], values["clip4"]) == (("reaction", ""), ("", ""))
    file.unlink()
    with pytest.raises(UsageError, match=r"columns: .*more\.csv cannot be read: No such file"):
        read_columns(file, recordings)


def test_the_nearest_name_is_never_another_person_or_video(project: Folder) -> None:
    project.ask("train", *SMALL, "--out", "named")
    ask = ("predict", "named", "--cpu", "--out", "no.csv")
    assert "Did you mean" not in project.ask(*ask, "clip9", code=2)
    assert "Did you mean" not in project.ask(*ask, "duo_lef", code=2)
    assert "Did you mean 'clip3'?" in project.ask(*ask, "clop3", code=2)
    assert nearest_recording("video2_right", ["video2_left", "video20_right"]) == ""
    assert nearest_recording("text2", ["text2.mp4", "text4.mp4"]) == " Did you mean 'text2.mp4'?"
