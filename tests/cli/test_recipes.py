"""A recipe's features in a project: `recipes`, and `init`, `extract`, `train` with --recipe, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from aupipe.cli import _run, cli
from aupipe.config import load_config
from aupipe.errors import AupipeError, WeightsMissingError
from aupipe.store import open_store
from aupipe.tasks import OFFICIAL
from aupipe.train.ensemble_recipe import load_ensemble_recipe
from aupipe.train.recipe import load_recipe, recipe_names
from tests.conftest import write_video

DRY = ("--dry-run", "--weights", "random", "--no-face")
MINE = """# my data
[dataset]
layout = "folder"
videos = "videos"   # here

[[encoder]]
name = "hog"
modality = "visual"
kind = "hog"

[train]
recipe = "tcn"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one video, in which commands run."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "videos" / "a.mp4", frames=6, tone_hz=200.0)
    (tmp_path / "aupipe.toml").write_text(MINE)
    return tmp_path


def ask(*arguments: object, code: int = 0) -> str:
    """What a command says on stdout and stderr; its error as text, with its exit code."""
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    error = result.exception
    if isinstance(error, AupipeError):
        assert error.exit_code == code, str(error)
        return str(error)
    if error is not None and not isinstance(error, SystemExit):
        raise error
    assert result.exit_code == code, result.output
    return result.output


def test_recipes_lists_every_recipe_with_paper_features_per_task_and_code():
    rows = {row["recipe"]: row for row in json.loads(ask("recipes", "--json"))["recipes"]}
    assert list(rows) == recipe_names()
    assert rows["tcn-transformer"]["features"]["va"][-1] == "wav2vec2_emotion"
    assert rows["regnet-vivit"]["code"] == ""
    assert rows["aud-tgn"]["from_code"] > 0
    assert rows["tmf-ensemble"]["departures"] == 7
    text = ask("recipes")
    assert "Zhou et al. 2023; code upczww/abaw5" in text
    assert "regnet-vivit                Vu et al. 2023; no published code" in text


@pytest.mark.parametrize("name", recipe_names())
def test_what_recipes_show_prints_is_a_recipe_file_that_loads_as_the_recipe(name, tmp_path):
    for task in OFFICIAL.values():
        text = ask("recipes", "show", name, "--task", task)
        if name == "best":
            assert "# member linear, once per feature" in text
            continue
        (tmp_path / f"{name}.toml").write_text(text)
        found, recipe = load_recipe(tmp_path / f"{name}.toml"), load_recipe(name, task=task)
        assert (found.head, found.optimiser, found.features) == (recipe.head, recipe.optimiser, recipe.features)
        assert found.encoders == recipe.encoders
        assert found.loss_for(task) == recipe.loss_for(task)
        assert found.postprocess_for(task) == recipe.postprocess_for(task)


def test_recipes_show_lists_departures_from_the_paper_also_those_of_set():
    text = ask("recipes", "show", "aud-tgn", "--set", "optimiser.lr=2e-4")
    assert "#   optimiser.lr = 0.0002: the paper has 0.0001" in text
    assert "#   iresnet50: frozen, because features are computed once; the paper trains its last layer" in text
    assert "expected au, expr, va" in ask("recipes", "show", "tcn", "--task", "mood", code=2)


def test_init_adds_a_recipe_s_tables_at_the_end_and_leaves_the_user_s_lines(folder):
    said = ask("init", "--recipe", "tcn-transformer", "--task", "expr")
    assert "added to aupipe.toml: eff, affectnet8" in said
    assert "next: aupipe extract --recipe tcn-transformer --task expr" in said
    text = (folder / "aupipe.toml").read_text()
    assert text.startswith(MINE)
    names = [one.name for one in load_config(folder / "aupipe.toml").encoders]
    assert names == ["hog", "eff", "affectnet8"]
    assert "nothing to add" in ask("init", "--recipe", "tcn-transformer", "--task", "expr")
    assert (folder / "aupipe.toml").read_text() == text
    ask("init", "--recipe", "tcn-transformer")  # all tasks of the paper
    assert {"rafdb", "wav2vec2_emotion"} <= {one.name for one in load_config(folder / "aupipe.toml").encoders}


