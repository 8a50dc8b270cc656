"""What a training holds out, and what it says its score is worth."""

from __future__ import annotations

import json
import logging

import pytest

from aupipe.train.run import load_run
from tests.cli.test_train import SMALL, Folder, fill

TRAIN = ("train", "--recipe", "baseline", "--feature", "hog", *SMALL, "--set", "predict_hop=32")
OFFICIAL = {"v0", "v1", "v2"}  # the validation split


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("project")
    fill(root, also=("geometry",))
    return Folder(root)


def test_a_model_of_all_data_trains_every_epoch_and_says_that_it_has_no_score(project: Folder) -> None:
    more = ("--set", "epochs=4", "--set", "patience=1", "--on", "all", "--out", "all")
    said = project.ask(*TRAIN, *more)
    assert "no score: all 10 recordings were trained on for all epochs of the recipe; none was held out" in said
    assert "always 1" not in said
    assert "next: aupipe predict all" in said
    run = load_run(project.path / "all")
    assert (run.scores, run.best_epoch, len(run.history), run.validation, len(run.train)) == (None, 4, 4, (), 10)
    again = json.loads(project.ask(*TRAIN, *more, "--json").splitlines()[-1])
    assert (again["scores"], again["spread"]) == (None, None)
    assert again["worth"].startswith("no score")
    assert "trained this model" in project.ask("evaluate", "all", "--cpu", code=2)
    assert "270 frames of 3 recordings" in project.ask("predict", "all", "--split", "validation", "--cpu")
    assert "no member held any of these" in project.ask("evaluate", "all", "--held-out", code=2)
    refused = project.ask(*TRAIN, "--set", "optimiser.schedule=plateau", "--on", "all", "--out", "no", code=2)
    assert "'plateau' needs a validation score" in refused
    assert not (project.path / "no").exists()


def test_what_a_recipe_would_fit_on_held_out_recordings_is_not_fitted_and_that_is_said(
    project: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        project.ask(*TRAIN, "--set", "postprocess.au.threshold=tune", "--on", "all", "--out", "untuned")
        assert "so the post-processing of the recipe was not fitted" in caplog.text
        caplog.clear()
        ask = ("train", "--recipe", "best", *SMALL, "--set", "predict_hop=32", "--set", "epochs=1", "--on", "all")
        said = project.ask(*ask, "--out", "all-best")
        assert "no recording was held out, so all members have the same weight" in caplog.text
    assert "no score" in said
    assert not (project.path / "untuned" / "postprocess.json").exists()
    assert json.loads((project.path / "all-best" / "ensemble.json").read_text())["weights"] == []
    project.ask(*TRAIN, "--set", "postprocess.au.threshold=0.3", "--on", "all", "--out", "fixed")
    assert (project.path / "fixed" / "postprocess.json").exists()  # nothing of it needs labels


def test_a_development_share_chooses_the_epoch_and_leaves_the_validation_split_for_the_score(project: Folder) -> None:
    said = project.ask(*TRAIN, "--dev", "0.4", "--out", "dev")
    assert "development recordings (--dev 0.4), which chose the epoch; the validation split was not used" in said
    assert "next: aupipe evaluate dev" in said
    run = load_run(project.path / "dev")
    assert len({name.partition("_")[0] for name in run.validation}) == 2  # of six videos
    assert not OFFICIAL & {*run.train, *run.validation}
    assert len({*run.train, *run.validation}) == 7
    assert ("duo_left" in run.validation) == ("duo_right" in run.validation)
    assert project.json("evaluate", "dev", "--cpu")["caveats"] == []
    assert "dev 0.4, not 0.2" in project.ask(*TRAIN, "--dev", "0.2", "--out", "dev", code=2)
    assert "--folds and --dev cannot be combined" in project.ask(*TRAIN, "--dev", "0.2", "--folds", "2", code=2)
    said = project.ask(*TRAIN, "--dev", "0.1", "--seed", "0,1", "--out", "dev-seeds")
    assert "over 2 runs" in said
    held = [load_run(project.path / "dev-seeds" / f"seed{seed}").validation for seed in (0, 1)]
    assert held[0] == held[1]


def test_a_single_fold_is_trained_and_says_that_it_is_one(project: Folder) -> None:
    (project.path / "folds.json").write_text(json.dumps({"mine": ["clip0", "clip3"]}))
    said = project.ask(*TRAIN, "--folds", "folds.json", "--out", "mine")
    assert "the score is of 2 held-out recordings, which chose the epoch; the validation split was not used" in said
    assert load_run(project.path / "mine" / "mine").validation == ("clip0", "clip3")
    assert project.json("evaluate", "mine", "--cpu")["caveats"] == []
    said = project.ask(*TRAIN, "--folds", "3", "--fold", "fold2", "--out", "second")
    assert "held-out recordings of fold2 alone" in said
    assert [path.name for path in (project.path / "second").glob("fold*")] == ["fold2"]
    document = json.loads(project.ask("train", "--resume", "second", "--cpu", "--json").splitlines()[-1])
    assert document["summary"] is None
    assert "--fold fold4: no such fold. Did you mean 'fold1'?" in project.ask(
        *TRAIN, "--folds", "3", "--fold", "fold4", "--out", "no", code=2
    ).replace("'fold2'", "'fold1'").replace("'fold3'", "'fold1'")
    assert "--fold needs --folds" in project.ask(*TRAIN, "--fold", "fold1", code=2)


def test_a_score_says_what_it_is_worth_and_nothing_that_is_not_so(project: Folder) -> None:
    plain = project.ask(*TRAIN, "--out", "plain")
    assert (
        "its recordings chose the epoch, so it is optimistic: an unbiased one needs --dev, --folds, or others" in plain
    )
    assert "postprocess.json" not in plain
    fixed = project.ask(*TRAIN, "--set", "postprocess.au.threshold=0.3", "--out", "fixed-split")
    assert "was fitted on these recordings" not in fixed  # nothing was fitted
    tuned = project.ask(*TRAIN, "--set", "postprocess.au.threshold=tune", "--out", "tuned-split")
    assert "postprocess.json was fitted on these recordings too" in tuned
    folds = project.ask(*TRAIN, "--folds", "2", "--on", "all", "--out", "all-folds")
    assert "which chose the epoch; an unbiased score needs other recordings" in folds
    assert "needs --folds" not in folds
