"""What a command was given and does not use, and what spoils a score, is said in one line."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aupipe.annotations import read_annotation
from aupipe.errors import UsageError
from aupipe.store import open_store
from aupipe.tasks import AU_NAMES, EXPR_NAMES, OFFICIAL
from aupipe.train.idle_settings import optimiser_in_use, unreached
from aupipe.train.run import load_run, load_weights, save_run
from aupipe.train.schedule import Optimiser
from aupipe.types import Weights
from tests.cli.test_train import SMALL, Folder, fill

TRAIN = ("train", "--recipe", "baseline", "--feature", "hog", *SMALL, "--set", "predict_hop=32")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("project")
    fill(root)
    folder = Folder(root)
    folder.ask(*TRAIN, "--out", "run")
    return folder


def idle(said: str) -> list[str]:
    """The options that a command said change nothing."""
    lines = [line for line in said.splitlines() if "changes nothing" in line]
    return [line.split("--set ")[1].split()[0] for line in lines]


def test_a_set_option_of_train_that_changes_nothing_is_said(project: Folder) -> None:
    changes = {
        "epochs=1": False,
        "window=16": True,  # as in the recipe
        "optimiser.plateau_factor=0.3": True,  # of another schedule
        "optimiser.final_lr=0.3": False,
        "loss.va.kind=mse": True,  # of another task
        "loss.au.pos_weight_range=[0.1,9.0]": False,
        "postprocess.expr.smooth=gaussian": True,
        "postprocess.au.threshold=0.4": False,
        "patience=1": True,  # as many epochs
        "patience=3": True,
    }
    sets = [part for change in changes for part in ("--set", change)]
    said = project.ask("train", "--recipe", "baseline", "--feature", "hog", *sets, "--cpu", "--out", "idle")
    assert idle(said) == [change for change, nothing in changes.items() if nothing]


def test_nesterov_changes_nothing_without_momentum_of_sgd() -> None:
    def same(**options: Any) -> bool:
        return optimiser_in_use(Optimiser(**options)) == optimiser_in_use(Optimiser(**options, nesterov=False))

    assert same(kind="adamw")
    assert same(kind="sgd", momentum=0.0)
    assert not same(kind="sgd")


def test_a_set_option_is_compared_with_the_table_of_the_task(project: Folder) -> None:
    text = """
        epochs = 1
        [head]
        kind = "linear"
        [loss.au]
        kind = "bce"
        [task.au]
        batch = 5
        """
    (project.path / "tabled.toml").write_text(text)
    ask = ("train", "--recipe", "tabled.toml", "--feature", "hog", "--cpu")
    assert idle(project.ask(*ask, "--set", "batch=5", "--out", "tabled")) == ["batch=5"]
    assert idle(project.ask(*ask, "--set", "batch=16", "--out", "tabled-16")) == []


def test_a_set_option_of_tune_changes_the_recipe_and_is_said_where_it_changes_nothing(project: Folder) -> None:
    recipe = ("postprocess.au.smooth=average", "postprocess.au.width=5", "postprocess.au.threshold=0.4")
    sets = [part for change in recipe for part in ("--set", change)]
    project.ask(*TRAIN, *sets, "--out", "smoothed")
    project.ask("tune", "smoothed", "--set", "threshold=0.3", "--out", "post.json", "--cpu")
    post = json.loads((project.path / "post.json").read_text())
    assert (post["options"]["smooth"], post["options"]["width"], post["threshold"][0]) == ("average", 5.0, 0.3)
    more = ("--set", "match_variance=true", "--set", "side=left", "--set", "max_gap=3", "--overwrite", "--cpu")
    assert idle(project.ask("tune", "smoothed", *more, "--out", "post.json")) == ["match_variance=true"]
    assert idle(project.ask("tune", "run", "--set", "width=5", "--out", "other.json", "--cpu")) == ["width=5"]


def test_a_smoothing_of_width_0_is_refused(project: Folder) -> None:
    ask = ("tune", "run", "--set", "smooth=gaussian", "--set", "width=0", "--out", "flat.json", "--cpu")
    assert "--set: width = 0.0: expected above 0" in project.ask(*ask, code=2)
    assert not (project.path / "flat.json").exists()


def test_an_unfinished_run_is_named_by_every_command_that_uses_it(project: Folder) -> None:
    shutil.copytree(project.path / "run", project.path / "stopped")
    run = load_run(project.path / "stopped")
    save_run(replace(run, finished=False), *load_weights(run))
    line = "aupipe: stopped is not finished: of 2 of at most 2 epochs the best one is used (aupipe train --resume)"
    for command in (("evaluate",), ("tune", "--out", "s.json"), ("predict", "v0", "--out", "s.csv")):
        assert line in project.ask(command[0], "stopped", *command[1:], "--cpu").splitlines()
    assert "stopped IS NOT FINISHED" in project.json("evaluate", "stopped", "--cpu")["caveats"]
    assert "not finished" not in project.ask("evaluate", "run", "--cpu").lower()


def test_features_of_random_weights_are_named_in_training_and_in_scoring(project: Folder) -> None:
    run = load_run(project.path / "run")
    spec = replace(run.specs["hog"], weights=Weights("random:0:net", "0" * 64, "none: random numbers"))
    shutil.copytree(project.path / "run", project.path / "random")
    save_run(replace(run, path=project.path / "random", specs={"hog": spec}), *load_weights(run))
    line = "aupipe: hog: from encoders with RANDOM weights, so no score means anything"
    assert line in project.ask("evaluate", "random", "--cpu").splitlines()
    assert "features of RANDOM encoder weights: hog" in project.json("evaluate", "random", "--cpu")["caveats"]
    with open_store(project.path / "features") as store:
        assert store.spec(run.features["hog"]).weights is None
    assert line not in project.ask("evaluate", "run", "--cpu").splitlines()


def test_members_whose_post_processing_is_not_used_are_said(project: Folder) -> None:
    ask = (*TRAIN, "--set", "postprocess.au.threshold=tune", "--folds", "2", "--out", "folds")
    project.ask(*ask)
    said = project.ask("ensemble", "folds", "--rule", "vote", "--out", "voted")
    assert "folds is replaced by its members: its own post-processing is not used" in said
    said = project.ask("ensemble", "folds", "run", "--post", "none", "--out", "raw")
    assert "1  folds: mean of 2 baseline; ITS POST-PROCESSING IS NOT USED" in said
    line = "aupipe: raw does not use the post-processing of its members"
    assert line in project.ask("evaluate", "raw", "--cpu").splitlines()
    assert line not in project.ask("evaluate", "folds", "--cpu").splitlines()


def test_what_was_done_to_the_scores_of_members_is_not_done_again_unsaid(project: Folder) -> None:
    recipe = ("postprocess.au.smooth=average", "postprocess.au.width=5", "postprocess.au.aucorr=on")
    project.ask(*TRAIN, *(part for change in recipe for part in ("--set", change)), "--out", "corrected")
    project.ask("ensemble", "corrected", "run", "--out", "both")
    said = project.ask("tune", "both", "--out", "both.json", "--cpu")
    line = "aupipe: both: its members are post-processed: smoothing, AUcorr of the recipe is left out"
    assert line in said.splitlines()
    assert "twice" not in said
    options = json.loads((project.path / "both.json").read_text())["options"]
    assert (options["smooth"], options["aucorr"], options["threshold"]) == ("none", "off", 0.5)
    twice = "aupipe: both: done twice, to its members and to the whole: "
    said = project.ask("tune", "both", "--set", "aucorr=on", "--out", "on.json", "--cpu")
    assert twice + "AUcorr" in said.splitlines()
    said = project.ask("tune", "both", "--from", "corrected", "--out", "from.json", "--cpu")
    assert twice + "smoothing, AUcorr" in said.splitlines()
    assert "aupipe: corrected" not in project.ask("tune", "corrected", "--out", "one.json", "--cpu")


def test_a_feature_that_a_recipe_names_twice_is_refused(project: Folder) -> None:
    ask = ("train", "--recipe", "baseline", *SMALL, "--set", 'features=["hog", "hog"]', "--out", "no")
    assert "feature 'hog' is named twice" in project.ask(*ask, code=2)


def test_a_schedule_that_is_longer_than_the_run_is_said(project: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        project.ask(*TRAIN, "--set", "optimiser.warmup_steps=1000", "--out", "short")
    assert "the run of 2 epochs is shorter than its schedule: the warm-up takes" in caplog.text
    assert unreached(Optimiser(warmup_epochs=1.0), 10, 2) == []
    assert unreached(Optimiser(warmup_epochs=2.0), 10, 2) == [
        "the warm-up takes 2 epochs: the learning rate never reaches 0.001"
    ]
    assert len(unreached(Optimiser(schedule="restarts", restart_epochs=4.0, drop_epoch=16), 10, 5)) == 2
    assert unreached(Optimiser(schedule="restarts", restart_epochs=4.0, drop_epoch=16), 10, 17) == []
    assert unreached(Optimiser(schedule="plateau", plateau_patience=5), 10, 6) != []


def test_a_label_out_of_range_names_its_column_and_the_range(tmp_path: Path) -> None:
    for task, names, row, said in (
        (
            "au",
            AU_NAMES,
            "0,0,0,0,0,0,0,7,0,0,0,0",
            "line 2: AU15 is 7: expected a whole number of 0 to 1, or -1",
        ),
        ("expr", EXPR_NAMES, "8", "line 2: the class is 8: expected a whole number of 0 to 7, or -1 where"),
        ("va", ("valence", "arousal"), "-2,0", "line 2: valence is -2: expected -1 to 1, or -5 where"),
    ):
        (tmp_path / "x.txt").write_text(f"{','.join(names)}\n{row}\n")
        with pytest.raises(UsageError, match=said):
            read_annotation(tmp_path / "x.txt", OFFICIAL[task])