def test_init_keeps_the_features_that_a_file_without_encoders_has_by_default(folder):
    (folder / "aupipe.toml").write_text("[train]\ntask = 'au'")
    said = ask("init", "--recipe", "regnet-vivit", "--task", "au")
    assert "regnet_map, hog, geometry, mfcc" in said
    assert len(load_config(folder / "aupipe.toml").encoders) == 4


def test_init_refuses_a_feature_that_is_another_one_in_the_file_and_writes_nothing(folder):
    mine = MINE + '\n[[encoder]]\nname = "eff"\nmodality = "visual"\nkind = "hsemotion"\nmodel = "b0"\n'
    (folder / "aupipe.toml").write_text(mine)
    said = ask("init", "--recipe", "tcn-transformer", "--task", "expr", code=2)
    assert "'eff' (model = 'b0', not 'b2'" in said
    (folder / "aupipe.toml").write_text("encoder = [{name = 'hog', modality = 'visual', kind = 'hog'}]\n")
    said = ask("init", "--recipe", "regnet-vivit", code=2)
    assert "cannot be added at its end" in said
    assert "regnet" not in (folder / "aupipe.toml").read_text()


def test_a_new_file_has_the_recipe_its_task_its_features_alone_and_its_detector(folder):
    (folder / "aupipe.toml").unlink()
    said = ask("init", "--recipe", "tmf-ensemble", "--task", "va")
    assert "faces by retinaface: the detector of recipe tmf-ensemble" in said
    config = load_config(folder / "aupipe.toml")
    assert (config.faces.detector, dict(config.detector)) == ("retinaface", {"model": "resnet50"})
    assert (config.train.recipe, config.train.task) == ("tmf-ensemble", "va")
    assert config.encoders == load_ensemble_recipe("tmf-ensemble", task=OFFICIAL["va"]).encoders


def test_missing_weights_stand_one_a_line_on_the_terminal(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["aupipe", "extract", "--recipe", "tcn-transformer", "--no-face", "--cpu"])
    assert _run() == 12
    heading, *lines = capsys.readouterr().err.splitlines()
    assert heading == "aupipe: 4 of the weights are missing:"
    assert len(lines) == 4
    assert all(line.startswith("  ") for line in lines)


def test_extract_recipe_makes_exactly_its_features_and_names_all_missing_weights_at_once(folder):
    said = ask("extract", "--recipe", "tcn-transformer", "--task", "au", "--no-face", "--cpu", code=12)
    for file in ("enet_b2_8.pt", "rafdb_epoch21_acc0.897_bacc0.8275.pth", "affecnet8_epoch5_acc0.6209.pth"):
        assert file in said
    heading, *lines = said.splitlines()
    assert heading == "3 of the weights are missing:"
    assert [line[:10] for line in lines[:3]] == ["  weights "] * 3  # one a line
    assert not (folder / "features").exists()
    said = ask(
        "extract", "--recipe", "tcn-transformer", "--task", "va", "--dry-run", "--weights", "random", "--no-face"
    )
    assert {line.partition("@")[0] for line in said.splitlines() if "@" in line} == {
        "eff", "rafdb", "affectnet8", "wav2vec2_emotion"
    }  # fmt: skip
    assert "--task is for --recipe" in ask("extract", "--task", "au", code=2)
    assert "recipe 'tcn' names no features" in ask("extract", "--recipe", "tcn", code=2)
    assert "has no feature 'rafbd'. Did you mean 'rafdb'" in ask(
        "extract", "--recipe", "tcn-transformer", "--feature", "rafbd", code=2
    )


def test_a_feature_of_the_file_goes_before_the_recipe_s_of_that_name_and_is_named(folder):
    mine = MINE + '\n[[encoder]]\nname = "eff"\nmodality = "visual"\nkind = "hsemotion"\nmodel = "b0"\n'
    (folder / "aupipe.toml").write_text(mine)
    said = ask(
        "extract", "--recipe", "tcn-transformer", "--task", "au", "--dry-run", "--weights", "random", "--no-face"
    )
    assert "feature 'eff' is that of" in said
    assert "not the recipe's: model = 'b0', not 'b2'" in said


def test_train_without_a_store_or_a_feature_prints_the_one_command_that_makes_what_is_missing(project):
    """On a folder in which everything but the features is there."""
    said = project.ask("train", "--recipe", "tcn-transformer", "--task", "au", "--cpu", code=2)
    assert said.endswith("eff, rafdb, affectnet8; `aupipe extract --recipe tcn-transformer --task au` computes them")
    (project.path / "features").rename(project.path / "away")
    said = ask_in(project.path, "train", "--recipe", "tcn-transformer", "--task", "au", code=10)
    assert said.endswith("`aupipe extract --recipe tcn-transformer --task au` creates it")
    (project.path / "away").rename(project.path / "features")


def ask_in(path: Path, *arguments: object, code: int = 0) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        return ask(*arguments, code=code)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    from tests.cli.test_train import Folder, fill

    root = tmp_path_factory.mktemp("project")
    fill(root)
    return Folder(root)


def test_two_names_of_the_same_numbers_are_computed_once_and_both_are_found(folder):
    (folder / "aupipe.toml").write_text(MINE + '\n[[encoder]]\nname = "again"\nmodality = "visual"\nkind = "hog"\n')
    said = ask("extract", "--cpu", "--no-face")
    assert "features 'hog' and 'again' are the same numbers: computed once, as hog@" in said
    store = open_store(folder / "features")
    assert [spec.name for spec in store.features() if spec.modality == "visual"] == ["hog"]
    store.close()
    said = ask("extract", "--cpu", "--no-face", "--feature", "again")  # found under the other name
    assert "nothing to do: 1 item stored" in said


def test_a_recipe_whose_two_names_differ_by_a_spelled_out_default_is_refused_with_the_reason(folder):
    (folder / "r.toml").write_text(
        "extends = 'tcn'\nfeatures = ['a', 'b']\n"
        "[[encoder]]\nname = 'a'\nmodality = 'visual'\nkind = 'dan'\n"
        "[[encoder]]\nname = 'b'\nmodality = 'visual'\nkind = 'dan'\nweights = 'affecnet8_epoch5_acc0.6209.pth'\n"
    )
    said = ask("extract", "--recipe", "r.toml", code=2)
    assert "features 'a' and 'b' are the same numbers: only their names differ" in said


def test_random_weights_of_different_files_are_different_numbers_and_of_defaults_the_former_ones():
    from aupipe.config import Config, EncoderConfig
    from aupipe.extract.encoders import build_encoder
    from aupipe.extract.planning.random_weights import with_random_weights
    from aupipe.extract.weights import random_weights

    tables = (
        EncoderConfig("a", "dan", "visual"),
        EncoderConfig("b", "dan", "visual", {"weights": "rafdb_epoch21_acc0.897_bacc0.8275.pth"}),
        EncoderConfig("c", "speech", "audio", {"model": "facebook/hubert-base-ls960"}),
    )
    a, b, c = (build_encoder(one) for one in with_random_weights(Config(encoders=tables)).encoders)
    assert a.identify_weights() == random_weights("dan_8")
    assert b.identify_weights() != a.identify_weights()
    one, other = a.network().state_dict()["fc.weight"], b.network().state_dict()["fc.weight"]
    assert not one.equal(other)
    assert c.identify_weights().name == "random:0:stand-in:facebook/hubert-base-ls960"
    with pytest.raises(WeightsMissingError, match="unheard/of"):
        build_encoder(
            EncoderConfig("d", "speech", "audio", {"model": "unheard/of", "weights": "random"})
        ).identify_weights()


def test_an_encoder_that_has_random_weights_already_keeps_them_under_weights_random():
    from aupipe.config import Config, EncoderConfig
    from aupipe.extract.planning.random_weights import with_random_weights

    given = Config(
        encoders=(
            EncoderConfig("a", "regnet", "visual", {"weights": "random"}),
            EncoderConfig("b", "dan", "visual", {"weights": "random:other.pth"}),
            EncoderConfig("c", "speech", "audio", {"model": "facebook/hubert-base-ls960", "weights": "random"}),
            EncoderConfig("d", "ghfeat", "visual", {"landmarks": "face.task"}),
        )
    )
    once = with_random_weights(given)
    assert once.encoders[:3] == given.encoders[:3]
    assert once.encoders[3].params == {"weights": "random", "landmarks": "random"}
    assert with_random_weights(once) == once
